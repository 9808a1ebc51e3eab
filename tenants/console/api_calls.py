"""How a page changes something: it calls the REST API's view in this process, as the same person.

So a page can do nothing that the API cannot, and rights, validation, idempotency, prices and audit
events are those of the API. There is no HTTP and no second sign-in; the page's own request has been
checked against CSRF already.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, QueryDict
from django.urls import resolve, reverse

from tenants.core.errors import ServiceError
from tenants.core.middleware import request_id_of

JSON = "application/json"


class RefusedError(ServiceError):
    """What the API refused, with the status, code, message and fields of its problem."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        fields = problem.get("errors") or {}
        super().__init__(
            str(problem.get("detail") or HTTPStatus(status).phrase),
            code=str(problem.get("code", "")),
            fields=fields if isinstance(fields, Mapping) else {"body": fields},
            retryable=bool(problem.get("retryable")),
            extra=problem,
        )
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API answered: 2xx, and its body."""

    status: int
    data: Any


def api_call(
    page: HttpRequest,
    method: str,
    name: str,
    data: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> Answer:
    """Call the address `name` of the API as who asked for `page`; RefusedError if it refuses.

    `headers` are of the call, as in `{"Idempotency-Key": ...}`.
    """
    request = _request(page, method, reverse(f"api:{name}", kwargs=kwargs), data, query, headers)
    match = request.resolver_match
    assert match is not None
    response = match.func(request, *match.args, **match.kwargs)
    body = getattr(response, "data", None)
    if response.status_code >= 400:
        raise RefusedError(response.status_code, body if isinstance(body, Mapping) else {})
    return Answer(response.status_code, body)


def _request(
    page: HttpRequest,
    method: str,
    path: str,
    data: Mapping[str, Any] | None,
    query: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
) -> HttpRequest:
    body = b"" if data is None else json.dumps(data, cls=DjangoJSONEncoder).encode()
    request = HttpRequest()
    request.method = method
    request.path = request.path_info = path
    # What the page was asked with must not speak for the call: its length, type, conditions.
    kept = ("REMOTE_ADDR", "SERVER_NAME", "SERVER_PORT", "HTTP_HOST", "HTTP_USER_AGENT")
    request.META = {name: page.META[name] for name in kept if name in page.META}
    request.META |= {"CONTENT_LENGTH": str(len(body)), "HTTP_ACCEPT": JSON}
    if body:
        request.META["CONTENT_TYPE"] = JSON
    for name, value in (headers or {}).items():
        request.META["HTTP_" + name.upper().replace("-", "_")] = value
    if query:
        request.META["QUERY_STRING"] = urlencode(query)
        request.GET = QueryDict(urlencode(query))
    request._stream = io.BytesIO(body)
    request._read_started = False  # type: ignore[attr-defined]
    request.user = page.user
    request.session = page.session
    request.request_id = request_id_of(page)  # type: ignore[attr-defined]
    request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
    # A form's values are texts: "2" is the number that somebody typed.
    request.is_of_form = True  # type: ignore[attr-defined]
    request.resolver_match = resolve(path)
    return request

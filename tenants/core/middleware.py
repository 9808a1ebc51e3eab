"""Two middlewares: the id of every request, and the Content-Security-Policy of every page."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse

Handler = Callable[[HttpRequest], HttpResponse]

# What a caller may choose as its request id; anything else is replaced.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

STRICT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def request_id(get_response: Handler) -> Handler:
    """Take the caller's X-Request-ID or make one; it is in the answer, the errors and the log."""

    def handle(request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        chosen = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        request.request_id = chosen  # type: ignore[attr-defined]
        with structlog.contextvars.bound_contextvars(request_id=chosen):
            response = get_response(request)
        response["X-Request-ID"] = chosen
        return response

    return handle


def content_security_policy(get_response: Handler) -> Handler:
    """Forbid every origin but ours; a view that needs more sets the header itself."""

    def handle(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", STRICT_POLICY)
        return response

    return handle

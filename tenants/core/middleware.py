"""Three middlewares: each request's id and log line, the refusal of addresses that no database
takes, and the Content-Security-Policy of every page.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable

import structlog
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse

log = structlog.get_logger(__name__)

Handler = Callable[[HttpRequest], HttpResponse]

# What a caller may choose as its request id; anything else is replaced.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

STRICT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def request_id_of(request: HttpRequest) -> str:
    """Return the id that the middleware gave to a request."""
    return str(getattr(request, "request_id", ""))


def request_id(get_response: Handler) -> Handler:
    """Take the caller's X-Request-ID or make one; it is in the answer, the errors and the log."""

    def handle(request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        chosen = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        request.request_id = chosen  # type: ignore[attr-defined]
        started = time.monotonic()
        with structlog.contextvars.bound_contextvars(request_id=chosen):
            response = get_response(request)
            # The route, not the path: an invitation's path is a secret.
            log.info(
                "request",
                method=request.method,
                route=request.resolver_match.route if request.resolver_match else "",
                status=response.status_code,
                milliseconds=round((time.monotonic() - started) * 1000),
            )
        response["X-Request-ID"] = chosen
        return response

    return handle


def nul_refusal(get_response: Handler) -> Handler:
    """Refuse a NUL in path or query: PostgreSQL's text cannot hold it, so nothing is named so."""

    def handle(request: HttpRequest) -> HttpResponse:
        if "\0" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            raise BadRequest("a NUL in the address")
        return get_response(request)

    return handle


def content_security_policy(get_response: Handler) -> Handler:
    """Forbid every origin but ours; a view that needs more sets the header itself."""

    def handle(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", STRICT_POLICY)
        return response

    return handle

"""The one shape of an error: RFC 9457 problem+json.

    {"type": "urn:weftkit:problem:<code>", "title": "Conflict", "status": 409, "detail": "...",
     "code": "<stable code>", "request_id": "...", "retryable": false, "errors": {"field": ["..."]}}

`exception_to_problem` is DRF's exception handler; the page handlers answer what never reached a
view.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from tenants.core.errors import ServiceError, TooManyError
from tenants.core.middleware import request_id_of

CONTENT_TYPE = "application/problem+json"
log = structlog.get_logger(__name__)

# DRF's own refusals -> our stable codes; what is not listed keeps DRF's code.
CODES: Mapping[type[exceptions.APIException], str] = {
    exceptions.ValidationError: "invalid",
    exceptions.ParseError: "malformed",
    exceptions.NotAuthenticated: "unauthenticated",
    exceptions.AuthenticationFailed: "unauthenticated",
    exceptions.PermissionDenied: "forbidden",
    exceptions.NotFound: "not_found",
    exceptions.MethodNotAllowed: "method_not_allowed",
    exceptions.UnsupportedMediaType: "unsupported_media_type",
    exceptions.Throttled: "too_many_requests",
}


def problem(
    *,
    status: int,
    code: str,
    detail: str,
    request_id: str,
    retryable: bool = False,
    errors: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body of a problem."""
    body: dict[str, Any] = {
        "type": f"urn:weftkit:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "retryable": retryable,
        **(extra or {}),
    }
    if errors:
        body["errors"] = errors
    return body


def exception_to_problem(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Turn whatever a view raised into a problem; None leaves it to the 500 page (and the log)."""
    request_id = request_id_of(context["request"])
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    headers: dict[str, str] = {}
    if isinstance(error, ServiceError):
        status = error.status
        body = problem(
            status=status,
            code=error.code,
            detail=error.message,
            request_id=request_id,
            retryable=error.retryable,
            errors=error.fields,
            extra=error.extra,
        )
        if isinstance(error, TooManyError):
            headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, exceptions.APIException):
        status = error.status_code
        body = _api_exception(error, request_id)
        if header := getattr(error, "auth_header", None):
            headers["WWW-Authenticate"] = header
        if wait := getattr(error, "wait", None):
            headers["Retry-After"] = str(int(wait) + 1)
    elif isinstance(error, OperationalError | InterfaceError):
        log.warning("the database does not answer", error=str(error))
        status = 503
        body = problem(
            status=status,
            code="unavailable",
            detail="The database does not answer, or a lock took too long; ask again.",
            request_id=request_id,
            retryable=True,
        )
    else:
        return None
    set_rollback()
    return Response(body, status=status, headers=headers, content_type=CONTENT_TYPE)


def _api_exception(error: exceptions.APIException, request_id: str) -> dict[str, Any]:
    errors = error.detail if isinstance(error, exceptions.ValidationError) else None
    if isinstance(errors, list):
        errors = {"body": errors}
    return problem(
        status=error.status_code,
        code=CODES.get(type(error), str(error.default_code)),
        detail="The request is not valid." if errors else str(error.detail),
        request_id=request_id,
        retryable=error.status_code in (429, 503),
        errors=errors,
    )


def page_bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django itself refuses: an unknown host, too many fields."""
    return _page(request, 400, "malformed", "This request cannot be read.")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an address that does not exist."""
    return _page(request, 404, "not_found", "There is nothing at this address.")


def page_failed(request: HttpRequest) -> HttpResponse:
    """Answer a failure of ours; the log knows more under the request id."""
    return _page(request, 500, "internal", "WeftKit failed; the request id finds the reason.")


def _page(request: HttpRequest, status: int, code: str, detail: str) -> HttpResponse:
    request_id = request_id_of(request)
    if request.path.startswith("/api/"):
        body = problem(
            status=status, code=code, detail=detail, request_id=request_id, retryable=status == 500
        )
        return JsonResponse(body, status=status, content_type=CONTENT_TYPE)
    context = {"title": HTTPStatus(status).phrase, "detail": detail, "request_id": request_id}
    return render(request, "console/problem.html", context, status=status)

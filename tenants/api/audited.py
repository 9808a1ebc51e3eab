"""What makes every request that changes something leave its event (`tenants/audit/actions.py`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from django.db import transaction
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.conditional import precondition_check
from tenants.audit.actions import REQUESTS, Action
from tenants.audit.details import answer_details, request_details
from tenants.audit.services import Asked, audit_write
from tenants.core.errors import invalid_field
from tenants.core.middleware import request_id_of
from tenants.iam.models import ApiKey

if TYPE_CHECKING:
    from tenants.api.service_api import TenantApi

Handler = Callable[..., Response]
CHANGING = frozenset({"post", "patch", "delete"})
DRY_RUN_HEADER = "Dry-Run"
# Answers that say so changed nothing: a repetition from memory, a price.
UNCHANGED = frozenset({"Idempotency-Replayed", DRY_RUN_HEADER})
PENDING = 202
# Most characters of an agent and of a refusal's detail that are looked at.
TEXT_MAX = 300


def audited(handler: Handler) -> Handler:
    """Write the event of a success in the transaction of the change."""

    @functools.wraps(handler)
    def handle(self: TenantApi, *args: Any, **kwargs: Any) -> Response:
        with transaction.atomic():
            precondition_check(self, **kwargs)
            response = handler(self, *args, **kwargs)
            if not UNCHANGED & response.headers.keys():
                event_write(self, response)
        return response

    return handle


def event_write(api: TenantApi, response: Response) -> None:
    """Write what `response` says of the request."""
    request = api.request
    match = request.resolver_match
    assert match is not None
    assert match.url_name is not None
    action = REQUESTS[str(request.method), match.url_name]
    is_done = response.status_code < 400
    target = target_of(request)
    if is_done and action.made:
        target = f"{target}/{response.data[action.made]}"
    audit_write(
        tenant_id=api.actor.tenant.pk,
        action=action.name,
        initiator=api.actor.name,
        target=target,
        outcome=outcome_of(response.status_code),
        reason_code=response.status_code,
        asked=asked_of(request, response, action),
    )


def outcome_of(status: int) -> str:
    """Return CADF's word: the end of what goes on as an operation has an event too."""
    if status == PENDING:
        return "pending"
    return "success" if status < 400 else "failure"


def wants_dry_run(request: Request) -> bool:
    """Say whether the request only asks what a change would cost (`billing/dry_run.py`)."""
    given = request.query_params.get("dry_run", "false")
    if given not in ("true", "false"):
        raise invalid_field("dry_run", "true or false")
    return given == "true"


def target_of(request: Request) -> str:
    """Return what a request is about: its path below the tenant, or the tenant itself."""
    return request.path.partition("/tenants/")[2].partition("/")[2] or "tenant"


def asked_of(request: Request, response: Response | None = None, by: Action | None = None) -> Asked:
    """Return what an event tells of a request and its answer; nothing of it is a secret."""
    answer = response.data if response is not None else None
    is_refused = response is not None and response.status_code >= 400
    detail = str(answer.get("detail", "")) if isinstance(answer, Mapping) and is_refused else ""
    return Asked(
        address=str(request.META.get("REMOTE_ADDR", "")),
        agent=request.headers.get("User-Agent", "")[:TEXT_MAX],
        credential_type=_credential_type(request),
        request_id=request_id_of(request),
        reason=detail[:TEXT_MAX],
        request_data=request_details(_body(request), by.told if by else ()),
        response_data=_refusal(answer) if is_refused else answer_details(answer),
    )


def _refusal(answer: Any) -> dict[str, Any]:
    return {"code": str(answer.get("code", ""))} if isinstance(answer, Mapping) else {}


def _body(request: Request) -> Any:
    try:
        return request.data
    except APIException:  # no JSON; its refusal is what the event tells of
        return None


def _credential_type(request: Request) -> str:
    """Return CADF's word for what the request showed: a key, a token, or a person's session."""
    return request.auth.credential_type if isinstance(request.auth, ApiKey) else "user"

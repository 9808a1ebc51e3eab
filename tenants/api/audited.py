"""What makes every request that changes something leave its event (`tenants/audit/actions.py`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db import transaction
from rest_framework.response import Response

from tenants.audit.actions import REQUESTS
from tenants.audit.services import audit_write
from tenants.core.middleware import request_id_of

if TYPE_CHECKING:
    from tenants.api.service_api import TenantApi

Handler = Callable[..., Response]
CHANGING = frozenset({"post", "patch", "delete"})


def audited(handler: Handler) -> Handler:
    """Write the event of a success in the transaction of the change."""

    @functools.wraps(handler)
    def handle(self: TenantApi, *args: Any, **kwargs: Any) -> Response:
        with transaction.atomic():
            response = handler(self, *args, **kwargs)
            # A repetition that was answered from memory changed nothing.
            if "Idempotency-Replayed" not in response.headers:
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
    target = request.path.partition("/tenants/")[2].partition("/")[2]
    if is_done and action.made:
        target = f"{target}/{response.data[action.made]}"
    audit_write(
        tenant_id=api.actor.tenant.pk,
        action=action.name,
        initiator=api.actor.name,
        target=target,
        outcome="success" if is_done else "failure",
        reason_code=response.status_code,
        address=str(request.META.get("REMOTE_ADDR", "")),
        request_id=request_id_of(request),
    )

"""Writes: endpoints and their secrets, and `webhook_emit`, which tells a tenant what happened.

An event and its deliveries are rows in the transaction of what happened: committed together or not
at all. `delivery.py` carries them out afterwards, at least once.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from celery import current_app
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.core.errors import ConflictError, InvalidError, LimitError, invalid_field
from tenants.core.sealing import seal, unseal
from tenants.webhooks.event_types import BY_NAME
from tenants.webhooks.models import (
    DeliveryState,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from tenants.webhooks.targets import TargetError, url_check

ENDPOINTS_PER_TENANT_MAX = 16
DATA_BYTES_MAX = 16 * 1024
SECRET_BYTES = 32
SECRET_PREFIX = "whsec_"
SECRET_PURPOSE = "webhook secret"
OLD_SECRET_GRACE = timedelta(hours=24)
OLD_SECRET_GRACE_MAX = timedelta(days=7)
DELIVER = "webhooks.deliver"


@transaction.atomic
def webhook_emit(
    *, tenant: Tenant | UUID, event_type: str, data: Mapping[str, Any], only: UUID | None = None
) -> UUID | None:
    """Tell a tenant's endpoints of an event, in the transaction of what happened.

    `event_type` is one of `event_types.TYPES`; `data` is what JSON can hold (times, UUIDs
    and decimals too). `only` names the one endpoint that shall hear of it. Returns the event's id,
    None where nobody listens.
    """
    tenant_id = tenant.pk if isinstance(tenant, Tenant) else tenant
    wanted = BY_NAME[event_type].fields
    missing = [name for name in wanted if name not in data]
    assert not missing, f"{event_type} lacks {missing}"
    text = json.dumps(data, cls=DjangoJSONEncoder)
    assert len(text) <= DATA_BYTES_MAX, f"the data of {event_type} has {len(text)} bytes"
    endpoints = WebhookEndpoint.objects.filter(tenant_id=tenant_id, is_enabled=True)
    if only is not None:
        endpoints = endpoints.filter(pk=only)
    listening = [
        each for each in endpoints if only or not each.event_types or event_type in each.event_types
    ]
    if not listening:
        return None
    event = WebhookEvent.objects.create(tenant_id=tenant_id, type=event_type, data=json.loads(text))
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(endpoint=each, event=event) for each in listening
    )
    deliver_soon()
    return event.pk


def deliver_soon() -> None:
    """Wake a worker once the transaction is committed; beat finds what no worker heard of."""

    def send() -> None:
        current_app.send_task(DELIVER, retry=False, expires=60)

    transaction.on_commit(send, robust=True)


@transaction.atomic
def endpoint_create(
    *,
    tenant: Tenant,
    actor: str,
    url: str,
    description: str = "",
    event_types: Iterable[str] = (),
) -> tuple[WebhookEndpoint, str]:
    """Make an endpoint; return it and its secret, which is shown once."""
    Tenant.objects.select_for_update().get(pk=tenant.pk)
    if WebhookEndpoint.objects.filter(tenant=tenant).count() >= ENDPOINTS_PER_TENANT_MAX:
        raise LimitError(f"a tenant has up to {ENDPOINTS_PER_TENANT_MAX} endpoints")
    secret = _new_secret()
    endpoint = WebhookEndpoint.objects.create(
        tenant=tenant,
        url=_checked_url(url),
        description=description,
        event_types=_checked_types(event_types),
        secret_sealed=seal(secret, purpose=SECRET_PURPOSE),
        created_by=actor,
    )
    return endpoint, secret


@transaction.atomic
def endpoint_change(*, endpoint: WebhookEndpoint, changes: Mapping[str, Any]) -> WebhookEndpoint:
    """Change `url`, `description`, `event_types`, `is_enabled`; switching on forgets failures."""
    endpoint = WebhookEndpoint.objects.select_for_update().get(pk=endpoint.pk)
    checks = {"url": _checked_url, "event_types": _checked_types}
    for name in ("url", "description", "event_types", "is_enabled"):
        if name in changes:
            check = checks.get(name)
            setattr(endpoint, name, check(changes[name]) if check else changes[name])
    if changes.get("is_enabled"):
        endpoint.disabled_reason, endpoint.failing_since = "", None
    elif changes.get("is_enabled") is False:
        endpoint.disabled_reason = "Switched off by a member."
        deliveries_abandon(endpoint)
    endpoint.save()
    return endpoint


def endpoint_delete(*, endpoint: WebhookEndpoint) -> None:
    """Delete an endpoint and the log of its deliveries."""
    WebhookEndpoint.objects.filter(pk=endpoint.pk).delete()


@transaction.atomic
def secret_rotate(
    *, endpoint: WebhookEndpoint, grace: timedelta = OLD_SECRET_GRACE
) -> tuple[WebhookEndpoint, str]:
    """Make a new secret, shown once; until `grace` is over messages are signed with both."""
    if not timedelta(0) <= grace <= OLD_SECRET_GRACE_MAX:
        raise invalid_field("grace_s", f"up to {int(OLD_SECRET_GRACE_MAX.total_seconds())}")
    endpoint = WebhookEndpoint.objects.select_for_update().get(pk=endpoint.pk)
    secret = _new_secret()
    endpoint.old_secret_sealed = endpoint.secret_sealed
    endpoint.old_secret_ends_at = timezone.now() + grace
    endpoint.secret_sealed = seal(secret, purpose=SECRET_PURPOSE)
    endpoint.save()
    return endpoint, secret


def secrets_of(endpoint: WebhookEndpoint, *, now: datetime) -> list[str]:
    """Return the secrets that a message is signed with now, the newest first."""
    sealed = [endpoint.secret_sealed]
    if endpoint.old_secret_ends_at is not None and endpoint.old_secret_ends_at > now:
        sealed.append(endpoint.old_secret_sealed)
    return [unseal(each, purpose=SECRET_PURPOSE) for each in sealed]


@transaction.atomic
def endpoint_test(*, endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Send the endpoint a test event; returns its delivery."""
    if not endpoint.is_enabled:
        raise ConflictError("the endpoint is switched off", code="webhook_disabled")
    event_id = webhook_emit(
        tenant=endpoint.tenant_id,
        event_type="webhook.test",
        data={"endpoint_id": endpoint.pk},
        only=endpoint.pk,
    )
    return WebhookDelivery.objects.get(endpoint=endpoint, event_id=event_id)


@transaction.atomic
def delivery_redeliver(*, delivery: WebhookDelivery) -> WebhookDelivery:
    """Send an event again, under its old id; the count of attempts begins anew."""
    delivery = (
        WebhookDelivery.objects.select_for_update(of=("self",))
        .select_related("endpoint", "event")
        .get(pk=delivery.pk)
    )
    if not delivery.endpoint.is_enabled:
        raise ConflictError("the endpoint is switched off", code="webhook_disabled")
    if delivery.state == DeliveryState.PENDING and delivery.attempts == 0:
        return delivery
    delivery.state, delivery.attempts = DeliveryState.PENDING, 0
    delivery.due_at, delivery.ended_at = timezone.now(), None
    delivery.save()
    deliver_soon()
    return delivery


def deliveries_abandon(endpoint: WebhookEndpoint) -> int:
    """End what waits for an endpoint that is switched off; it can be sent again by hand."""
    waiting = WebhookDelivery.objects.filter(endpoint=endpoint, state=DeliveryState.PENDING)
    return waiting.update(state=DeliveryState.FAILED, ended_at=timezone.now())


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode("ascii")


def _checked_url(url: str) -> str:
    try:
        return url_check(url)
    except TargetError as error:
        raise InvalidError("the address is refused", fields={"url": [str(error)]}) from error


def _checked_types(types: Iterable[str]) -> list[str]:
    wanted = sorted(set(types))
    unknown = [name for name in wanted if name not in BY_NAME]
    if unknown:
        raise invalid_field("event_types", f"unknown: {', '.join(unknown)}")
    return wanted

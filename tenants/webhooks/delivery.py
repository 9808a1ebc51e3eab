"""Writes: deliveries are carried out, tried again over three days, and given up.

A worker leases a delivery by moving its `due_at` past the time that an attempt can take, sends
without a transaction, and notes the outcome. Killed anywhere, its lease runs out and another sends
again under the same message id: at least once, never not at all.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import connection, transaction
from django.utils import timezone

from tenants.accounts.models import MemberRole, Membership
from tenants.webhooks.models import (
    DeliveryState,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from tenants.webhooks.sending import Message, Outcome, send_all
from tenants.webhooks.services import deliveries_abandon, secrets_of, webhook_emit

log = structlog.get_logger(__name__)

BATCH = 50
# Of one endpoint at a time: who answers slowly takes no other tenant's places.
PER_ENDPOINT_MAX = 4
# After which pause the next attempt comes: ten more attempts in three and a half days.
PAUSES = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 60, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
)
JITTER = 0.2
RETRY_AFTER_MAX = timedelta(hours=24)
# So long must all attempts have failed before an endpoint is switched off.
FAILING_MAX = timedelta(days=5)
KEPT = timedelta(days=30)
GONE = 410

# The oldest few of each endpoint: a heap of one keeps no other waiting.
LEASE_DUE = """
WITH due AS (
    SELECT oldest.id, oldest.due_at
    FROM webhooks_webhookendpoint AS endpoint CROSS JOIN LATERAL (
        SELECT id, due_at FROM webhooks_webhookdelivery
        WHERE endpoint_id = endpoint.id AND state = 'pending' AND due_at <= %(now)s
        ORDER BY due_at LIMIT %(per_endpoint)s
    ) AS oldest
    WHERE endpoint.is_enabled AND (endpoint.failing_since IS NOT NULL) = ANY(%(failing)s)
), chosen AS (
    SELECT delivery.id FROM webhooks_webhookdelivery AS delivery JOIN due USING (id)
    WHERE state = 'pending' AND delivery.due_at <= %(now)s
    ORDER BY delivery.due_at LIMIT %(rows)s FOR UPDATE OF delivery SKIP LOCKED
)
UPDATE webhooks_webhookdelivery AS delivery SET due_at = %(until)s, attempts = attempts + 1
FROM chosen WHERE delivery.id = chosen.id RETURNING delivery.id
"""


class Lane(Enum):
    """Receivers that answer, and those that fail: the slow failing do not hold the others up.

    A lane has one runner at a time, so that webhooks never take all workers.
    """

    WORKING = 0x77680001
    FAILING = 0x77680002


def lane_run(lane: Lane, *, batches: int) -> int:
    """Carry out up to `batches` batches of a lane; 0 where another worker does so already."""
    with connection.cursor() as cursor:
        # Of the session: it goes with the connection when the worker is killed.
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [lane.value])
        if not cursor.fetchone()[0]:
            return 0
        try:
            count = 0
            for _ in range(batches):
                done = deliveries_run(failing=[lane is Lane.FAILING])
                count += done
                if done == 0:
                    break
            return count
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [lane.value])


def deliveries_run(*, now: datetime | None = None, failing: Sequence[bool] = (False, True)) -> int:
    """Carry out one batch of what is due; return how many. May run beside itself."""
    leased = _lease(now or timezone.now(), failing)
    rows = list(WebhookDelivery.objects.filter(pk__in=leased).select_related("endpoint", "event"))
    outcomes = asyncio.run(send_all([_message(row) for row in rows]))
    for row, outcome in zip(rows, outcomes, strict=True):
        delivery_note(delivery_id=row.pk, outcome=outcome)
    return len(rows)


def _lease(now: datetime, failing: Sequence[bool]) -> list[UUID]:
    # Longer than an attempt can take.
    until = now + timedelta(seconds=settings.WEBHOOK_TIMEOUT_S * 3)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            LEASE_DUE,
            {
                "now": now,
                "until": until,
                "rows": BATCH,
                "per_endpoint": PER_ENDPOINT_MAX,
                "failing": list(failing),
            },
        )
        return [row[0] for row in cursor.fetchall()]


def body_of(event: WebhookEvent) -> str:
    """Return the text that is signed and sent: the same in every attempt."""
    at = event.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    body: dict[str, Any] = {"type": event.type, "timestamp": at, "data": event.data}
    return json.dumps(body, separators=(",", ":"))


def _message(delivery: WebhookDelivery) -> Message:
    endpoint = delivery.endpoint
    return Message(
        url=endpoint.url,
        message_id=delivery.event.message_id,
        body=body_of(delivery.event),
        secrets=secrets_of(endpoint, now=timezone.now()),
    )


@transaction.atomic
def delivery_note(*, delivery_id: UUID, outcome: Outcome) -> None:
    """Note an attempt: delivered, again later, or given up; the endpoint may be switched off."""
    found = WebhookDelivery.objects.filter(pk=delivery_id).first()
    if found is None:  # the endpoint was deleted meanwhile
        return
    endpoint = WebhookEndpoint.objects.select_for_update().get(pk=found.endpoint_id)
    delivery = WebhookDelivery.objects.select_for_update().get(pk=delivery_id)
    WebhookAttempt.objects.create(
        delivery=delivery,
        status=outcome.status,
        error=outcome.error,
        duration_ms=outcome.duration_ms,
        response_excerpt=outcome.excerpt,
    )
    now = timezone.now()
    if outcome.is_success:
        delivery.state, delivery.ended_at = DeliveryState.DELIVERED, now
        endpoint.failing_since = None
    elif delivery.state == DeliveryState.PENDING:
        _again_or_never(delivery, outcome, now)
        endpoint.failing_since = endpoint.failing_since or now
    delivery.save()
    endpoint.save(update_fields=["failing_since", "updated_at"])
    if endpoint.is_enabled and outcome.status == GONE:
        endpoint_disable(endpoint=endpoint, reason="The receiver answered 410: it is gone.")
    elif (
        endpoint.is_enabled
        and endpoint.failing_since
        and (now - endpoint.failing_since >= FAILING_MAX)
    ):
        endpoint_disable(
            endpoint=endpoint, reason=f"Every attempt failed for {FAILING_MAX.days} days."
        )


def _again_or_never(delivery: WebhookDelivery, outcome: Outcome, now: datetime) -> None:
    if delivery.attempts > len(PAUSES):
        delivery.state, delivery.ended_at = DeliveryState.FAILED, now
        return
    pause = PAUSES[max(delivery.attempts, 1) - 1] * (1 + random.uniform(0, JITTER))
    if outcome.retry_after_s is not None:
        asked = min(timedelta(seconds=outcome.retry_after_s), RETRY_AFTER_MAX)
        pause = max(pause, asked)
    delivery.due_at = now + pause


def endpoint_disable(*, endpoint: WebhookEndpoint, reason: str) -> None:
    """Switch an endpoint off, tell the tenant's other endpoints, and mail its administrators."""
    endpoint.is_enabled, endpoint.disabled_reason = False, reason
    endpoint.save(update_fields=["is_enabled", "disabled_reason", "updated_at"])
    deliveries_abandon(endpoint)
    webhook_emit(
        tenant=endpoint.tenant_id,
        event_type="webhook.disabled",
        data={"endpoint_id": endpoint.pk, "url": endpoint.url, "reason": reason},
    )
    readers = _administrators(endpoint.tenant_id)
    text = f"{endpoint.url}\n{reason}\n\nMend it and switch it on again:\n{settings.CONSOLE_URL}\n"
    transaction.on_commit(lambda: _mail(readers, text), robust=True)


def _administrators(tenant_id: UUID) -> list[str]:
    found = Membership.objects.filter(
        tenant_id=tenant_id, role__in=[MemberRole.OWNER, MemberRole.ADMIN], user__is_active=True
    )
    return list(found.order_by("user__email").values_list("user__email", flat=True))


def _mail(readers: Sequence[str], text: str) -> None:
    for reader in readers:
        try:
            send_mail("[WeftKit] A webhook was switched off", text, None, [reader])
        except OSError as error:
            log.warning("a notice could not be mailed", error=str(error))


def webhooks_forget(*, now: datetime | None = None) -> int:
    """Delete ended deliveries that are older than a month, and events that no one waits for."""
    old = (now or timezone.now()) - KEPT
    ended = WebhookDelivery.objects.exclude(state=DeliveryState.PENDING).filter(ended_at__lt=old)
    count = ended.delete()[0]
    return count + WebhookEvent.objects.filter(created_at__lt=old, deliveries=None).delete()[0]

"""Writes: our own events, and those of data planes that leave the intake, each once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from tenants.audit.actions import BY_NAME, Action, action_named
from tenants.audit.cadf import Facts, event_body
from tenants.audit.models import AuditClaim, AuditEvent
from tenants.core.models import uuid7

log = structlog.get_logger(__name__)

BATCH_ROWS = 1000
# A data plane removes an event from its spool once it is handed in, so a repetition comes soon.
CLAIM_RETENTION = timedelta(days=35)

TAKE = """
WITH batch AS MATERIALIZED (
    SELECT event_id FROM publish.audit_intake
    ORDER BY received_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM publish.audit_intake AS intake USING batch
    WHERE intake.event_id = batch.event_id
    RETURNING intake.event_id, intake.body, intake.received_at
), claimed AS (
    INSERT INTO audit_auditclaim (event_id, claimed_at)
    SELECT event_id, now() FROM taken ORDER BY event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
)
SELECT taken.body::text, taken.received_at, claimed.event_id IS NOT NULL
FROM taken LEFT JOIN claimed USING (event_id) ORDER BY taken.received_at, taken.event_id
"""
# Who acts where nobody else does.
SYSTEM = "system"
# Whose an instance is, our own tables know; what a data plane says of it is not asked.
OWNERS = "SELECT id, tenant_id, handle FROM instances_instance WHERE id = ANY(%s)"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of the request that an event tells of."""

    address: str = ""
    agent: str = ""
    credential_type: str = ""
    request_id: str = ""
    reason: str = ""
    request_data: Mapping[str, Any] = field(default_factory=dict)
    response_data: Mapping[str, Any] = field(default_factory=dict)


def audit_write(
    *,
    tenant_id: UUID | None,
    action: str,
    initiator: str,
    target: str,
    outcome: str = "success",
    reason_code: int = 200,
    address: str = "",
    request_id: str = "",
    asked: Asked | None = None,
) -> None:
    """Write one event of a tenant, in the transaction of the action if that succeeds.

    `initiator` is an actor's name, `target` a path below the tenant (`instances/acme-shop`).
    Without a tenant it is an event of the platform, which no tenant sees.
    """
    asked = asked or Asked(address=address, request_id=request_id)
    now = timezone.now()
    event_id = uuid7()
    facts = Facts(
        event_id=event_id,
        action=BY_NAME[action],
        at=now,
        tenant_id=tenant_id,
        initiator=initiator,
        target=target,
        outcome=outcome,
        reason_code=reason_code,
        reason=asked.reason,
        address=asked.address,
        agent=asked.agent,
        credential_type=asked.credential_type,
        instance=instance_of(target),
        region=settings.REGION,
        correlation_id=asked.request_id,
        request_data=asked.request_data,
        response_data=asked.response_data,
    )
    AuditEvent.objects.create(
        event_id=event_id,
        tenant_id=tenant_id,
        body=event_body(facts),
        occurred_at=now,
        stored_at=now,
    )


def instance_of(target: str) -> str:
    """Return the handle of the instance that a path below the tenant names, or ""."""
    first, _, rest = target.partition("/")
    return rest.partition("/")[0] if first == "instances" else ""


def audit_take_in(*, rows: int = BATCH_ROWS) -> int:
    """Take in up to `rows` events; return how many were taken. May run beside itself."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(TAKE, {"rows": rows})
        taken = cursor.fetchall()
        told = [(json.loads(body), received_at) for body, received_at, is_new in taken if is_new]
        cursor.execute(OWNERS, [_instance_ids(body for body, _ in told)])
        owners = {str(row[0]): (row[1], row[2]) for row in cursor.fetchall()}
        now = timezone.now()
        AuditEvent.objects.bulk_create(
            _event_of(body, received_at, owners, now) for body, received_at in told
        )
    return len(taken)


def audit_claims_forget() -> int:
    """Forget ids that no data plane will hand in again; return how many."""
    return AuditClaim.objects.filter(claimed_at__lt=timezone.now() - CLAIM_RETENTION).delete()[0]


def _event_of(
    body: Mapping[str, Any],
    received_at: datetime,
    owners: Mapping[str, tuple[UUID, str]],
    now: datetime,
) -> AuditEvent:
    """Return the row of what a data plane handed in; what it lacks is left empty, never refused."""
    tenant_id, handle = owners.get(str(body.get("instance_id")), (None, ""))
    at = _time_of(body.get("at"), received_at)
    event_id = uuid7()
    left_out = body.get("alike_left_out", 0)
    facts = Facts(
        event_id=event_id,
        action=_registered(str(body.get("action", "")), body.get("is_data_event") is True),
        at=at,
        tenant_id=tenant_id,
        initiator=f"client:{body['initiator']}" if body.get("initiator") else SYSTEM,
        target=str(body.get("target") or f"instances/{handle}"),
        outcome="failure" if body.get("outcome") == "failure" else "success",
        reason_code=_number(body.get("reason_code"), 200),
        address=str(body.get("address", "")),
        instance=handle,
        region=settings.REGION,
        correlation_id=str(body.get("correlation_id", "")),
        request_data=_counts(body),
        response_data={"alike_left_out": left_out} if left_out else {},
    )
    return AuditEvent(
        event_id=event_id,
        tenant_id=tenant_id,
        body=event_body(facts),
        occurred_at=at,
        stored_at=now,
    )


def _registered(name: str, is_data: bool) -> Action:
    """Return the action; one of a newer data plane is kept all the same."""
    try:
        known = action_named(name)
        return replace(known, is_data=known.is_data or is_data)
    except (KeyError, ValueError):
        log.warning("an audit action is not registered", action=name[:100])
        parts = name.split(".")
        return Action(name if len(parts) > 2 else f"weftkit.unknown.{parts[-1] or 'event'}")


def _counts(body: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: body[name] for name in ("count", "units", "why") if name in body}
    return {name: value for name, value in known.items() if isinstance(value, int | str)}


def _instance_ids(bodies: Any) -> list[UUID]:
    found = set()
    for body in bodies:
        try:
            found.add(UUID(str(body.get("instance_id"))))
        except ValueError:
            continue
    return sorted(found)


def _time_of(at: Any, received_at: datetime) -> datetime:
    """Return when it happened; a clock that is far off is not believed."""
    if not isinstance(at, int | float):
        return received_at
    try:
        told = datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        return received_at
    return told if abs(told - received_at) < CLAIM_RETENTION else received_at


def _number(value: Any, default: int) -> int:
    return value if isinstance(value, int) and 0 <= value < 1000 else default

"""Writes: our own events, and those that leave the intake and become rows, each once."""

from __future__ import annotations

from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from tenants.audit.actions import NAMES
from tenants.audit.models import AuditEvent
from tenants.core.models import uuid7

BATCH_ROWS = 1000

TAKE_IN = """
WITH batch AS MATERIALIZED (
    SELECT event_id FROM publish.audit_intake
    ORDER BY received_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM publish.audit_intake AS intake USING batch
    WHERE intake.event_id = batch.event_id
    RETURNING intake.event_id, intake.body, intake.received_at
), stored AS (
    INSERT INTO audit_auditevent (event_id, body, received_at, stored_at)
    SELECT event_id, body, received_at, now() FROM taken ORDER BY event_id
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM taken
"""


def audit_write(
    *,
    tenant_id: UUID,
    action: str,
    initiator: str,
    target: str,
    outcome: str = "success",
    reason_code: int = 200,
    address: str = "",
    request_id: str = "",
) -> None:
    """Write one event of a tenant, in the transaction of the action if that succeeds."""
    assert action in NAMES, action
    now = timezone.now()
    body = {
        "at": now.timestamp(),
        "action": action,
        "initiator": initiator,
        "address": address,
        "target": target,
        "outcome": outcome,
        "reason_code": reason_code,
        "request_id": request_id,
    }
    AuditEvent.objects.create(event_id=uuid7(), tenant_id=tenant_id, body=body, received_at=now)


def audit_take_in(*, rows: int = BATCH_ROWS) -> int:
    """Take in up to `rows` events; return how many were taken. May run beside itself."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(TAKE_IN, {"rows": rows})
        row = cursor.fetchone()
    return int(row[0]) if row else 0

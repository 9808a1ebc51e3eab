"""Writes: events leave the intake and become rows, each once."""

from __future__ import annotations

from django.db import connection, transaction

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


def audit_take_in(*, rows: int = BATCH_ROWS) -> int:
    """Take in up to `rows` events; return how many were taken. May run beside itself."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(TAKE_IN, {"rows": rows})
        row = cursor.fetchone()
    return int(row[0]) if row else 0

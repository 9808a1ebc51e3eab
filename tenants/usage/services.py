"""Writes: deltas of usage become hours, each exactly once."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection, transaction
from django.utils import timezone

from tenants.usage.models import UsageClaim

BATCH_ROWS = 2000

# A data plane drops a delta from its spool once it is handed in, so a repetition comes soon after.
CLAIM_RETENTION = timedelta(days=35)

# One statement, so one transaction: rows leave the intake, their keys are claimed, and what was
# newly claimed is added up. SKIP LOCKED lets roll-ups run side by side; the order of the last
# SELECT lets them meet at the same hour without a deadlock. A delta counts in the hour it began.
ROLL_UP = """
WITH batch AS MATERIALIZED (
    SELECT idempotency_key FROM publish.usage_intake
    ORDER BY received_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM publish.usage_intake AS intake USING batch
    WHERE intake.idempotency_key = batch.idempotency_key
    RETURNING intake.*
), claimed AS (
    INSERT INTO usage_usageclaim (idempotency_key, claimed_at)
    SELECT idempotency_key, now() FROM taken ORDER BY idempotency_key
    ON CONFLICT DO NOTHING
    RETURNING idempotency_key
), added AS (
    INSERT INTO usage_usagehour AS total (
        instance_id, hour, read_units, write_units, query_units, unlimited_units, refused_units,
        bytes_in, bytes_out, updated_at
    )
    SELECT instance_id, date_trunc('hour', started_at, 'UTC'),
        sum(read_units), sum(write_units), sum(query_units), sum(unlimited_units),
        sum(refused_units), sum(bytes_in), sum(bytes_out), now()
    FROM taken JOIN claimed USING (idempotency_key)
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (instance_id, hour) DO UPDATE SET
        read_units = total.read_units + EXCLUDED.read_units,
        write_units = total.write_units + EXCLUDED.write_units,
        query_units = total.query_units + EXCLUDED.query_units,
        unlimited_units = total.unlimited_units + EXCLUDED.unlimited_units,
        refused_units = total.refused_units + EXCLUDED.refused_units,
        bytes_in = total.bytes_in + EXCLUDED.bytes_in,
        bytes_out = total.bytes_out + EXCLUDED.bytes_out,
        updated_at = now()
)
SELECT count(*) FROM taken
"""


def usage_roll_up(*, rows: int = BATCH_ROWS) -> int:
    """Take in up to `rows` deltas; return how many were taken. May run beside itself."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(ROLL_UP, {"rows": rows})
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def usage_forget_claims() -> int:
    """Forget keys that no data plane will send again; return how many."""
    old = UsageClaim.objects.filter(claimed_at__lt=timezone.now() - CLAIM_RETENTION)
    return old.delete()[0]

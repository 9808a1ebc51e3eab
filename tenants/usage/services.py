"""Writes: deltas of usage become hours and minutes, each exactly once; gauges are sampled."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

from tenants.usage.models import UsageClaim, UsageMinute

BATCH_ROWS = 2000
MINUTES_RETENTION = timedelta(days=3)
# For how far back hours without a sample get the sample before them.
GAUGE_GAP_MAX = timedelta(days=31)

# A data plane drops a delta from its spool once it is handed in, so a repetition comes soon after.
CLAIM_RETENTION = timedelta(days=35)

# One statement, so one transaction: rows leave the intake, their keys are claimed, and what was
# newly claimed is added up: in its hour, in the plan that began within the hour, in its month if
# that is over. SKIP LOCKED lets roll-ups run side by side; the order of the last
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
), shared AS (
    INSERT INTO usage_usageshare AS total (
        instance_id, hour, plan_id, read_units, write_units, query_units, bytes_out
    )
    SELECT taken.instance_id, date_trunc('hour', taken.started_at, 'UTC'), begun.plan_id,
        sum(read_units), sum(write_units), sum(query_units), sum(bytes_out)
    FROM taken JOIN claimed USING (idempotency_key)
    CROSS JOIN LATERAL (
        SELECT term.plan_id FROM usage_planterm AS term
        WHERE term.instance_id = taken.instance_id
            AND term.started_at > date_trunc('hour', taken.started_at, 'UTC')
            AND term.started_at <= taken.started_at
            AND (term.ended_at IS NULL OR term.ended_at > term.started_at)
        ORDER BY term.started_at DESC, term.id DESC LIMIT 1
    ) AS begun
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (instance_id, hour, plan_id) DO UPDATE SET
        read_units = total.read_units + EXCLUDED.read_units,
        write_units = total.write_units + EXCLUDED.write_units,
        query_units = total.query_units + EXCLUDED.query_units,
        bytes_out = total.bytes_out + EXCLUDED.bytes_out
), late AS (
    INSERT INTO usage_latemonth (instance_id, month, seen_at)
    SELECT DISTINCT instance_id, date_trunc('month', started_at, 'UTC'), now()
    FROM taken JOIN claimed USING (idempotency_key)
    WHERE started_at < date_trunc('month', now(), 'UTC')
    ORDER BY 1, 2
    ON CONFLICT (instance_id, month) DO UPDATE SET seen_at = EXCLUDED.seen_at
), charted AS (
    INSERT INTO usage_usageminute AS total (
        instance_id, minute, read_units, write_units, query_units, unlimited_units, refused_units,
        bytes_in, bytes_out
    )
    SELECT instance_id, date_trunc('minute', started_at, 'UTC'),
        sum(read_units), sum(write_units), sum(query_units), sum(unlimited_units),
        sum(refused_units), sum(bytes_in), sum(bytes_out)
    FROM taken JOIN claimed USING (idempotency_key)
    WHERE started_at > %(charts_from)s
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (instance_id, minute) DO UPDATE SET
        read_units = total.read_units + EXCLUDED.read_units,
        write_units = total.write_units + EXCLUDED.write_units,
        query_units = total.query_units + EXCLUDED.query_units,
        unlimited_units = total.unlimited_units + EXCLUDED.unlimited_units,
        refused_units = total.refused_units + EXCLUDED.refused_units,
        bytes_in = total.bytes_in + EXCLUDED.bytes_in,
        bytes_out = total.bytes_out + EXCLUDED.bytes_out
)
SELECT count(*) FROM taken
"""

# What the hosts last said, and the backups that are kept (they outlive their instance), become the
# gauges of the running hour, unless the hour has them. Hours in
# which nobody looked (the control plane was away) get the sample before them.
SAMPLE = """
WITH kept AS (
    SELECT instance_id, sum(stored_bytes)::bigint AS backup_bytes FROM (
        SELECT instance_id, stored_bytes FROM backups_backup WHERE state = 'ready'
        UNION ALL
        SELECT segment.instance_id, file.size_bytes
        FROM backups_walsegment AS segment JOIN backups_storedfile AS file
            ON file.id = segment.file_id WHERE segment.is_stored
    ) AS pieces GROUP BY instance_id
), seen AS (
    SELECT coalesce(observed.instance_id, kept.instance_id) AS instance_id,
        coalesce(observed.storage_bytes, 0) AS storage_bytes,
        coalesce(observed.memory_bytes, 0) AS memory_bytes,
        coalesce(kept.backup_bytes, 0) AS backup_bytes
    FROM publish.observed AS observed FULL JOIN kept USING (instance_id)
), last AS (
    SELECT seen.instance_id, hours.hour, hours.storage_bytes, hours.memory_bytes,
        hours.backup_bytes
    FROM seen CROSS JOIN LATERAL (
        SELECT hour, storage_bytes, memory_bytes, backup_bytes FROM usage_usagehour AS total
        WHERE total.instance_id = seen.instance_id AND storage_bytes IS NOT NULL
            AND hour >= %(gap_from)s AND hour < %(hour)s
        ORDER BY hour DESC LIMIT 1
    ) AS hours
), missing AS (
    SELECT last.instance_id, gap.hour, last.storage_bytes, last.memory_bytes, last.backup_bytes
    FROM last CROSS JOIN LATERAL generate_series(
        last.hour + interval '1 hour', %(hour)s - interval '1 hour', interval '1 hour'
    ) AS gap (hour)
)
INSERT INTO usage_usagehour AS total (
    instance_id, hour, storage_bytes, memory_bytes, backup_bytes, updated_at,
    read_units, write_units, query_units, unlimited_units, refused_units, bytes_in, bytes_out
)
SELECT instance_id, hour, storage_bytes, memory_bytes, backup_bytes, now(), 0, 0, 0, 0, 0, 0, 0
FROM (
    SELECT * FROM missing
    UNION ALL SELECT instance_id, %(hour)s, storage_bytes, memory_bytes, backup_bytes FROM seen
) AS samples ORDER BY instance_id, hour
ON CONFLICT (instance_id, hour) DO UPDATE SET
    storage_bytes = EXCLUDED.storage_bytes, memory_bytes = EXCLUDED.memory_bytes,
    backup_bytes = EXCLUDED.backup_bytes, updated_at = now()
WHERE total.storage_bytes IS NULL
"""


def usage_roll_up(*, rows: int = BATCH_ROWS) -> int:
    """Take in up to `rows` deltas; return how many were taken. May run beside itself."""
    charts_from = timezone.now() - MINUTES_RETENTION
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(ROLL_UP, {"rows": rows, "charts_from": charts_from})
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def usage_sample(*, now: datetime | None = None) -> int:
    """Give the running hour of every instance its gauges; return how many hours got some.

    May run as often as it likes, and beside itself: the first sample of an hour stays.
    """
    hour = (now or timezone.now()).replace(minute=0, second=0, microsecond=0)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(SAMPLE, {"hour": hour, "gap_from": hour - GAUGE_GAP_MAX})
        return int(cursor.rowcount)


def usage_forget_minutes() -> int:
    """Forget minutes that no chart shows any more; return how many."""
    old = UsageMinute.objects.filter(minute__lt=timezone.now() - MINUTES_RETENTION)
    return old.delete()[0]


def usage_forget_claims() -> int:
    """Forget keys that no data plane will send again; return how many."""
    old = UsageClaim.objects.filter(claimed_at__lt=timezone.now() - CLAIM_RETENTION)
    return old.delete()[0]

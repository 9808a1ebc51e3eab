"""Reads: what a tenant's instances used in a period, by plan and meter, as whole numbers.

Capacity comes from the terms of plans, to the second. What is counted comes from hours, and within
an hour it belongs to the plan that held when it was used, or that the instance last had. What is
held (storage, memory, backups) is one sample an hour: it belongs to the plan that the instance had
for the longest part of the hour, or last had before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import connection

from tenants.billing.models import Meter
from tenants.billing.rating import Measured

CAPACITY = """
SELECT term.instance_id, plan.name,
    sum(term.blocks * extract(epoch FROM
        least(coalesce(term.ended_at, %(until)s), %(until)s) - greatest(term.started_at, %(start)s)
    ))::bigint
FROM usage_planterm AS term JOIN usage_plan AS plan ON plan.id = term.plan_id
WHERE term.tenant_id = %(tenant)s AND term.started_at < %(until)s
    AND coalesce(term.ended_at, %(until)s) > %(start)s
GROUP BY 1, 2 ORDER BY 1, 2
"""

# One row an instance and plan; the gauges twice: all of it, and what is above the included part.
HOURS = """
WITH hours AS (
    SELECT total.*, instance.plan_id AS plan_now
    FROM usage_usagehour AS total JOIN instances_instance AS instance
        ON instance.id = total.instance_id
    WHERE instance.tenant_id = %(tenant)s AND total.hour >= %(start)s AND total.hour < %(until)s
), shares AS (
    SELECT share.* FROM usage_usageshare AS share JOIN hours USING (instance_id, hour)
), counted AS (
    -- What was used in plans that began within the hour,
    SELECT instance_id, plan_id, read_units, write_units, query_units, bytes_out FROM shares
    UNION ALL
    -- and the rest, in the plan that held at its beginning, or in the first one ever.
    SELECT hours.instance_id, coalesce(held.plan_id, hours.plan_now),
        hours.read_units - coalesce(begun.read_units, 0),
        hours.write_units - coalesce(begun.write_units, 0),
        hours.query_units - coalesce(begun.query_units, 0),
        hours.bytes_out - coalesce(begun.bytes_out, 0)
    FROM hours LEFT JOIN LATERAL (
        SELECT term.plan_id FROM usage_planterm AS term
        WHERE term.instance_id = hours.instance_id
            AND (term.ended_at IS NULL OR term.ended_at > term.started_at)
        ORDER BY term.started_at <= hours.hour DESC,
            CASE WHEN term.started_at <= hours.hour THEN term.started_at END DESC,
            term.started_at, term.id DESC LIMIT 1
    ) AS held ON true
    LEFT JOIN (
        SELECT instance_id, hour, sum(read_units) AS read_units, sum(write_units) AS write_units,
            sum(query_units) AS query_units, sum(bytes_out) AS bytes_out
        FROM shares GROUP BY 1, 2
    ) AS begun ON begun.instance_id = hours.instance_id AND begun.hour = hours.hour
), lasting AS (
    SELECT hours.instance_id, coalesce(held.plan_id, hours.plan_now) AS plan_id,
        coalesce(storage_bytes, 0) AS storage, coalesce(memory_bytes, 0) AS memory,
        coalesce(backup_bytes, 0) AS backup
    FROM hours LEFT JOIN LATERAL (
        SELECT term.plan_id FROM usage_planterm AS term
        WHERE term.instance_id = hours.instance_id
            AND term.started_at < hours.hour + interval '1 hour'
        ORDER BY greatest(
            least(coalesce(term.ended_at, hours.hour + interval '1 hour'),
                  hours.hour + interval '1 hour') - greatest(term.started_at, hours.hour),
            interval '0'
        ) DESC, term.started_at DESC, term.id DESC LIMIT 1
    ) AS held ON true
), pieces AS (
    SELECT counted.instance_id, plan.name, counted.read_units, counted.write_units,
        counted.query_units, counted.bytes_out,
        0::bigint AS storage, 0::bigint AS storage_over, 0::bigint AS memory,
        0::bigint AS memory_over, 0::bigint AS backup, 0::bigint AS backup_over
    FROM counted JOIN usage_plan AS plan ON plan.id = counted.plan_id
    UNION ALL
    SELECT lasting.instance_id, plan.name, 0, 0, 0, 0,
        lasting.storage, greatest(lasting.storage - coalesce(storage.included, 0), 0),
        lasting.memory, greatest(lasting.memory - coalesce(memory.included, 0), 0),
        lasting.backup, greatest(lasting.backup - coalesce(backup.included, 0), 0)
    FROM lasting JOIN usage_plan AS plan ON plan.id = lasting.plan_id
    LEFT JOIN billing_price AS storage ON storage.price_list_id = %(price_list)s
        AND storage.plan = plan.name AND storage.meter = 'storage'
    LEFT JOIN billing_price AS memory ON memory.price_list_id = %(price_list)s
        AND memory.plan = plan.name AND memory.meter = 'memory'
    LEFT JOIN billing_price AS backup ON backup.price_list_id = %(price_list)s
        AND backup.plan = plan.name AND backup.meter = 'backup'
)
SELECT instance_id, name, sum(read_units), sum(write_units), sum(query_units), sum(bytes_out),
    sum(storage), sum(storage_over), sum(memory), sum(memory_over), sum(backup), sum(backup_over)
FROM pieces GROUP BY 1, 2 ORDER BY 1, 2
"""
COUNTERS = (Meter.READ_UNITS, Meter.WRITE_UNITS, Meter.QUERY_UNITS, Meter.BYTES_OUT)
GAUGES = (Meter.STORAGE, Meter.MEMORY, Meter.BACKUP)

# Months in which something changed since they ended.
CHANGED = """
SELECT EXISTS (
    SELECT FROM usage_usagehour AS hours
    JOIN instances_instance AS instance ON instance.id = hours.instance_id
    WHERE instance.tenant_id = %(tenant)s AND hours.hour >= %(start)s AND hours.hour < %(stop)s
        AND hours.updated_at >= %(stop)s
)
"""

# Months before a moment for which usage came in after they had ended.
LATE = """
SELECT DISTINCT late.month FROM usage_latemonth AS late
JOIN instances_instance AS instance ON instance.id = late.instance_id
WHERE instance.tenant_id = %s AND late.month < %s ORDER BY 1 DESC
"""


def measure(
    *, tenant_id: UUID, price_list_id: UUID, start: datetime, stop: datetime, until: datetime
) -> list[Measured]:
    """Return what was used in [start, min(stop, until)); `start` and `stop` are whole hours.

    `until` is the present while the period runs. Quantities are `Meter`'s.
    """
    end = min(stop, until.replace(microsecond=0))
    if end <= start:
        return []
    bounds: dict[str, UUID | datetime] = {
        "tenant": tenant_id,
        "start": start,
        "until": end,
        "price_list": price_list_id,
    }
    with connection.cursor() as cursor:
        cursor.execute(CAPACITY, bounds)
        capacity = cursor.fetchall()
        cursor.execute(HOURS, bounds)
        hours = cursor.fetchall()
    found = [
        Measured(instance_id, plan, Meter.CAPACITY.value, start, stop, seconds, seconds)
        for instance_id, plan, seconds in capacity
    ]
    for instance_id, plan, *figures in hours:
        found += [
            Measured(instance_id, plan, meter, start, stop, quantity, billable)
            for meter, quantity, billable in _by_meter(figures)
        ]
    return found


def has_changed(*, tenant_id: UUID, start: datetime, stop: datetime) -> bool:
    """Say whether usage of [start, stop) came in after its end."""
    with connection.cursor() as cursor:
        cursor.execute(CHANGED, {"tenant": tenant_id, "start": start, "stop": stop})
        row = cursor.fetchone()
    return bool(row and row[0])


def late_months(*, tenant_id: UUID, before: datetime) -> list[datetime]:
    """Return the months before `before` with usage that came after their end, newest first."""
    with connection.cursor() as cursor:
        cursor.execute(LATE, [tenant_id, before])
        return [row[0] for row in cursor.fetchall()]


def _by_meter(figures: Sequence[int]) -> list[tuple[str, int, int]]:
    """Return (meter, quantity, billable quantity) of a row of HOURS."""
    counted, held = figures[: len(COUNTERS)], figures[len(COUNTERS) :]
    pairs = zip(held[::2], held[1::2], strict=True)
    return [
        *(
            (meter.value, int(quantity), int(quantity))
            for meter, quantity in zip(COUNTERS, counted, strict=True)
        ),
        *(
            (meter.value, int(quantity), int(billable))
            for meter, (quantity, billable) in zip(GAUGES, pairs, strict=True)
        ),
    ]

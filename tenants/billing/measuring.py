"""Reads: what a tenant's instances used in a period, by plan and meter, as whole numbers.

Capacity comes from the terms of plans, to the second. The rest comes from hours; an hour belongs to
the plan that the instance had for the longest part of it, or last had before it.
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
SELECT hours.instance_id, plan.name,
    sum(hours.read_units), sum(hours.write_units), sum(hours.query_units), sum(hours.bytes_out),
    sum(coalesce(hours.storage_bytes, 0)),
    sum(greatest(coalesce(hours.storage_bytes, 0) - coalesce(storage.included, 0), 0)),
    sum(coalesce(hours.memory_bytes, 0)),
    sum(greatest(coalesce(hours.memory_bytes, 0) - coalesce(memory.included, 0), 0)),
    sum(coalesce(hours.backup_bytes, 0)),
    sum(greatest(coalesce(hours.backup_bytes, 0) - coalesce(backup.included, 0), 0))
FROM usage_usagehour AS hours
JOIN instances_instance AS instance ON instance.id = hours.instance_id
LEFT JOIN LATERAL (
    SELECT term.plan_id FROM usage_planterm AS term
    WHERE term.instance_id = hours.instance_id
        AND term.started_at < hours.hour + interval '1 hour'
    ORDER BY greatest(
        least(coalesce(term.ended_at, hours.hour + interval '1 hour'),
              hours.hour + interval '1 hour') - greatest(term.started_at, hours.hour),
        interval '0'
    ) DESC, term.started_at DESC, term.id DESC LIMIT 1
) AS held ON true
JOIN usage_plan AS plan ON plan.id = coalesce(held.plan_id, instance.plan_id)
LEFT JOIN billing_price AS storage ON storage.price_list_id = %(price_list)s
    AND storage.plan = plan.name AND storage.meter = 'storage'
LEFT JOIN billing_price AS memory ON memory.price_list_id = %(price_list)s
    AND memory.plan = plan.name AND memory.meter = 'memory'
LEFT JOIN billing_price AS backup ON backup.price_list_id = %(price_list)s
    AND backup.plan = plan.name AND backup.meter = 'backup'
WHERE instance.tenant_id = %(tenant)s AND hours.hour >= %(start)s AND hours.hour < %(until)s
GROUP BY 1, 2 ORDER BY 1, 2
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

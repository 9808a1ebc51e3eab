"""Reads: plans, what a tenant's instances used in a period, and series of it for charts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet, Sum

from tenants.core.errors import invalid_field
from tenants.usage.models import Plan, UsageHour

# A chart has so many points at most, and steps of whole minutes or hours.
POINTS_MAX = 2000
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

FIGURES = (
    "read_units",
    "write_units",
    "query_units",
    "unlimited_units",
    "refused_units",
    "bytes_in",
    "bytes_out",
)


@dataclass(frozen=True, slots=True)
class Usage:
    """The sums of one instance over [start, stop)."""

    instance: str
    start: datetime
    stop: datetime
    figures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a series, from `at` on. The gauges are the largest in the step; None: none."""

    at: datetime
    figures: Mapping[str, int]
    storage_bytes: int | None
    memory_bytes: int | None


def plan_list() -> QuerySet[Plan]:
    """Return the plans that new instances can have."""
    return Plan.objects.filter(is_current=True).order_by("name")


def plan_get(*, name: str) -> Plan:
    """Return the current version of a plan."""
    plan = plan_list().filter(name=name).first()
    if plan is None:
        known = ", ".join(plan_list().values_list("name", flat=True))
        raise invalid_field("plan", f"there is no plan {name!r}; there are: {known}")
    return plan


def usage_sum(
    *, instances: Iterable[tuple[UUID, str]], start: datetime, stop: datetime
) -> list[Usage]:
    """Return the sums of each given (id, handle), zeros where nothing was used."""
    if start >= stop:
        raise invalid_field("start", "the period ends before it begins")
    named = dict(instances)
    sums: dict[Any, Mapping[str, Any]] = {
        row["instance_id"]: row
        for row in UsageHour.objects.filter(instance_id__in=named, hour__gte=start, hour__lt=stop)
        .values("instance_id")
        .annotate(**{f"total_{figure}": Sum(figure) for figure in FIGURES})
        .order_by()
    }
    return [
        Usage(
            instance=handle,
            start=start,
            stop=stop,
            figures={f: sums.get(key, {}).get(f"total_{f}") or 0 for f in FIGURES},
        )
        for key, handle in named.items()
    ]


def usage_hour_list(*, instance_id: UUID, start: datetime, stop: datetime) -> QuerySet[UsageHour]:
    """Return the hours of one instance in [start, stop), oldest first."""
    return UsageHour.objects.filter(
        instance_id=instance_id, hour__gte=start, hour__lt=stop
    ).order_by("hour")


def usage_series(
    *, instance_id: UUID, start: datetime, stop: datetime, step: timedelta
) -> list[Point]:
    """Return the points of [start, stop) that have usage of one instance, oldest first.

    A step of whole hours reads hours, which are kept for ever; one of minutes reads minutes, which
    are kept for three days and know no gauges. Points begin at multiples of `step` since 1970.
    """
    return usage_series_sum(instance_ids=[instance_id], start=start, stop=stop, step=step)


def usage_series_sum(
    *, instance_ids: Sequence[UUID], start: datetime, stop: datetime, step: timedelta
) -> list[Point]:
    """Return the points of several instances together; see `usage_series`."""
    _refuse_wrong_steps(start, stop, step)
    is_hours = step % HOUR == timedelta()
    table, moment = ("usagehour", "hour") if is_hours else ("usageminute", "minute")
    gauges = ("storage_bytes", "memory_bytes")
    held = [f"sum({g})::bigint AS {g}" if is_hours else f"NULL::bigint AS {g}" for g in gauges]
    inner = ", ".join([*(f"sum({figure}) AS {figure}" for figure in FIGURES), *held])
    outer = ", ".join(
        [*(f"sum({figure})::bigint" for figure in FIGURES), *(f"max({gauge})" for gauge in gauges)]
    )
    # Only names from the tables above are put into the text.
    query = (
        f"SELECT date_bin(make_interval(secs => %(step)s), moment, '1970-01-01Z') AS at, {outer}"  # noqa: S608
        f" FROM (SELECT {moment} AS moment, {inner} FROM usage_{table}"
        f" WHERE instance_id = ANY(%(instances)s)"
        f" AND {moment} >= date_bin(make_interval(secs => %(step)s), %(start)s, '1970-01-01Z')"
        f" AND {moment} < %(stop)s GROUP BY {moment}) AS moments GROUP BY at ORDER BY at"
    )
    bounds: dict[str, Any] = {
        "step": step // SECOND,
        "instances": list(instance_ids),
        "start": start,
        "stop": stop,
    }
    with connection.cursor() as cursor:
        cursor.execute(query, bounds)
        rows = cursor.fetchall()
    return [
        Point(
            at=at,
            figures=dict(zip(FIGURES, counts, strict=True)),
            storage_bytes=storage_bytes,
            memory_bytes=memory_bytes,
        )
        for at, *counts, storage_bytes, memory_bytes in rows
    ]


def _refuse_wrong_steps(start: datetime, stop: datetime, step: timedelta) -> None:
    if start >= stop:
        raise invalid_field("start", "the period ends before it begins")
    if step < MINUTE or step % MINUTE:
        raise invalid_field("step", "whole minutes, at least one")
    if (stop - start) / step > POINTS_MAX:
        raise invalid_field("step", f"at most {POINTS_MAX} points at once")

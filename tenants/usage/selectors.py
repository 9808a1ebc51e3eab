"""Reads: plans, and what a tenant's instances used in a period."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet, Sum

from tenants.core.errors import invalid_field
from tenants.usage.models import Plan, UsageHour

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

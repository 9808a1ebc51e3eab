"""Reads: what the dashboard's own pages show of a tenant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from engines import registry
from tenants.accounts.actors import Actor
from tenants.billing.drafting import rated
from tenants.billing.models import Notice
from tenants.billing.months import month_after, month_start
from tenants.billing.selectors import currency_now, notice_list
from tenants.console.explorer.access import MADE_BY
from tenants.instances.cells import has_schema
from tenants.instances.models import Credential, Instance, InstanceStatus
from tenants.instances.selectors import instance_list
from tenants.operations.models import LIVE, Operation, OperationState
from tenants.operations.selectors import operation_list
from tenants.publish.selectors import Observed, observed_get
from tenants.usage.limits import limits_of
from tenants.usage.selectors import usage_series

OPERATIONS_SHOWN = 6
FAILURES_SHOWN = 3
FAILURE_AGE = timedelta(hours=24)
# What was used per second is the mean of so long: usage comes in minutes.
RATE_WINDOW = timedelta(minutes=2)
CLASSES = ("read", "write", "query")


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance of a list."""

    instance: Instance
    engine_title: str
    state: str


@dataclass(frozen=True, slots=True)
class Gauge:
    """How much of a limit is used; `limit` is None where there is none."""

    label: str
    used: float
    limit: int | None
    unit: str

    @property
    def percent(self) -> int:
        return 0 if not self.limit else min(100, round(100 * self.used / self.limit))

    @property
    def level(self) -> str:
        if self.limit is None or self.percent < 80:
            return ""
        return "bad" if self.percent >= 100 else "warn"


@dataclass(frozen=True, slots=True)
class Start:
    """How far the first run of a tenant is: instance, credential, first connection."""

    instance: Instance | None
    has_credential: bool
    is_used: bool

    @property
    def is_done(self) -> bool:
        return self.is_used


def state_of(instance: Instance) -> str:
    """Return what a badge says: its status, or what its server does while it is active."""
    sleeps = instance.status == InstanceStatus.ACTIVE and instance.server_state == "hibernated"
    return "hibernated" if sleeps else instance.status


def instances_seen(actor: Actor) -> list[Instance]:
    """Return the instances that the actor may see, by their names."""
    may_all = actor.may("instances.read")
    return [
        instance
        for instance in instance_list(tenant=actor.tenant).order_by("handle")
        if may_all
        or actor.may(
            "instances.read", actor.target(engine=instance.engine, instance=instance.handle)
        )
    ]


def instance_rows(actor: Actor) -> list[InstanceRow]:
    """Return the rows of the list of instances."""
    return [
        InstanceRow(instance, registry.load(instance.engine).title, state_of(instance))
        for instance in instances_seen(actor)
    ]


def operation_rows(actor: Actor) -> list[Operation]:
    """Return the newest operations, if the actor may follow them."""
    if not actor.may("operations.read"):
        return []
    return list(operation_list(tenant=actor.tenant).order_by("-id")[:OPERATIONS_SHOWN])


def operation_running(instance: Instance) -> Operation | None:
    """Return the operation that runs on an instance and lets no other begin."""
    rows: QuerySet[Operation] = operation_list(tenant=instance.tenant)
    return rows.filter(instance=instance, state__in=LIVE, is_exclusive=True).first()


def failed_rows(actor: Actor) -> list[Operation]:
    """Return the operations that failed of late."""
    if not actor.may("operations.read"):
        return []
    since = timezone.now() - FAILURE_AGE
    rows = operation_list(tenant=actor.tenant).filter(
        state=OperationState.FAILED, finished_at__gte=since
    )
    return list(rows.order_by("-id")[:FAILURES_SHOWN])


def notice_rows(actor: Actor) -> list[Notice]:
    """Return what holds about money and quotas."""
    if not actor.may("usage.read"):
        return []
    return list(notice_list(tenant=actor.tenant, only_open=True).order_by("-id")[:FAILURES_SHOWN])


def spend_of(actor: Actor) -> Mapping[str, Any] | None:
    """Return what the running month has cost so far, for who may see it."""
    if not actor.may("usage.read"):
        return None
    now = timezone.now()
    start = month_start(now)
    lines = rated(tenant_id=actor.tenant.pk, start=start, stop=month_after(start), until=now)
    return {"micros": sum(line.amount_micros for line in lines), "currency": currency_now()}


def start_of(instances: list[Instance]) -> Start:
    """Return how far the first run is, of the oldest instance."""
    if not instances:
        return Start(None, has_credential=False, is_used=False)
    first = min(instances, key=lambda instance: instance.created_at)
    live = Credential.objects.filter(instance__in=instances, revoked_at=None)
    live = live.exclude(created_by__startswith=MADE_BY)
    return Start(
        first,
        has_credential=live.exists(),
        is_used=live.filter(last_used_at__isnull=False).exists(),
    )


def gauges_of(instance: Instance) -> list[Gauge]:
    """Return what of its plan an instance uses: units, storage, and memory if it has a server."""
    limits = limits_of(plan=instance.plan, blocks=instance.blocks, engine=instance.engine)
    observed = observed_get(instance_id=instance.pk) or Observed(0, "", "", 0, 0)
    used = _units_per_second(instance)
    units = [
        Gauge(f"{name.capitalize()} units a second", used[name], getattr(limits, name), "units")
        for name in CLASSES
    ]
    storage = Gauge("Storage", observed.storage_bytes, limits.storage_bytes, "bytes")
    if has_schema(instance.engine):
        return [*units, storage]
    return [*units, storage, Gauge("Memory", observed.memory_bytes, limits.memory_bytes, "bytes")]


def _units_per_second(instance: Instance) -> dict[str, float]:
    now = timezone.now()
    points = usage_series(
        instance_id=instance.pk, start=now - RATE_WINDOW, stop=now, step=timedelta(minutes=1)
    )
    if not points:
        return dict.fromkeys(CLASSES, 0.0)
    last = points[-1]
    seconds = max(1.0, min(60.0, (now - last.at).total_seconds()))
    return {name: round(last.figures[f"{name}_units"] / seconds, 1) for name in CLASSES}

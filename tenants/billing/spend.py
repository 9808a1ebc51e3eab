"""Reads: the running month: what it has cost so far, on which lines, and what it will have cost.

The forecast takes capacity as it stands for the rest of the month, and expects of everything else
as much for each hour to come as for each hour so far.
"""

from __future__ import annotations

from collections.abc import Collection as Several
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.billing.accounts import account_of
from tenants.billing.drafting import lines_of, rated, rated_with_late
from tenants.billing.estimates import tariffs_now
from tenants.billing.models import InvoiceLine, Meter
from tenants.billing.months import month_after, month_start
from tenants.billing.rating import amount_of
from tenants.billing.selectors import currency_now
from tenants.usage.models import PlanTerm

SECOND = timedelta(seconds=1)
# Less of a month than this says nothing about the rest of it.
FORECAST_SECONDS_MIN = 3600


@dataclass(frozen=True, slots=True)
class Preview:
    """The invoice that the running month would have if it ended now."""

    period_start: datetime
    period_stop: datetime
    currency: str
    total_micros: int
    lines: list[InvoiceLine]


@dataclass(frozen=True, slots=True)
class Spend:
    """What one instance has cost in the running month, and what a second of it costs as it is."""

    capacity_micros: int = 0
    usage_micros: int = 0
    remaining_micros: int = 0  # of capacity, until the end of the month


@dataclass(frozen=True, slots=True)
class Month:
    """The running month of a tenant, by instance."""

    start: datetime
    stop: datetime
    now: datetime
    by_instance: dict[UUID, Spend]

    def spent(self, instances: Several[UUID] | None = None) -> int:
        """Return the micro-units spent, by all or by these instances."""
        return sum(s.capacity_micros + s.usage_micros for s in self._of(instances))

    def forecast(self, instances: Several[UUID] | None = None) -> int:
        """Return the micro-units that will have been spent at the end of the month."""
        whole = (self.stop - self.start) // SECOND
        elapsed = max((self.now - self.start) // SECOND, FORECAST_SECONDS_MIN)
        return sum(
            s.capacity_micros + s.remaining_micros + amount_of(s.usage_micros, whole, elapsed)
            for s in self._of(instances)
        )

    def _of(self, instances: Several[UUID] | None) -> list[Spend]:
        return [s for key, s in self.by_instance.items() if instances is None or key in instances]


def preview(*, tenant: Tenant, now: datetime | None = None) -> Preview:
    """Return the running month's invoice as it stands, with late usage of months before."""
    moment = now or timezone.now()
    start = month_start(moment)
    stop = month_after(start)
    found = rated_with_late(account=account_of(tenant=tenant), start=start, stop=stop, until=moment)
    lines = lines_of(tenant_id=tenant.pk, lines=found)
    total = sum(line.amount_micros for line in lines)
    return Preview(start, stop, currency_now(), total, lines)


def month_of(*, tenant: Tenant, now: datetime | None = None) -> Month:
    """Return what each instance has cost in the running month."""
    moment = now or timezone.now()
    start = month_start(moment)
    stop = month_after(start)
    sums: dict[UUID, list[int]] = {}
    for line in rated(tenant_id=tenant.pk, start=start, stop=stop, until=moment):
        entry = sums.setdefault(line.measured.instance_id, [0, 0, 0])
        entry[line.measured.meter != Meter.CAPACITY] += line.amount_micros
    seconds = (stop - moment) // SECOND
    for instance_id, micros in _remaining(tenant, seconds).items():
        sums.setdefault(instance_id, [0, 0, 0])[2] = micros
    return Month(start, stop, moment, {key: Spend(*entry) for key, entry in sums.items()})


def _remaining(tenant: Tenant, seconds: int) -> dict[UUID, int]:
    """Return what capacity costs for so many seconds more, by instance."""
    _, tariffs = tariffs_now()
    terms = PlanTerm.objects.filter(tenant_id=tenant.pk, ended_at=None)
    found = {}
    for instance_id, plan, blocks in terms.values_list("instance_id", "plan__name", "blocks"):
        tariff = tariffs.get((plan, Meter.CAPACITY.value))
        if tariff is not None:
            found[instance_id] = amount_of(seconds * blocks, tariff.micros, tariff.per)
    return found

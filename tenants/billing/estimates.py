"""Reads: what plans cost by the hour and month, and what a change would cost before it is made.

An estimate makes the change for real, in a transaction that is rolled back: what would be refused
is refused with the same words, and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from tenants.accounts.models import Tenant
from tenants.billing.models import Meter
from tenants.billing.rating import HOURS_PER_MONTH, Tariff, amount_of
from tenants.billing.selectors import price_list_at, tariffs_of
from tenants.instances.models import Instance
from tenants.instances.status import ON_ITS_WAY_OUT

Tariffs = Mapping[tuple[str, str], Tariff]
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Cost:
    """What capacity costs while it is in service."""

    hour_micros: int
    month_micros: int

    @classmethod
    def of(cls, tariffs: Tariffs, plan: str, blocks: int) -> Cost:
        """Return the cost of a plan's blocks; nothing where capacity has no price."""
        tariff = tariffs.get((plan, Meter.CAPACITY.value))
        if tariff is None:
            return cls(0, 0)
        seconds = SECONDS_PER_HOUR * blocks
        return cls(
            amount_of(seconds, tariff.micros, tariff.per),
            amount_of(seconds * HOURS_PER_MONTH, tariff.micros, tariff.per),
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """All of the tenant's capacity before and after a change; `rates` is what else has a price."""

    currency: str
    before: Cost
    after: Cost
    difference: Cost
    rates: list[Tariff]


def tariffs_now() -> tuple[str, Tariffs]:
    """Return the currency and the tariffs in force; nothing before the first price list."""
    current = price_list_at()
    return ("", {}) if current is None else (current.currency, tariffs_of(price_list=current))


def hour_micros(*, plan: str, blocks: int) -> int:
    """Return what a plan's blocks cost in an hour of service."""
    return Cost.of(tariffs_now()[1], plan, blocks).hour_micros


def estimate_change(*, tenant: Tenant, change: Callable[[], object]) -> Estimate:
    """Make `change`, see what it costs, and undo it. Raises what `change` raises."""
    currency, tariffs = tariffs_now()
    with transaction.atomic():
        before = _capacity(tenant)
        change()
        after = _capacity(tenant)
        transaction.set_rollback(True)
    plans = {after[key][0] for key in after if after[key] != before.get(key)}
    sums = [_sum(tariffs, capacity) for capacity in (before, after)]
    return Estimate(
        currency=currency,
        before=sums[0],
        after=sums[1],
        difference=Cost(
            sums[1].hour_micros - sums[0].hour_micros, sums[1].month_micros - sums[0].month_micros
        ),
        rates=[tariff for (plan, _), tariff in sorted(tariffs.items()) if plan in plans],
    )


def _capacity(tenant: Tenant) -> dict[UUID, tuple[str, int]]:
    """Return instance -> (plan, blocks) of what costs, or will once it is in service."""
    living = Instance.objects.filter(tenant=tenant).exclude(status__in=ON_ITS_WAY_OUT)
    return {
        instance_id: (plan, blocks)
        for instance_id, plan, blocks in living.values_list("pk", "plan__name", "blocks")
    }


def _sum(tariffs: Tariffs, capacity: Mapping[UUID, tuple[str, int]]) -> Cost:
    costs = [Cost.of(tariffs, plan, blocks) for plan, blocks in capacity.values()]
    return Cost(sum(c.hour_micros for c in costs), sum(c.month_micros for c in costs))

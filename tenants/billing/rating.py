"""Pure: from quantities and prices to amounts. Integers only; one rounding, here, for each line.

Half a micro-unit is rounded up. What is billed later for a quantity of which a part was billed
already is the difference of two such amounts, so that parts always add up to the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

# Prices by the month are for comparison only: twelve of these are a year.
HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True)
class Tariff:
    """`micros` for `per` of a meter; see `models.Price`."""

    plan: str
    meter: str
    unit: str
    micros: int
    per: int
    included: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """How much of a meter an instance used in a plan in [start, stop)."""

    instance_id: UUID
    plan: str
    meter: str
    start: datetime
    stop: datetime
    quantity: int
    billable_quantity: int

    @property
    def key(self) -> Key:
        """What this adds to: a later look at the same key sees the same or more."""
        return Key(self.instance_id, self.plan, self.meter, self.start)


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that is counted."""

    instance_id: UUID
    plan: str
    meter: str
    start: datetime


@dataclass(frozen=True, slots=True)
class Billed:
    """What final invoices have of a key."""

    quantity: int = 0
    billable_quantity: int = 0
    amount_micros: int = 0


@dataclass(frozen=True, slots=True)
class Rated:
    """A measured quantity with its price and amount: one line."""

    measured: Measured
    tariff: Tariff
    price_list: int
    amount_micros: int
    is_late: bool = False


def amount_of(quantity: int, micros: int, per: int) -> int:
    """Return the amount in micro-units for `quantity` at `micros` for each `per`."""
    return (2 * quantity * micros + per) // (2 * per)


def rate(
    measured: Iterable[Measured], tariffs: Mapping[tuple[str, str], Tariff], price_list: int
) -> list[Rated]:
    """Rate what has a price in its plan; the rest is not on an invoice."""
    return [
        Rated(
            each,
            tariff,
            price_list,
            amount_of(each.billable_quantity, tariff.micros, tariff.per),
        )
        for each in measured
        if each.quantity > 0 and (tariff := tariffs.get((each.plan, each.meter))) is not None
    ]


def late(whole: Iterable[Rated], billed: Mapping[Key, Billed]) -> list[Rated]:
    """Return what of `whole` is not billed yet, as lines of a later invoice."""
    found = []
    for each in whole:
        known = billed.get(each.measured.key, Billed())
        quantity = each.measured.quantity - known.quantity
        if quantity <= 0:
            continue
        rest = Measured(
            instance_id=each.measured.instance_id,
            plan=each.measured.plan,
            meter=each.measured.meter,
            start=each.measured.start,
            stop=each.measured.stop,
            quantity=quantity,
            billable_quantity=each.measured.billable_quantity - known.billable_quantity,
        )
        amount = each.amount_micros - known.amount_micros
        found.append(Rated(rest, each.tariff, each.price_list, amount, is_late=True))
    return found

"""Rating is exact: parts add up to the whole, more never costs less, and no float is anywhere."""

from __future__ import annotations

import ast
import uuid
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.billing.money import decimal_text, micros_of, quantity_text, unit_price_text
from tenants.billing.rating import Billed, Measured, Tariff, amount_of, late, rate

QUANTITIES = st.integers(0, 10**24)
MICROS = st.integers(0, 10**12)
PERS = st.integers(1, 2**41)
START, STOP = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


@given(QUANTITIES, MICROS, PERS)
def test_an_amount_is_the_nearest_micro_unit_and_half_goes_up(
    quantity: int, micros: int, per: int
) -> None:
    exact = Fraction(quantity * micros, per)
    difference = amount_of(quantity, micros, per) - exact
    assert Fraction(-1, 2) < difference <= Fraction(1, 2)


@given(QUANTITIES, QUANTITIES, MICROS, PERS)
def test_more_never_costs_less(first: int, second: int, micros: int, per: int) -> None:
    less, more = sorted((first, second))
    assert amount_of(less, micros, per) <= amount_of(more, micros, per)


def measured(quantity: int) -> Measured:
    return Measured(uuid.UUID(int=1), "p", "read_units", START, STOP, quantity, quantity)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=20), MICROS, PERS)
def test_however_late_usage_comes_in_its_lines_add_up_to_the_whole(
    deltas: list[int], micros: int, per: int
) -> None:
    tariffs = {("p", "read_units"): Tariff("p", "read_units", "unit", micros, per)}
    billed: dict = {}
    quantity = amount = 0
    for delta in deltas:
        quantity += delta
        (line,) = late(rate([measured(quantity)], tariffs, 1), billed)
        assert line.is_late
        assert line.measured.quantity == delta
        assert line.amount_micros >= 0
        amount += line.amount_micros
        billed = {line.measured.key: Billed(quantity, quantity, amount)}
        assert late(rate([measured(quantity)], tariffs, 1), billed) == []
    assert amount == amount_of(sum(deltas), micros, per)


def test_what_has_no_price_in_its_plan_is_not_billed() -> None:
    tariffs = {("p", "write_units"): Tariff("p", "write_units", "unit", 1, 1)}
    assert rate([measured(5)], tariffs, 1) == []
    assert rate([measured(0)], {("p", "read_units"): Tariff("p", "read_units", "u", 1, 1)}, 1) == []


@given(st.integers(-(10**15), 10**15))
def test_money_as_text_is_exact_and_reads_back(micros: int) -> None:
    text = decimal_text(micros)
    assert Fraction(text) == Fraction(micros, 10**6)
    if micros >= 0 and micros < 10**18:
        assert micros_of(text) == micros


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0.00"), (4_999, "0.00"), (5_000, "0.01"), (-5_000, "-0.01"), (-1, "0.00")],
)
def test_cents_are_rounded_half_up(micros: int, text: str) -> None:
    assert decimal_text(micros, 2) == text


@pytest.mark.parametrize("text", ["", "1.", ".5", "1e3", "-1", "1.0000001", "1,5", "٣"])
def test_what_is_no_amount_is_none(text: str) -> None:
    assert micros_of(text) is None


def test_quantities_and_unit_prices_as_text() -> None:
    assert quantity_text(5400, 3600) == "1.5"
    assert quantity_text(0, 3600) == "0"
    assert unit_price_text(1_370, 2**30, 2**30) == "0.001370"


def test_no_float_holds_money() -> None:
    folder = Path(__file__).resolve().parents[2] / "tenants" / "billing"
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_float = isinstance(node, ast.Constant) and isinstance(node.value, float)
            divides = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
            names = isinstance(node, ast.Name) and node.id in ("float", "round")
            if is_float or divides or names:
                found.append(f"{path.name}:{node.lineno}")
    assert not found

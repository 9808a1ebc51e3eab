"""Sizes and units against figures of the Developer Guide and of dynalite's tests."""

from __future__ import annotations

import base64
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.keyvalue.capacity import (
    digits_of,
    item_size,
    number_size,
    page_size,
    read_units,
    value_size,
    write_units,
)


@pytest.mark.parametrize(
    ("text", "digits", "exponent"),
    [
        ("0", "", 0),
        ("1", "1", 0),
        ("12.5", "125", 1),
        ("100", "1", 2),
        ("0.001", "1", -3),
        ("-0.012", "12", -2),
        ("-40", "4", 1),
    ],
)
def test_digits_and_exponent_of_a_number(text: str, digits: str, exponent: int) -> None:
    assert digits_of(text) == (digits, exponent)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=20).filter(bool))
def test_digits_and_exponent_make_the_number_again(number: Decimal) -> None:
    digits, exponent = digits_of(f"{number:f}".rstrip("0").rstrip(".") or "0")
    assert abs(number) == Decimal(int(digits)).scaleb(exponent - len(digits) + 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 1),
        ("1", 2),
        ("10", 2),
        ("100", 2),
        ("12", 2),
        ("123", 3),
        ("-1", 3),
        ("-12", 3),
        ("1.2", 3),
        ("0.01", 2),
        ("12345678901234567890123456789012345678", 20),
        ("1234567890123456789012345678901234567.8", 21),
    ],
)
def test_size_of_a_number(text: str, size: int) -> None:
    assert number_size(text) == size


@given(st.binary(max_size=40))
def test_size_of_binary_is_that_of_its_bytes(data: bytes) -> None:
    assert value_size({"B": base64.b64encode(data).decode()}) == len(data)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": "abc"}, 3),
        ({"S": "\u20ac"}, 3),
        ({"BOOL": False}, 1),
        ({"NULL": True}, 1),
        ({"SS": ["a", "bc"]}, 3),
        ({"NS": ["1", "123"]}, 5),
        ({"L": [{"S": "ab"}, {"N": "1"}]}, 3 + 1 + 2 + 1 + 2),
        ({"M": {"key": {"S": "ab"}}}, 3 + 1 + 3 + 2),
    ],
)
def test_size_of_a_value(value: dict[str, object], size: int) -> None:
    assert value_size(value) == size


def test_size_of_an_item_counts_names_in_utf8() -> None:
    assert item_size({"a": {"S": "x"}, "\u20ac": {"N": "12"}}) == 2 + 3 + 2


def test_what_an_item_counts_towards_a_page() -> None:
    # 2, one block header of 18 with the sort key, and (1 + 3 + 1) for the other attribute.
    assert page_size({"a": {"S": "abc"}, "b": {"S": "xy"}}, "b") == 2 + 5 + 18 + 2


@pytest.mark.parametrize(
    ("size", "consistent", "transactional", "units"),
    [(0, False, False, 0.5), (4096, True, False, 1), (4097, True, False, 2), (1, False, True, 2)],
)
def test_read_units(size: int, consistent: bool, transactional: bool, units: float) -> None:
    assert read_units(size, consistent=consistent, transactional=transactional) == units


@pytest.mark.parametrize(
    ("size", "transactional", "units"),
    [(0, False, 1), (1024, False, 1), (1025, False, 2), (1025, True, 4)],
)
def test_write_units(size: int, transactional: bool, units: float) -> None:
    assert write_units(size, transactional=transactional) == units

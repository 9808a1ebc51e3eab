"""Attribute values: what is refused and in which words, and that the canonical form is one."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.attribute_values import (
    LEVELS_MAX,
    MANY_TYPES,
    NO_TYPE,
    canonical,
    canonical_item,
    canonical_number,
)
from tests.engines.keyvalue.attribute_values import attribute_values, number_texts

EXACT = Context(prec=40, Emin=-1000, Emax=1000)
INVALID = "One or more parameter values were invalid: "
OVERFLOW = (
    "Number overflow. Attempting to store a number with magnitude larger than supported range"
)
UNDERFLOW = (
    "Number underflow. Attempting to store a number with magnitude smaller than supported range"
)
DIGITS = "Attempting to store more than 38 significant digits in a Number"
BINARIES_TWICE = "Input collection [AA==, AA==]of type BS contains duplicates."
NO_NUMBER = "The parameter cannot be converted to a numeric value"


def refusal(value: dict[str, Any]) -> str:
    """Return the words with which a value is refused."""
    with pytest.raises(DynamoError) as caught:
        canonical(value)
    assert caught.value.code == "ValidationException"
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"), ("-0", "0"), ("000", "0"), ("0e999999999999", "0"), ("0.000", "0"), ("+1", "1"),
        ("007", "7"), ("1.", "1"), (".5", "0.5"), ("-.50", "-0.5"), ("100", "100"), ("1e2", "100"),
        ("1E+2", "100"), ("12.50e-1", "1.25"), ("1e-3", "0.001"), ("123e-2", "1.23"),
        ("1" + "0" * 125, "1" + "0" * 125), ("9.9e125", "99" + "0" * 124),
        ("1e-130", "0." + "0" * 129 + "1"), ("0" * 500 + "12" + "0" * 20, "12" + "0" * 20),
        ("0." + "0" * 200 + "1e201", "1"), ("1" * 38, "1" * 38),
    ],
)  # fmt: skip
def test_a_number_has_one_text(text: str, expected: str) -> None:
    assert canonical_number(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", NO_NUMBER), (".", f"{NO_NUMBER}: ."), ("b", f"{NO_NUMBER}: b"),
        (" 1", f"{NO_NUMBER}:  1"), ("1e", f"{NO_NUMBER}: 1e"), ("0x10", f"{NO_NUMBER}: 0x10"),
        ("NaN", f"{NO_NUMBER}: NaN"), ("\u0661", f"{NO_NUMBER}: \u0661"),
        ("1" * 39, DIGITS), ("-1." + "1" * 38, DIGITS), ("1e126", OVERFLOW), ("-1e126", OVERFLOW),
        ("1" + "0" * 126, OVERFLOW), ("1e-131", UNDERFLOW), ("-1e-131", UNDERFLOW),
        ("1e99999999999999999999", OVERFLOW), ("1e-99999999999999999999", UNDERFLOW),
    ],
)  # fmt: skip
def test_a_text_that_is_no_number_is_refused(text: str, message: str) -> None:
    assert refusal({"N": text}) == message


def test_a_refused_text_is_repeated_only_in_part() -> None:
    assert len(refusal({"N": "x" * 1_000_000})) < 2000


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, NO_TYPE),
        ({"M": {"a": {}}}, NO_TYPE),
        ({"L": [{}]}, NO_TYPE),
        ({"S": "a", "BOOL": True}, MANY_TYPES),
        ({"S": "a", "N": ""}, NO_NUMBER),
        ({"NULL": False}, INVALID + "Null attribute value types must have the value of true"),
        ({"SS": []}, INVALID + "An string set  may not be empty"),
        ({"NS": []}, INVALID + "An number set  may not be empty"),
        ({"BS": []}, INVALID + "Binary sets should not be empty"),
        ({"SS": ["x", "y", "x"]}, INVALID + "Input collection [x, y, x] contains duplicates."),
        ({"BS": ["AA==", "AA=="]}, INVALID + BINARIES_TWICE),
        ({"NS": ["1", "1.0"]}, "Input collection contains duplicates"),
        ({"SS": [None]}, INVALID + "An string set may not have a null string as a member"),
        ({"NS": [None]}, NO_NUMBER),
        ({"BS": [None]}, INVALID + "Binary sets may not contain null values"),
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused_in_dynamodbs_words(
    value: dict[str, Any], message: str
) -> None:
    assert refusal(value) == message
    assert refusal({"L": [{"S": ""}, value]}) == message
    assert refusal({"M": {"a": value}}) == message


@pytest.mark.parametrize("kind", ["L", "M"])
def test_32_levels_are_stored_and_33_are_not(kind: str) -> None:
    value: dict[str, Any] = {"N": "01"}
    for _ in range(LEVELS_MAX - 1):
        value = {kind: [value] if kind == "L" else {"a": value}}
    assert "'N': '1'" in str(canonical(value))
    assert refusal({"L": [value]}).startswith("Nesting Levels have exceeded supported limits")


def test_an_item_is_canonical_when_each_value_is() -> None:
    item = {"a": {"N": "1.0"}, "b": {"L": [{"NS": ["02", "1e1"]}]}, "c": {"S": ""}}
    assert canonical_item(item) == {
        "a": {"N": "1"},
        "b": {"L": [{"NS": ["2", "10"]}]},
        "c": {"S": ""},
    }


@given(number_texts)
def test_the_canonical_text_is_the_same_number_and_canonical(text: str) -> None:
    first = canonical_number(text)
    assert EXACT.create_decimal(first) == EXACT.create_decimal(text)
    assert canonical_number(first) == first
    assert "e" not in first.lower()
    assert Decimal(first) or first == "0"


@given(attribute_values())
def test_canonicalisation_is_idempotent(value: dict[str, Any]) -> None:
    once = canonical(value)
    assert canonical(once) == once


@given(st.text(max_size=60))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        found = canonical_number(text)
    except DynamoError:
        return
    assert canonical_number(found) == found

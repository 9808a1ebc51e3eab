"""Any tree survives being written and read; any text is read or refused, in little time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.expressions import read
from engines.keyvalue.parse.expressions import reading as reading_module
from engines.keyvalue.parse.expressions.trees import Action, Path, Test
from tests.engines.keyvalue.expression_texts import (
    NAMES,
    VALUES,
    condition_texts,
    projection_texts,
    update_texts,
)
from tests.engines.keyvalue.reading import ALL, reading


def used(given: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the placeholders that stand in a text."""
    for mark in "()[],.=<>+-":
        text = text.replace(mark, " ")
    words = set(text.split())
    return {name: value for name, value in given.items() if name in words}


@given(condition_texts())
def test_a_condition_written_is_read_as_it_was(drawn: tuple[Test, str]) -> None:
    test, text = drawn
    condition = reading("Condition", text, used(VALUES, text), used(NAMES, text)).condition
    assert condition is not None
    assert condition.test == test


@given(update_texts())
def test_an_update_written_is_read_as_it_was(drawn: tuple[tuple[Action, ...], str]) -> None:
    actions, text = drawn
    update = reading("Update", text, used(VALUES, text), used(NAMES, text)).update
    assert update is not None
    assert update.actions == actions


@given(projection_texts())
def test_a_projection_written_is_read_as_it_was(drawn: tuple[tuple[Path, ...], str]) -> None:
    paths, text = drawn
    projection = reading("Projection", text, names=used(NAMES, text)).projection
    assert projection is not None
    assert projection.paths == paths


def read_or_refuse(text: str) -> None:
    """Read a text as everything that it might be; only DynamoDB's refusals may come of it."""
    fields: dict[str, Any] = {
        "ExpressionAttributeNames": NAMES,
        "ExpressionAttributeValues": VALUES,
    }
    for label in ALL:
        try:
            read(fields | {label: text}, ALL)
        except DynamoError as error:
            assert error.code == "ValidationException"
            assert error.message


WORDS = [
    *"()[],.=<>+-#:\"'/*",
    *("<=", ">=", "<>", "and", "OR", "not", "BETWEEN", "in", "set", "REMOVE", "add", "DELETE"),
    *("a", "b", "name", "0", "1", "99999999999", "#x", "#dot", "#absent", ":s0", ":n1", ":absent"),
    *("size", "contains", "begins_with", "attribute_type", "attribute_exists", "if_not_exists"),
    *("list_append", "nonsense", "\u00fc", "\u2028", "\x00"),
]


@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))
def test_words_in_any_order(text: str) -> None:
    read_or_refuse(text)


@given(st.text(max_size=60))
@example("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"))
def test_any_text(text: str) -> None:
    read_or_refuse(text)


@given(
    st.one_of(condition_texts(), update_texts(), projection_texts()),
    st.integers(0, 200),
    st.integers(0, 8),
    st.sampled_from(WORDS),
)
def test_a_text_with_a_piece_replaced(
    drawn: tuple[Any, str], start: int, length: int, word: str
) -> None:
    text = drawn[1]
    place = start % (len(text) + 1)
    read_or_refuse(text[:place] + word + text[place + length :])


BOMBS = [
    "(" * 4096,
    ")" * 4096,
    "(" * 2047 + "a" + ")" * 2047,
    "(" * 1000 + "a = b" + ")" * 1000,
    "NOT " * 1023,
    "NOT " * 1000 + "a = b",
    "NOT(" * 600 + "a = b" + ")" * 600,
    "(a = b AND " * 300 + "a = b" + ")" * 300,
    "size(" * 600 + "a" + ")" * 600 + " = b",
    "f(" * 1500,
    "f(" * 1000 + "a" + ")" * 1000,
    "set a = " + "f(" * 1200 + "a" + ")" * 1200,
    "set a = " + "if_not_exists(a," * 240 + "b" + ")" * 255,
    "set a = " + "(" * 2000 + "b" + ")" * 2000,
    "a" + ".a" * 2000,
    "a" + "[0]" * 1300,
    "a[" + "9" * 4000 + "] = b",
    "a[" + "0" * 4000 + "1]",
    "remove " + ",".join(f"a.b{place}" for place in range(500)),
    "remove " + ",".join(f"a[{place}]" for place in range(500)),
    ",".join(f"a{place}" for place in range(900)),
    ",".join("a" for _ in range(2000)),
    "a IN (" + ",".join("b" for _ in range(2000)) + ")",
    " AND ".join(["a=b"] * 500),
    " ".join(["a"] * 2000),
    "a" * 4096,
    "#" * 4096,
    "#x" * 2048,
    ":" * 4096,
    "\u00fc" * 4096,
    "a" * 10_000_000,
    "#x" * 5_000_000,
]


@pytest.mark.parametrize("text", BOMBS, ids=lambda text: text[:12])
def test_deep_and_large_texts_cost_little(text: str) -> None:
    begun = time.process_time()
    read_or_refuse(text)
    # It takes 50 ms at most for all five readings; a square of the length would take seconds.
    assert time.process_time() - begun < 1


def test_300_nested_functions_or_parentheses_are_read_within_pythons_stack() -> None:
    nested = "set a = " + "if_not_exists(a," * 240 + "b" + ")" * 240
    assert reading("Update", nested).update
    nested = "(a=b OR" * 149 + " a=b" + ")" * 149
    condition = reading("Condition", nested).condition
    assert condition
    nested = "NOT (" * 299 + "a=b" + ")" * 299
    assert reading("Condition", nested).condition


def test_patterns_of_many_texts_are_not_kept_for_ever() -> None:
    for place in range(2 * reading_module.KEPT_COUNT):
        reading("Projection", f"a{place}")
    info = reading_module.kept_pattern.cache_info()
    assert info.currsize == info.maxsize == reading_module.KEPT_COUNT
    long = "a" * (reading_module.KEPT_LENGTH_MAX + 1)
    before = info.misses
    for _ in range(3):
        reading("Projection", long)
        reading("Projection", "#x", names={"#x": long})
    assert reading_module.kept_pattern.cache_info().misses == before

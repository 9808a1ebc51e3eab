"""Updates over items: values of before, lists that grow and close up, refusals, what changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.evaluate.updates import UpdateResult, apply, total
from engines.keyvalue.values import Item
from tests.engines.keyvalue.reading import reading

ITEM: Item = {
    "k": {"S": "key"},
    "s": {"S": "text"},
    "n": {"N": "10"},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2"]},
    "bs": {"BS": ["AQ=="]},
    "l": {"L": [{"N": "0"}, {"N": "1"}, {"N": "2"}, {"N": "3"}]},
    "m": {"M": {"x": {"N": "1"}, "y": {"L": [{"S": "in"}, {"M": {"z": {"SS": ["p"]}}}]}}},
}
VALUES: dict[str, dict[str, Any]] = {
    ":s": {"S": "new"},
    ":one": {"N": "1"},
    ":half": {"N": "0.5"},
    ":ss": {"SS": ["b", "c"]},
    ":a": {"SS": ["a"]},
    ":ab": {"SS": ["b", "a", "x"]},
    ":p": {"SS": ["p"]},
    ":ns": {"NS": ["2", "3"]},
    ":bs": {"BS": ["Ag=="]},
    ":l": {"L": [{"S": "x"}, {"S": "y"}]},
    ":m": {"M": {}},
}


def updated(text: str, item: Item = ITEM) -> UpdateResult:
    words = text
    for mark in "(),+-=":
        words = words.replace(mark, " ")
    used = {name: value for name, value in VALUES.items() if name in words.split()}
    update = reading("Update", text, used).update
    assert update is not None
    before = copy.deepcopy(item), copy.deepcopy(used)
    result = apply(update, item)
    assert (item, used) == before, "an update must change neither the item nor the values"
    return result


def numbers(*texts: str) -> dict[str, Any]:
    return {"L": [{"N": text} for text in texts]}


CHANGES: list[tuple[str, str, Any]] = [
    # Text, attribute, its new value; None: it is gone.
    ("SET a = :s", "a", {"S": "new"}),
    ("SET s = n", "s", {"N": "10"}),
    ("SET a = n + :one", "a", {"N": "11"}),
    ("SET a = :one - n", "a", {"N": "-9"}),
    ("SET n = n + :half", "n", {"N": "10.5"}),
    ("SET n = n - n", "n", {"N": "0"}),
    ("SET a = (l[1]) + (m.x)", "a", {"N": "2"}),
    ("SET a = if_not_exists(a, :one) + :one", "a", {"N": "2"}),
    ("SET a = if_not_exists(n, :one)", "a", {"N": "10"}),
    ("SET a = if_not_exists(b, if_not_exists(c, :s))", "a", {"S": "new"}),
    ("SET a = if_not_exists(m.y[5], m.y[0])", "a", {"S": "in"}),
    ("SET a = list_append(:l, :l)", "a", {"L": [{"S": x} for x in "xyxy"]}),
    ("SET l = list_append(l, :l)", "l", {"L": [*ITEM["l"]["L"], {"S": "x"}, {"S": "y"}]}),
    ("SET a = list_append(if_not_exists(a, :l), m.y)", "a", {"L": [*"xy"]}),
    ("SET l[0] = :one", "l", numbers("1", "1", "2", "3")),
    ("SET l[9] = n, l[7] = :one", "l", numbers("0", "1", "2", "3", "1", "10")),
    ("REMOVE l[0], l[2]", "l", numbers("1", "3")),
    ("REMOVE l[0] SET l[1] = l[0], l[8] = l[3]", "l", numbers("0", "2", "3", "3")),
    ("REMOVE l[0], l[1], l[2], l[3]", "l", {"L": []}),
    ("REMOVE l[7]", "l", ITEM["l"]),
    ("REMOVE s", "s", None),
    ("REMOVE absent", "absent", None),
    ("REMOVE m.x", "m", {"M": {"y": ITEM["m"]["M"]["y"]}}),
    ("REMOVE m.absent", "m", ITEM["m"]),
    ("SET m.added = :s REMOVE m.x, m.y", "m", {"M": {"added": {"S": "new"}}}),
    ("SET m.y[1].q = :m REMOVE m.x, m.y[0], m.y[1].z", "m", {"M": {"y": {"L": ["q"]}}}),
    ("ADD n :one", "n", {"N": "11"}),
    ("ADD a :one", "a", {"N": "1"}),
    ("ADD m.x :half", "m", {"M": {"x": {"N": "1.5"}, "y": ITEM["m"]["M"]["y"]}}),
    ("ADD ss :ss", "ss", {"SS": ["a", "b", "c"]}),
    ("ADD ns :ns", "ns", {"NS": ["1", "2", "3"]}),
    ("ADD bs :bs", "bs", {"BS": ["AQ==", "Ag=="]}),
    ("ADD a :ss", "a", {"SS": ["b", "c"]}),
    ("ADD l[9] :ss", "l", {"L": [*ITEM["l"]["L"], {"SS": ["b", "c"]}]}),
    ("DELETE ss :ss", "ss", {"SS": ["a"]}),
    ("DELETE ss :ab", "ss", None),
    ("DELETE absent :ab", "absent", None),
    ("DELETE ns :ns", "ns", {"NS": ["1"]}),
    ("DELETE bs :bs", "bs", {"BS": ["AQ=="]}),
    ("DELETE l[9] :ab", "l", ITEM["l"]),
]


@pytest.mark.parametrize(("text", "name", "value"), CHANGES)
def test_what_becomes_of_an_attribute(text: str, name: str, value: Any) -> None:
    if text.startswith("SET a = list_append(if_not"):
        value = {"L": [{"S": "x"}, {"S": "y"}, *ITEM["m"]["M"]["y"]["L"]]}
    if "m.y[1].q" in text:
        value = {"M": {"y": {"L": [{"M": {"q": {"M": {}}}}]}}}
    new = updated(text).item
    assert new.get(name) == value
    others = {k: v for k, v in ITEM.items() if k != name}
    assert {k: v for k, v in new.items() if k != name} == others


def test_removing_the_last_element_of_a_nested_set_removes_the_set() -> None:
    assert updated("DELETE m.y[1].z :p").item["m"]["M"]["y"] == {"L": [{"S": "in"}, {"M": {}}]}


def test_the_sections_may_stand_in_any_order_and_do_the_same() -> None:
    parts = ["SET l[0] = :one", "REMOVE l[1]", "ADD n :half", "DELETE ss :a"]
    forward, backward = updated(" ".join(parts)), updated(" ".join(reversed(parts)))
    assert forward.item == backward.item
    assert forward.item["l"] == numbers("1", "2", "3")


def test_all_values_are_those_before_the_update() -> None:
    assert updated("SET s = n, n = s").item == ITEM | {"s": ITEM["n"], "n": ITEM["s"]}


def test_elements_beyond_the_end_follow_it_and_what_changed_is_returned_by_its_paths() -> None:
    item: Item = {
        "a": {"S": "x"},
        "b": {"M": {"a": {"N": "1"}, "b": {"N": "2"}, "c": {"N": "3"}}},
        "c": {"L": [{"N": "1"}, {"N": "3"}]},
    }
    update = reading(
        "Update",
        "set b.c=((c[1])+(b.a)),b.a = a,c[1] = a, c[4] = b.a - b.b, c[2] = b.c "
        "add c[8] :b, c[6] :a",
        {":a": {"N": "2"}, ":b": {"SS": ["a"]}},
    ).update
    assert update is not None
    result = apply(update, item)
    assert result.item == {
        "a": {"S": "x"},
        "b": {"M": {"a": {"S": "x"}, "b": {"N": "2"}, "c": {"N": "4"}}},
        "c": {"L": [{"N": "1"}, {"S": "x"}, {"N": "3"}, {"N": "-1"}, {"N": "2"}, {"SS": ["a"]}]},
    }
    assert result.changed_part(result.item) == {
        "b": {"M": {"a": {"S": "x"}, "c": {"N": "4"}}},
        "c": {"L": [{"S": "x"}, {"N": "3"}, {"N": "2"}]},
    }
    assert result.changed_part(item) == {
        "b": {"M": {"a": {"N": "1"}, "c": {"N": "3"}}},
        "c": {"L": [{"N": "3"}]},
    }


INVALID_PATH = "The document path provided in the update expression is invalid for update"
ABSENT = "The provided expression refers to an attribute that does not exist in the item"
WRONG_TYPE = "An operand in the update expression has an incorrect data type"
REFUSALS = [
    *(
        (text, INVALID_PATH)
        for text in [
            "SET s.a = :s",
            "SET s[1] = :s",
            "SET y.a = :s",
            "SET y[1] = :s",
            "SET m[1] = :s",
            "SET l.a = :s",
            "SET l[9].a = :s",
            "SET m.a.b = :s",
            "REMOVE s.a",
            "REMOVE s[1]",
            "REMOVE y.a",
            "REMOVE y[1]",
            "REMOVE m[1]",
            "REMOVE l.a",
            "DELETE s.a :a",
            "DELETE y[1] :a",
            "DELETE m[1] :a",
            "DELETE l.a :a",
            "ADD s.a :a",
            "ADD y[1] :a",
            "ADD m[1] :a",
            "ADD l.a :a",
        ]
    ),
    *(
        (text, ABSENT)
        for text in [
            "SET a = b",
            "SET a = b + :one",
            "SET a = :one - b",
            "SET a = list_append(b, c)",
            "SET a = list_append(l, c)",
            "SET a = l[4]",
            "SET a = m.x.y",
            "SET a = if_not_exists(b, c)",
        ]
    ),
    *(
        (text, WRONG_TYPE)
        for text in [
            "SET a = k + :one",
            "SET a = :one - m",
            "SET a = list_append(ns, if_not_exists(f, :l))",
            "SET a = list_append(:l, s)",
            "DELETE ns :a",
            "DELETE m :ns",
            "DELETE m.y[1].z :ns",
            "DELETE n :ns",
            "ADD m :ns",
            "ADD ns :one",
            "ADD n :ns",
            "ADD s :one",
            "ADD ss :ns",
        ]
    ),
    # Operands are looked at before paths.
    ("SET y.a = b", ABSENT),
]


@pytest.mark.parametrize(("text", "message"), REFUSALS)
def test_updates_that_do_not_fit_the_item(text: str, message: str) -> None:
    with pytest.raises(DynamoError) as caught:
        updated(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("one", "op", "two", "result"),
    [
        ("1", "+", "2", "3"),
        ("1", "-", "2", "-1"),
        ("0.1", "+", "0.2", "0.3"),
        ("1.5", "-", "1.5", "0"),
        ("-0.5", "+", "0.5", "0"),
        ("1", "-", "0.999", "0.001"),
        ("1" + "0" * 125, "-", "1" + "0" * 125, "0"),
        ("9" * 37, "+", "1", "1" + "0" * 37),
        ("9" * 38, "+", "1", "1" + "0" * 38),
        ("9" * 38, "-", "-1", "1" + "0" * 38),
        ("1" + "0" * 38, "-", "0.1", None),
        ("1" + "0" * 50, "+", "1", None),
        ("1" + "0" * 50, "-", "1", None),
        ("9" + "0" * 125, "+", "9" + "0" * 125, None),
        ("-9" + "0" * 125, "-", "9" + "0" * 125, None),
        ("0." + "0" * 129 + "2", "-", "0." + "0" * 129 + "1", "0." + "0" * 129 + "1"),
        ("1" + "0" * 36, "+", "0.1", "1" + "0" * 36 + ".1"),
    ],
)
def test_arithmetic_is_exact_or_refused(one: str, op: str, two: str, result: str | None) -> None:
    if result is not None:
        assert total(one, op, two) == result
        return
    with pytest.raises(DynamoError) as caught:
        total(one, op, two)
    assert caught.value.message == (
        "Number overflow. Attempting to store a number with magnitude larger than supported range"
    )


def test_an_item_cannot_be_made_deeper_than_32_levels() -> None:
    value: dict[str, Any] = {"S": "x"}
    for _ in range(31):
        value = {"M": {"a": value}}
    item: Item = {"a": value, "m": {"M": {}}}
    update = reading("Update", "SET b = a").update
    assert update is not None
    assert apply(update, item).item["b"] == value
    for text in ("SET m.b = a", "SET m.b = if_not_exists(x, a)"):
        update = reading("Update", text).update
        assert update is not None
        with pytest.raises(DynamoError, match="Nesting Levels have exceeded supported limits"):
            apply(update, item)


def test_an_item_cannot_be_multiplied_beyond_its_size_before_it_is_measured() -> None:
    item: Item = {"l": {"L": [{"NULL": True}] * 100_000}}
    names = ", ".join(f"a{place} = l" for place in range(300))
    appended = "l"
    for _ in range(100):
        appended = f"list_append(l, if_not_exists(x, {appended}))"
    for text in (f"SET {names}", f"SET b = {appended}"):
        update = reading("Update", text).update
        assert update is not None
        with pytest.raises(DynamoError) as caught:
            apply(update, item)
        assert caught.value.message == ("Item size to update has exceeded the maximum allowed size")

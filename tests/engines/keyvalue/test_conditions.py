"""Conditions over items: every operator and function, and what an absent attribute means."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from engines.keyvalue.evaluate import comparing
from engines.keyvalue.evaluate.conditions import matches
from engines.keyvalue.values import Item
from tests.engines.keyvalue.reading import reading


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


ITEM: Item = {
    "s": {"S": "hello"},
    "s2": {"S": "hello"},
    "blank": {"S": ""},
    "uml": {"S": "größe"},
    "n": {"N": "10"},
    "big": {"N": "12345678901234567890123456789012345678"},
    "small": {"N": "0.0000001"},
    "b": {"B": b64(b"\x01\x02\xff")},
    "yes": {"BOOL": True},
    "nil": {"NULL": True},
    "ss": {"SS": ["a", "b", "c"]},
    "ns": {"NS": ["1", "2.5"]},
    "bs": {"BS": [b64(b"x"), b64(b"yy")]},
    "l": {"L": [{"S": "a"}, {"N": "1"}, {"L": [{"N": "7"}]}, {"M": {"k": {"SS": ["p", "q"]}}}]},
    "m": {"M": {"x": {"S": "deep"}, "y.z": {"N": "3"}, "l": {"L": [{"S": "in"}]}}},
}
VALUES: dict[str, dict[str, Any]] = {
    ":hello": {"S": "hello"},
    ":hel": {"S": "hel"},
    ":ell": {"S": "ell"},
    ":nothing": {"S": ""},
    ":a": {"S": "a"},
    ":ae": {"S": "ä"},
    ":z": {"S": "z"},
    ":emoji": {"S": "\U0001f600"},
    ":bmp": {"S": "\uffff"},
    ":n1": {"N": "1"},
    ":n3": {"N": "3"},
    ":n5": {"N": "5"},
    ":n7": {"N": "7"},
    ":n9": {"N": "9"},
    ":n10": {"N": "10"},
    ":n11": {"N": "11"},
    ":n100": {"N": "100"},
    ":neg": {"N": "-100"},
    ":big": {"N": "12345678901234567890123456789012345679"},
    ":s10": {"S": "10"},
    ":b12": {"B": b64(b"\x01\x02")},
    ":b2": {"B": b64(b"\x02")},
    ":b7f": {"B": b64(b"\x01\x02\x7f")},
    ":bx": {"B": b64(b"x")},
    ":true": {"BOOL": True},
    ":false": {"BOOL": False},
    ":null": {"NULL": True},
    ":cab": {"SS": ["c", "a", "b"]},
    ":ab": {"SS": ["a", "b"]},
    ":nab": {"NS": ["1", "2.5"]},
    ":l7": {"L": [{"N": "7"}]},
    ":mk": {"M": {"k": {"SS": ["q", "p"]}}},
    ":tS": {"S": "S"},
    ":tN": {"S": "N"},
    ":tNULL": {"S": "NULL"},
    ":tBOOL": {"S": "BOOL"},
    ":tSS": {"S": "SS"},
    ":tL": {"S": "L"},
    ":tM": {"S": "M"},
}


def holds(text: str, item: Item | None = ITEM) -> bool:
    used = {name: value for name, value in VALUES.items() if name in words(text)}
    condition = reading("Condition", text, used).condition
    assert condition is not None
    return matches(condition, item)


def words(text: str) -> set[str]:
    for mark in "(),=":
        text = text.replace(mark, " ")
    return set(text.split())


TRUE = [
    "s = :hello",
    ":hello = s",
    "s = s2",
    "ss = :cab",
    ":nab = ns",
    "l[2] = :l7",
    "l[3] = :mk",
    "m.l[0] <> m.x",
    "yes = :true",
    "nil = :null",
    "s <> n",
    "s <> :n10",
    "s <> absent",
    "absent <> absent2",
    "m.absent <> :a",
    "n <> :s10",
    "n < :n11",
    "n <= :n10",
    "n > :n9",
    "n >= :n10",
    "n < :n100",
    "n > :neg",
    "big < :big",
    "small < :n1",
    "b > :b12",
    "b > :b7f",
    "uml > :a",
    "s < :z",
    ":z < :ae",
    ":bmp < :emoji",
    "n BETWEEN :n9 AND :n11",
    "n BETWEEN :n10 AND :n10",
    "s BETWEEN :a AND :z",
    ":n10 BETWEEN n AND n",
    "b BETWEEN :b12 AND :b2",
    "n IN (:n1, :s10, :n10)",
    "s IN (absent, s2)",
    "ss IN (:cab)",
    "attribute_exists(s)",
    "attribute_exists(m.l[0])",
    "attribute_exists(nil)",
    "attribute_not_exists(absent)",
    "attribute_not_exists(m.l[1])",
    "attribute_not_exists(m.x.y)",
    "attribute_not_exists(s[0])",
    "attribute_not_exists(l.a)",
    "attribute_type(s, :tS)",
    "attribute_type(n, :tN)",
    "attribute_type(nil, :tNULL)",
    "attribute_type(yes, :tBOOL)",
    "attribute_type(ss, :tSS)",
    "attribute_type(l, :tL)",
    "attribute_type(m, :tM)",
    "begins_with(s, :hel)",
    "begins_with(s, :nothing)",
    "begins_with(s, s2)",
    "begins_with(b, :b12)",
    "contains(s, :ell)",
    "contains(s, :nothing)",
    "contains(b, :b2)",
    "contains(ss, :a)",
    "contains(ns, :n1)",
    "contains(bs, :bx)",
    "contains(l, :a)",
    "contains(l, :n1)",
    "contains(l, :l7)",
    "contains(l, :mk)",
    "size(s) = :n5",
    "size(uml) = :n5",
    "size(b) = :n3",
    "size(ss) = :n3",
    "size(ns) < :n3",
    "size(m) = size(b)",
    "size(l) > :n3",
    "size(blank) < :n1",
    "size(:hello) = :n5",
    "size(absent) <> :n5",
    "size(n) <> :n1",
    ":n3 IN (size(ss), :n1)",
    "size(s) BETWEEN :n3 AND :n7",
    "NOT s = n",
    "NOT NOT s = s2",
    "NOT absent = :a",
    "s = n OR s = s2",
    "s = s2 OR s = n AND s = n",
    "NOT s = n AND s = s2",
    "NOT (s = n OR s = absent)",
    "(s = s2) AND (n = :n10)",
    "((s = s2) AND NOT (n = :n9))",
    "(s) = s2",
    "(m.l)[0] <> (m).x",
    "s   =\n\t\r :hello",
    "s=:hello aNd n=:n10",
    "n bEtWeEn :n9 AnD :n11 AND s iN (s2) and nOt attribute_exists(absent)",
]
FALSE = [
    "s = n",
    "s = :s10",
    "n = :s10",
    "absent = absent2",
    "absent = :a",
    "yes = :false",
    "yes = nil",
    "ss = :ab",
    "l[2] = l[3]",
    "s <> s2",
    "ss <> :cab",
    "absent < :n1",
    ":n1 < absent",
    "n < :s10",
    "n > :s10",
    "n <= :s10",
    "s < ss",
    "ss < :z",
    "yes < nil",
    "n < :n9",
    "n > :n10",
    "b < :b12",
    "n BETWEEN :n11 AND :n100",
    "absent BETWEEN :n1 AND :n9",
    "s BETWEEN :n1 AND :n9",
    "n BETWEEN :n1 AND absent",
    "n BETWEEN :n1 AND s",
    "n IN (:n1, :s10)",
    "absent IN (absent2)",
    "attribute_exists(absent)",
    "attribute_exists(l[4])",
    "attribute_exists(l[2147483647])",
    "attribute_exists(m.y.z)",
    "attribute_not_exists(nil)",
    "attribute_type(absent, :tS)",
    "attribute_type(s, :tN)",
    "begins_with(s, :ell)",
    "begins_with(n, :s10)",
    "begins_with(s, b)",
    "begins_with(absent, :hel)",
    "begins_with(s, absent)",
    "contains(n, :n1)",
    "contains(ns, :s10)",
    "contains(ns, :n10)",
    "contains(s, :bx)",
    "contains(absent, :a)",
    "contains(s, absent)",
    "contains(ss, :ab)",
    "contains(m, :a)",
    "size(n) = :n1",
    "size(absent) = :n1",
    "size(nil) >= :n1",
    "NOT s = s2",
    "s = s2 AND s = n",
    "NOT (s = n OR s = s2)",
]


@pytest.mark.parametrize("text", TRUE)
def test_true(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize("text", FALSE)
def test_false(text: str) -> None:
    assert not holds(text)


def test_an_item_that_is_not_there_has_no_attributes() -> None:
    assert holds("attribute_not_exists(s)", None)
    assert not holds("attribute_exists(s)", None)
    assert holds("s <> :a", None)
    assert not holds("s = :a", None)
    assert matches(None, None)


def test_names_go_around_dots_and_reserved_words() -> None:
    names = {"#yz": "y.z", "#n": "name"}
    condition = reading("Condition", "m.#yz = :v", {":v": {"N": "3"}}, {"#yz": "y.z"}).condition
    assert condition is not None
    assert matches(condition, ITEM)
    assert condition.nested == {"m"}
    condition = reading("Condition", "attribute_exists(#n)", None, {"#n": names["#n"]}).condition
    assert condition is not None
    assert matches(condition, {"name": {"S": "x"}})


def test_size_counts_characters_bytes_or_elements_and_not_everything_has_one() -> None:
    assert comparing.size({"S": "größe\U0001f600"}) == 7
    assert comparing.size({"B": b64(b"12345")}) == 5
    assert comparing.size({"BS": [b64(b"12"), b64(b"3")]}) == 2
    assert comparing.size({"M": {"a": {"M": {}}}}) == 1
    for value in ({"N": "1"}, {"BOOL": False}, {"NULL": True}):
        assert comparing.size(value) is None


def test_equality_is_deep_and_sets_have_no_order() -> None:
    one: dict[str, Any] = {
        "M": {"l": {"L": [{"NS": ["1", "2"]}, {"M": {"x": {"SS": ["a", "b"]}}}]}}
    }
    two: dict[str, Any] = {
        "M": {"l": {"L": [{"NS": ["2", "1"]}, {"M": {"x": {"SS": ["b", "a"]}}}]}}
    }
    other: dict[str, Any] = {"M": {"l": {"L": [{"NS": ["2", "1"]}, {"M": {"y": {"S": "b"}}}]}}}
    assert comparing.equal(one, two)
    assert not comparing.equal(one, other)
    assert not comparing.equal({"SS": ["1"]}, {"NS": ["1"]})
    assert not comparing.equal({"SS": ["1"]}, {"SS": ["1", "2"]})
    assert not comparing.equal({"L": [{"S": "a"}]}, {"L": [{"S": "a"}, {"S": "b"}]})
    assert not comparing.equal({"BOOL": False}, {"BOOL": True})


LARGE = 60_000
COSTLY: list[tuple[str, Item, dict[str, Any]]] = [
    (
        " OR ".join([f"a IN ({','.join(['b'] * 100)})"] * 18),
        {
            "a": {"L": [{"SS": ["a", "b"]}, *[{"N": "1"}] * LARGE, {"S": "x"}]},
            "b": {"L": [{"SS": ["b", "a"]}, *[{"N": "1"}] * LARGE, {"S": "y"}]},
        },
        {},
    ),
    (
        " OR ".join(["a = b"] * 150),
        {
            "a": {"SS": [str(place) for place in range(LARGE)]},
            "b": {"SS": [str(place) for place in range(LARGE, 0, -1)]},
        },
        {},
    ),
    (
        " OR ".join(f"contains(a, :v{place})" for place in range(150)),
        {"a": {"L": [{"NULL": True}] * LARGE}},
        {f":v{place}": {"S": str(place)} for place in range(150)},
    ),
    (
        " OR ".join(f"contains(a, :v{place})" for place in range(150)),
        {"a": {"S": "a" * 6 * LARGE}},
        {f":v{place}": {"S": f"{'a' * 1000}{place}"} for place in range(150)},
    ),
]


@pytest.mark.parametrize(("text", "item", "values"), COSTLY)
def test_hundreds_of_looks_at_a_large_item_cost_little(
    text: str, item: Item, values: dict[str, Any]
) -> None:
    condition = reading("Condition", text, values).condition
    begun = time.process_time()
    assert not matches(condition, item)
    # A quarter of a second at most; without care it is ten.
    assert time.process_time() - begun < 2

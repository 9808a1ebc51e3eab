"""What DynamoDB says of updates and projections, word for word."""

from __future__ import annotations

import pytest

from tests.engines.keyvalue.reading import (
    COUNT,
    MISUSED,
    NO_NAME,
    NO_VALUE,
    OTHER_TYPES,
    PATH,
    REDUNDANT,
    RESERVED,
    TOO_MANY,
    TYPE,
    B,
    N,
    S,
    Values,
    reading,
    refusal,
)


def overlap(one: str, two: str, verb: str = "overlap") -> str:
    return (
        f"Two document paths {verb} with each other; must remove or rewrite one of these paths; "
        f"path one: {one}, path two: {two}"
    )


NAMES = {"#a": "a", "#b": "b", "#c": "c", "#d": "[3]"}
AB = {":a": {"S": "a"}, ":b": {"S": "a"}}
ONCE = 'The "{}" section can only be used once in an update expression;'
UPDATES: list[tuple[str, str]] = [
    ("", "The expression can not be empty;"),
    (" set #z = :z set abOrt = true ", RESERVED + "abOrt"),
    (" remove Absolute ", RESERVED + "Absolute"),
    ("set #z = if_not_exist(:z) set c = d", "Invalid function name; function: if_not_exist"),
    (
        "set a = size(b)",
        "The function is not allowed in an update expression; function: size",
    ),
    ("set a = #z set c = :d", ONCE.format("SET")),
    ("remove #z set a = b remove e", ONCE.format("REMOVE")),
    ("add #z :e set a = b add e :f", ONCE.format("ADD")),
    ("delete #z :e set a = b delete #e :f", ONCE.format("DELETE")),
    ("SET #z = if_not_exists(:z)", NO_NAME + "#z"),
    ("SET #a = if_not_exists(:z)", NO_VALUE + ":z"),
    (
        "set d[1] = a, d.b = a, c[1].a = a, #c = if_not_exists(a)",
        overlap("[c, [1], a]", "[c]"),
    ),
    ("set #c[3].#d = a, #c[3] = a", overlap("[c, [3], [3]]", "[c, [3]]")),
    ("set a = b remove a", overlap("[a]", "[a]")),
    (
        "set #c[3].#d = a, #c.#d[3] = if_not_exists(a)",
        overlap("[c, [3], [3]]", "[c, [3], [3]]", "conflict"),
    ),
    ("remove a.#c set a[1] = #d", overlap("[a, c]", "[a, [1]]", "conflict")),
    (
        "set a = if_not_exists(c)",
        COUNT + "if_not_exists, number of operands: 1",
    ),
    ("set a = list_append(c)", COUNT + "list_append, number of operands: 1"),
    ("set a = if_not_exists(:a, c)", PATH + "if_not_exists"),
    ("set a = if_not_exists(if_not_exists(a, b), c)", PATH + "if_not_exists"),
    ("set a = ((b))", REDUNDANT),
    ("set a = ((b + c))", REDUNDANT),
    ("set a = ((b)) + c", REDUNDANT),
    ("set a = b + ((c))", REDUNDANT),
    ("set a = list_append(((b)), c)", REDUNDANT),
    ("set " + ", ".join(f"a{n}=b-c" for n in range(301)), TOO_MANY),
    ("set a = " + "list_append(" * 301, TOO_MANY),
    ("set a = " + "f(" * 400 + "b" + ")" * 400, "Invalid function name; function: f"),
    ("set a = list_append(list_append(:a, b), c)", MISUSED + "list_append"),
    ("set a = list_append(b, list_append(c, d))", MISUSED + "list_append"),
    (f"remove a{'[0]' * 32}", "The document path has too many nesting levels; nesting levels: 33"),
    (
        f"remove {'b' * 4090}",
        "Expression size has exceeded the maximum allowed size; expression size: 4097",
    ),
]


@pytest.mark.parametrize(("text", "message"), UPDATES)
def test_what_is_wrong_with_an_update_whatever_its_item(text: str, message: str) -> None:
    assert refusal("Update", text, AB, NAMES) == message


WORDS = {
    "S": "STRING",
    "NULL": "NULL",
    "BOOL": "BOOLEAN",
    "B": "BINARY",
    "M": "MAP",
    "L": "LIST",
    "N": "NUMBER",
}


@pytest.mark.parametrize("value", [S, {"NULL": True}, {"BOOL": False}, B, {"M": {}}, {"L": [N]}, N])
def test_add_and_delete_have_their_own_words_for_types(value: Values) -> None:
    kind = WORDS[next(iter(value))]
    message = "Incorrect operand type for operator or function; operator: {}, operand type: " + kind
    assert refusal("Update", "delete a.b :a", {":a": value}) == message.format("DELETE")
    if value != N:
        text = "set b = list_append(:a, a), c = if_not_exists(a) add a.b :a"
        assert refusal("Update", text, {":a": value}) == message.format("ADD")
    else:
        assert reading("Update", "add a.b :a", {":a": value}).update


@pytest.mark.parametrize("value", [S, B, *(v for v in OTHER_TYPES if "L" not in v)])
def test_operands_of_functions_in_updates(value: Values) -> None:
    kind = next(iter(value))
    for text, operator in [
        ("set a = list_append(:a, a)", "list_append"),
        ("set a = list_append(a, :a)", "list_append"),
        ("set a = a + :a", "+"),
        ("set a = :a - a", "-"),
    ]:
        message = f"{TYPE}{operator}, operand type: {kind}"
        assert refusal("Update", text, {":a": value}) == message


PROJECTIONS = [
    ("", "The expression can not be empty;"),
    ("a.abORt", RESERVED + "abORt"),
    ("#z,ABSoLUTE", RESERVED + "ABSoLUTE"),
    ("a,b,a,#z", NO_NAME + "#z"),
    ("b[1], b.a, #a.b, a", overlap("[a, b]", "[a]")),
    ("a, #a[1]", overlap("[a]", "[a, [1]]")),
    ("a, #a", overlap("[a]", "[a]")),
    ("a.b, #a[1], #b", overlap("[a, b]", "[a, [1]]", "conflict")),
    ("a.b[1], #a[1], #b", overlap("[a, b, [1]]", "[a, [1]]", "conflict")),
    ("a[3].b, #a.#d.b", overlap("[a, [3], b]", "[a, [3], b]", "conflict")),
    (f"a{'.b' * 32}", "The document path has too many nesting levels; nesting levels: 33"),
]


@pytest.mark.parametrize(("text", "message"), PROJECTIONS)
def test_what_is_wrong_with_a_projection(text: str, message: str) -> None:
    assert refusal("Projection", text, names=NAMES) == message


def test_the_types_that_an_update_gives_for_certain_are_known() -> None:
    text = (
        "set a = :s, b = c + :n, d = if_not_exists(e, :s), f = list_append(g, h), i = j, k.l = :s "
        "add m :n delete o :ss remove p"
    )
    values = {":s": S, ":n": N, ":ss": {"SS": ["x"]}}
    update = reading("Update", text, values).update
    assert update is not None
    assert dict(update.new_types()) == {
        "a": "S",
        "b": "N",
        "d": "S",
        "f": "L",
        "m": "N",
        "o": "SS",
    }

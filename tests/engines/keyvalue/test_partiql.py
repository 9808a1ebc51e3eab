"""PartiQL: what is written is read as it was meant, any text is read or refused in little time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.evaluate import conditions
from engines.keyvalue.parse.attribute_values import canonical
from engines.keyvalue.parse.expressions.trees import Action, Path, Test
from engines.keyvalue.parse.partiql import Delete, Exists, Insert, Select, Update, read
from engines.keyvalue.parse.partiql.tokens import TEXT_LENGTH_MAX
from engines.keyvalue.plan.catalogue import Table, table_of
from engines.keyvalue.plan.statements import access_of, primary_key
from tests.engines.keyvalue.attribute_values import attribute_values
from tests.engines.keyvalue.expression_texts import VALUES, items
from tests.engines.keyvalue.statement_texts import (
    Printer,
    assignment_texts,
    meant,
    path_texts,
    where_texts,
)


def message(text: str, *parameters: dict[str, Any]) -> str:
    """Return why a statement is refused."""
    with pytest.raises(DynamoError) as error:
        read(text, parameters)
    assert error.value.code == "ValidationException"
    return error.value.message.removeprefix("Statement wasn't well formed, can't be processed: ")


@given(st.data(), attribute_values())
def test_a_literal_of_any_type_is_read_as_it_was(data: st.DataObject, value: Any) -> None:
    printer = Printer(data.draw)
    wanted = canonical(value)
    text = printer.constant(wanted)
    statement = read(f"INSERT INTO t VALUE {{'a': {text}}}", printer.parameters)
    assert statement == Insert("t", {"a": wanted})


@given(where_texts())
def test_a_condition_written_is_read_as_it_was(drawn: tuple[Test, str, list[Any]]) -> None:
    test, text, parameters = drawn
    statement = read(f"DELETE FROM t WHERE {text}", parameters)
    assert isinstance(statement, Delete)
    where = statement.where
    assert meant(where.test, where.values) == meant(test, VALUES)


@given(assignment_texts())
def test_an_assignment_written_is_read_as_it_was(drawn: tuple[Action, str, list[Any]]) -> None:
    action, text, parameters = drawn
    statement = read(f"UPDATE t {text} WHERE a = 1", parameters)
    assert isinstance(statement, Update)
    (found,) = statement.update.actions
    assert meant(found, statement.update.values) == meant(action, VALUES)


@given(path_texts())
def test_paths_written_are_read_as_they_were(drawn: tuple[tuple[Path, ...], str]) -> None:
    paths, text = drawn
    assert read(f'SELECT {text} FROM "t"."i"', ()) == Select("t", "i", paths, None)


def hashed(kind: str = "S") -> Table:
    return table_of(
        "s",
        "t",
        1,
        1,
        {
            "AttributeDefinitions": [
                {"AttributeName": "a", "AttributeType": kind},
                {"AttributeName": "x", "AttributeType": "N"},
            ],
            "KeySchema": [
                {"AttributeName": "a", "KeyType": "HASH"},
                {"AttributeName": "x", "KeyType": "RANGE"},
            ],
        },
    )


def in_range(op: str, found: Any, values: Any) -> bool:
    """Say whether a sort key fulfils a key test, by conditions themselves."""
    names = {f":{place}": value for place, value in enumerate(values)}
    texts = {
        "between": "x BETWEEN ? AND ?",
        "begins_with": "begins_with(x, ?)",
    }
    statement = read(f"DELETE FROM t WHERE {texts.get(op, f'x {op} ?')}", list(names.values()))
    assert isinstance(statement, Delete)
    return conditions.matches(statement.where, {"x": found})


@given(where_texts(), items, st.sampled_from(["a", "ab", ""]), st.sampled_from(["1", "2.5", "-1"]))
@example(
    (None, "a IN ('a', 'ab') AND (x > 1 OR b = 1) AND NOT c = 'a'", []),  # type: ignore[arg-type]
    {},
    "a",
    "2.5",
)
def test_keys_and_the_rest_together_are_the_whole_condition(
    drawn: tuple[Test, str, list[Any]], item: dict[str, Any], partition: str, sort: str
) -> None:
    """An item is found by a SELECT if, and only if, its WHERE is true of it."""
    _, text, parameters = drawn
    select = read(f"SELECT * FROM t WHERE {text}", parameters)
    assert isinstance(select, Select)
    whole = item | {"a": {"S": partition}, "x": {"N": sort}}
    assert select.where is not None
    try:
        access = access_of(hashed(), None, select)
    except DynamoError as error:
        assert "does not match schema type" in error.message
        return
    found = not access.partitions
    for tests in access.partitions:
        by_name = {test.name: test for test in tests}
        ranged = by_name.get("x")
        if ranged is not None and any("N" not in value for value in ranged.values):
            return  # refused when it is planned
        is_in = ranged is None or in_range(ranged.op, whole["x"], ranged.values)
        found |= by_name["a"].values[0] == whole["a"] and is_in
    if access.filter is not None:
        found = found and conditions.matches(access.filter, whole)
    assert found == conditions.matches(select.where, whole)


def test_a_primary_key_is_found_wherever_it_must_be_true() -> None:
    statement = read("DELETE FROM t WHERE (x = 5 AND (b = 1 AND 'k' = a)) AND a = 'other'", ())
    assert isinstance(statement, Delete)
    found = primary_key(hashed(), statement.where)
    assert found is not None
    key, rest = found
    assert (key, rest is not None) == ({"x": {"N": "5"}, "a": {"S": "k"}}, True)
    assert not conditions.matches(rest, {"a": {"S": "k"}, "b": {"N": "1"}})  # type: ignore[arg-type]
    for text in ("x = 5", "a = 'k' OR x = 5", "a = 'k' AND NOT x = 5", "a = 'k' AND x = b"):
        other = read(f"DELETE FROM t WHERE {text}", ())
        assert isinstance(other, Delete)
        assert primary_key(hashed(), other.where) is None


def test_exists_holds_a_select() -> None:
    statement = read("exists (select * from t where a = 'x' and b is missing)", ())
    assert isinstance(statement, Exists)
    assert statement.table == "t"


def test_comments_and_a_semicolon_mean_nothing() -> None:
    text = "SELECT * -- all of it\nFROM t -- 'quoted\n ;"
    assert read(text, ()) == Select("t", None, None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Unexpected end of statement"),
        ("MERGE INTO t", "Unexpected term: MERGE at 1"),
        ("SELECT FROM t", "Unexpected term: FROM at 8"),
        ("SELECT count(*) FROM t", "Expected identifier for simple projection"),
        ("SELECT 1 FROM t", "Expected identifier for simple projection"),
        ("SELECT a AS b FROM t", "Unexpected term: AS at 10"),
        ("SELECT * FROM t, u", "Unexpected term: , at 16"),
        ("SELECT * FROM t LIMIT 5", "Unexpected term: LIMIT at 17"),
        ("SELECT * FROM t WHERE", "Unexpected end of statement"),
        ("SELECT * FROM t WHERE a LIKE 'x'", "Unexpected term: LIKE at 25"),
        ("SELECT * FROM t WHERE a[-1] = 1", "Unexpected path component at 25"),
        ("SELECT * FROM t WHERE upper(a) = 1", "Unsupported function: upper"),
        ("SELECT * FROM t WHERE 1 IS MISSING", "IS requires a document path"),
        ("SELECT * FROM t WHERE a = 'x", "Unexpected term: 'x"),
        ("SELECT * FROM t WHERE a = <<>>", "An empty set has no type"),
        (
            "SELECT * FROM t WHERE a < TRUE",
            "Incorrect operand type for operator or function; operator or function: <, operand "
            "type: BOOL",
        ),
        (
            "SELECT * FROM t WHERE attribute_type(a, 'text')",
            "Invalid attribute type name found; type: text, valid types: "
            "{B,NULL,SS,BOOL,L,BS,N,NS,S,M}",
        ),
        ("INSERT INTO t VALUE 'x'", "Expected a struct behind VALUE"),
        ("INSERT INTO t.i VALUE {}", "An index cannot be written to"),
        ("INSERT INTO t VALUE {'a': 1, 'a': 2}", "Duplicate attribute name: a"),
        ("UPDATE t WHERE a = 1", "Unexpected term: WHERE at 10"),
        ("UPDATE t SET a = 1", "Unexpected end of statement"),
        (
            "UPDATE t SET a = set_add(b, <<1>>) WHERE k = 1",
            "The first operand of set_add must be the path that is set",
        ),
        ("UPDATE t SET a = upper(b) WHERE k = 1", "Unsupported function: upper"),
        ("DELETE FROM t WHERE a = 1 RETURNING ALL NEW *", "DELETE can only return ALL OLD *"),
        ("DELETE FROM t WHERE a = 1 RETURNING a", "Unexpected term: a at 37"),
    ],
)
def test_what_is_no_statement_is_refused_with_its_place(text: str, said: str) -> None:
    assert message(text) == said


def test_each_parameter_has_its_place() -> None:
    wrong = "Number of parameters in request and statement don't match."
    assert message("SELECT * FROM t WHERE a = ?") == wrong
    assert message("SELECT * FROM t WHERE a = 1", {"N": "1"}) == wrong
    assert message("SELECT * FROM t WHERE a IN ?", {"N": "1"}) == "The operand of IN must be a list"
    statement = read("SELECT * FROM t WHERE a IN ?", [{"L": [{"N": "1"}, {"S": "x"}]}])
    assert isinstance(statement, Select)
    assert statement.where is not None
    assert conditions.matches(statement.where, {"a": {"S": "x"}})


WORDS = [
    *"()[]{},.=<>+-:\"'?*;",
    *("<=", ">=", "<>", "!=", "<<", ">>", "--", "''", "a", "b", '"t"', "'x'", "1", "1e5", "9" * 40),
    *("SELECT", "FROM", "WHERE", "INSERT", "INTO", "VALUE", "UPDATE", "SET", "REMOVE", "DELETE"),
    *("AND", "OR", "NOT", "IN", "BETWEEN", "IS", "MISSING", "NULL", "TRUE", "ORDER", "BY", "DESC"),
    *(
        "RETURNING",
        "ALL",
        "OLD",
        "EXISTS",
        "size",
        "contains",
        "list_append",
        "set_add",
        "\x00",
        "ü",
    ),
]


@given(
    st.sampled_from(
        ["", "SELECT * FROM t WHERE ", "INSERT INTO t VALUE ", "UPDATE t SET a = ", "DELETE FROM "]
    ),
    st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)),
    st.lists(attribute_values().map(canonical), max_size=3),
)
def test_any_text_is_read_or_refused(start: str, text: str, parameters: list[Any]) -> None:
    try:
        read(start + text, parameters)
    except DynamoError as error:
        assert error.code == "ValidationException"
        assert error.message


@pytest.mark.parametrize(
    ("start", "piece", "end"),
    [
        ("SELECT * FROM t WHERE ", "(", ""),
        ("SELECT * FROM t WHERE ", "NOT ", "a = 1"),
        ("SELECT * FROM t WHERE a = 1", " AND a = 1", ""),
        ("SELECT * FROM t WHERE a IN (1", ",1", ")"),
        ("SELECT * FROM t WHERE a", ".a", " = 1"),
        ("SELECT a", ",a", " FROM t"),
        ("INSERT INTO t VALUE ", "[", ""),
        ("INSERT INTO t VALUE ", "{'a':", ""),
        ("INSERT INTO t VALUE {'a': <<1", ",1", ">>}"),
        ("INSERT INTO t VALUE {'a': ", "9", "}"),
        ("UPDATE t SET a = ", "list_append(", ""),
        ("UPDATE t SET a=1", ",b=1", " WHERE k = 1"),
        ("UPDATE t", " SET a.a.a[1]=1", " WHERE k = 1"),
        ("", " ", "@"),
        ("", "\t-- \n", "@"),
        ("", "'", ""),
        ("", "''", "'"),
        ("", '"', ""),
        ("", "-", ""),
    ],
)
def test_long_statements_cost_little(start: str, piece: str, end: str) -> None:
    room = TEXT_LENGTH_MAX - len(start) - len(end)
    text = start + piece * (room // len(piece)) + end
    began = time.process_time()
    try:
        read(text, ())
    except DynamoError as error:
        assert error.code == "ValidationException"
    assert time.process_time() - began < 0.5


def test_a_statement_has_its_length() -> None:
    assert message("SELECT * FROM t " + " " * TEXT_LENGTH_MAX) == (
        f"Statement is longer than {TEXT_LENGTH_MAX} characters"
    )

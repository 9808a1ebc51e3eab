"""A statement and its parameters -> its tree.

"PartiQL for DynamoDB" of the Developer Guide: SELECT, INSERT, UPDATE, DELETE, and EXISTS in
transactions. What PartiQL has and DynamoDB has not (joins, groups, aliases, subqueries) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engines.keyvalue.capacity import ITEM_BYTES_MAX, item_size
from engines.keyvalue.errors import validation
from engines.keyvalue.parse.attribute_values import canonical_item
from engines.keyvalue.parse.expressions.trees import Path
from engines.keyvalue.parse.partiql.assignments import assignments
from engines.keyvalue.parse.partiql.conditions import condition
from engines.keyvalue.parse.partiql.terms import Reader
from engines.keyvalue.parse.partiql.tokens import Kind, malformed, unexpected
from engines.keyvalue.parse.partiql.trees import Delete, Exists, Insert, Select, Statement, Update
from engines.keyvalue.values import AttributeValue

PATHS_MAX = 300
ORDERS_MAX = 2
# RETURNING in the words of ReturnValues.
_RETURNING = {
    ("ALL", "OLD"): "ALL_OLD",
    ("ALL", "NEW"): "ALL_NEW",
    ("MODIFIED", "OLD"): "UPDATED_OLD",
    ("MODIFIED", "NEW"): "UPDATED_NEW",
}


def read(text: str, parameters: Sequence[AttributeValue]) -> Statement:
    """Return the statement that a text is with these parameters, which are canonical.

    Raises DynamoError.
    """
    reader = Reader(text, parameters)
    keyword = reader.token.keyword
    statement = _STATEMENTS.get(keyword)
    if statement is None:
        raise unexpected(reader.token)
    reader.next()
    found = statement(reader)
    reader.end()
    return found


def _select(reader: Reader) -> Select:
    paths = None if reader.took_symbol("*") else _paths(reader)
    reader.expect("FROM")
    table, index = _source(reader)
    where = condition(reader) if reader.took("WHERE") else None
    order = _order(reader) if reader.took("ORDER", "BY") else ()
    if order and where is None:
        raise validation("Must have WHERE clause in the statement when using ORDER BY clause.")
    return Select(table, index, paths, where, order)


def _paths(reader: Reader) -> tuple[Path, ...]:
    paths = [_projected(reader)]
    while reader.took_symbol(","):
        paths.append(_projected(reader))
    if len(paths) > PATHS_MAX:
        raise malformed(f"A SELECT has at most {PATHS_MAX} paths")
    return tuple(paths)


def _projected(reader: Reader) -> Path:
    if reader.token.kind not in (Kind.WORD, Kind.NAME) or reader.is_call():
        raise malformed("Expected identifier for simple projection")
    return reader.path()


def _source(reader: Reader) -> tuple[str, str | None]:
    table = reader.name()
    return table, reader.name() if reader.took_symbol(".") else None


def _table(reader: Reader) -> str:
    table, index = _source(reader)
    if index is not None:
        raise malformed("An index cannot be written to")
    return table


def _order(reader: Reader) -> tuple[tuple[str, bool], ...]:
    found: list[tuple[str, bool]] = []
    while True:
        name = reader.name()
        is_forward = not reader.took("DESC")
        if is_forward:
            reader.took("ASC")
        found.append((name, is_forward))
        if not reader.took_symbol(","):
            break
    if len(found) > ORDERS_MAX:
        raise malformed("ORDER BY has at most the two attributes of a key")
    return tuple(found)


def _insert(reader: Reader) -> Insert:
    reader.expect("INTO")
    table = _table(reader)
    reader.expect("VALUE")
    value = reader.literal()
    if "M" not in value:
        raise malformed("Expected a struct behind VALUE")
    item = canonical_item(value["M"])
    if item_size(item) > ITEM_BYTES_MAX:
        raise validation("Item size has exceeded the maximum allowed size")
    return Insert(table, item)


def _update(reader: Reader) -> Update:
    table = _table(reader)
    update = assignments(reader)
    reader.expect("WHERE")
    where = condition(reader)
    return Update(table, update, where, _returning(reader))


def _delete(reader: Reader) -> Delete:
    reader.expect("FROM")
    table = _table(reader)
    reader.expect("WHERE")
    where = condition(reader)
    returning = _returning(reader)
    if returning not in ("NONE", "ALL_OLD"):
        raise malformed("DELETE can only return ALL OLD *")
    return Delete(table, where, returning)


def _returning(reader: Reader) -> str:
    if not reader.took("RETURNING"):
        return "NONE"
    words = reader.next(), reader.next()
    found = _RETURNING.get((words[0].keyword, words[1].keyword))
    if found is None:
        raise unexpected(words[0])
    reader.expect_symbol("*")
    return found


def _exists(reader: Reader) -> Exists:
    reader.expect_symbol("(")
    reader.expect("SELECT")
    select = _select(reader)
    reader.expect_symbol(")")
    return Exists(select)


_STATEMENTS: Mapping[str, Callable[[Reader], Statement]] = {
    "DELETE": _delete,
    "EXISTS": _exists,
    "INSERT": _insert,
    "SELECT": _select,
    "UPDATE": _update,
}

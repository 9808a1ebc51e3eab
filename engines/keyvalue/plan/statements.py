"""What a statement of PartiQL reads or writes: keys found in its WHERE, and what is left of it.

    WHERE a IN ['x', 'y'] AND b > 5 AND c = 1    of a table with the key (a, b)
    Access(((a = 'x', b > 5), (a = 'y', b > 5)), filter: c = 1)

Only terms that all must be true can be about keys; whatever stands below OR or NOT is a filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.keyvalue.errors import invalid_parameter, validation
from engines.keyvalue.evaluate.conditions import resolve
from engines.keyvalue.parse.expressions.trees import (
    And,
    Between,
    Compare,
    Condition,
    Function,
    In,
    KeyTest,
    Operand,
    Or,
    Path,
    Test,
    Value,
    Values,
)
from engines.keyvalue.parse.partiql.trees import Select
from engines.keyvalue.plan.catalogue import Index, KeyAttribute, Table
from engines.keyvalue.plan.keys import KEY_BYTES
from engines.keyvalue.values import AttributeValue, Item

# "SELECT": so many partition keys may stand behind IN.
PARTITIONS_MAX = 50
NO_KEY = "Where clause does not contain a mandatory equality on all key attributes"

_TURNED: Mapping[str, str] = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Access:
    """How a SELECT is answered: a query for each element of `partitions`, or else a scan."""

    partitions: tuple[tuple[KeyTest, ...], ...]
    filter: Condition | None
    is_forward: bool = True


def access_of(table: Table, index: Index | None, select: Select) -> Access:
    """Return how a SELECT is answered. Raises DynamoError for an order that no key gives."""
    keys = table.keys if index is None else index.keys
    for name, _ in select.order:
        if all(name != key.name for key in keys):
            raise validation(
                f"Variable reference {name} in ORDER BY clause must be part of the primary key"
            )
    where = select.where
    terms = _terms(where.test) if where else []
    found = _partitions(terms, keys[0], where.values) if where else None
    if where is None or found is None:
        if select.order:
            raise validation(
                "Must have at least one non-optional hash key condition in WHERE clause when "
                "using ORDER BY clause."
            )
        return Access((), where)
    term, values = found
    terms.remove(term)
    order = dict(select.order)
    if len(values) > 1 and order and next(iter(order)) != keys[0].name:
        raise validation("ORDER BY of several partition keys must begin with the partition key")
    if keys[0].name in order:
        values.sort(key=lambda value: _bytes_of(keys[0], value), reverse=not order[keys[0].name])
    ranged = _ranged(terms, keys[1], where.values) if len(keys) > 1 else None
    tests: tuple[KeyTest, ...] = ()
    if ranged is not None:
        terms.remove(ranged[0])
        tests = (ranged[1],)
    is_forward = order.get(keys[1].name, True) if len(keys) > 1 else True
    partitions = tuple((KeyTest(keys[0].name, "=", (value,)), *tests) for value in values)
    return Access(partitions, _rest(where, terms), is_forward)


def primary_key(table: Table, where: Condition | None) -> tuple[Item, Condition | None] | None:
    """Return the primary key that a condition names, and the rest of it; None if it names none."""
    if where is None:
        return None
    terms = _terms(where.test)
    key: Item = {}
    for attribute in table.keys:
        for term in terms:
            test = _key_test(term, attribute.name, where.values)
            if test is not None and test.op == "=":
                key[attribute.name] = test.values[0]
                terms.remove(term)
                break
        else:
            return None
    return key, _rest(where, terms)


def flattened(paths: Sequence[Path], item: Item) -> Item:
    """Return what a SELECT asks for: the last name of each path, and `_2` for an index second."""
    found: Item = {}
    for place, path in enumerate(paths, 1):
        value = resolve(path, item)
        last = path.parts[-1]
        if value is not None:
            found.setdefault(last if isinstance(last, str) else f"_{place}", value)
    return found


def _terms(test: Test) -> list[Test]:
    """Return the terms that all must be true."""
    if isinstance(test, And):
        return [each for term in test.terms for each in _terms(term)]
    return [test]


def _rest(where: Condition, terms: Sequence[Test]) -> Condition | None:
    if not terms:
        return None
    return where._replace(test=terms[0] if len(terms) == 1 else And(tuple(terms)))


def _partitions(
    terms: Sequence[Test], attribute: KeyAttribute, values: Values
) -> tuple[Test, list[AttributeValue]] | None:
    """Return the term that names partition keys, and these, none of them twice."""
    for term in terms:
        found = _equals(term, attribute.name, values)
        if found is None:
            continue
        if any(attribute.kind not in value for value in found):
            raise invalid_parameter("Condition parameter type does not match schema type")
        distinct = list({value[attribute.kind]: value for value in found}.values())
        if len(distinct) > PARTITIONS_MAX:
            raise validation(
                f"At most {PARTITIONS_MAX} partition keys can be selected by one statement"
            )
        return term, distinct
    return None


def _equals(term: Test, name: str, values: Values) -> list[AttributeValue] | None:
    """Return the values of which an attribute must equal one."""
    if isinstance(term, Or):
        found: list[AttributeValue] = []
        for each in term.terms:
            part = _equals(each, name, values)
            if part is None:
                return None
            found += part
        return found
    if isinstance(term, In):
        is_own = term.of == Path((name,))
        options = [option for option in term.options if isinstance(option, Value)]
        if is_own and len(options) == len(term.options):
            return [values[option.name] for option in options]
        return None
    test = _key_test(term, name, values)
    return [test.values[0]] if test is not None and test.op == "=" else None


def _ranged(
    terms: Sequence[Test], attribute: KeyAttribute, values: Values
) -> tuple[Test, KeyTest] | None:
    """Return the first term that bounds the sort key."""
    for term in terms:
        test = _key_test(term, attribute.name, values)
        if test is not None:
            return term, test
    return None


def _key_test(term: Test, name: str, values: Values) -> KeyTest | None:
    """Return what a term demands of an attribute if an index can serve it."""
    op: str
    operands: tuple[Operand, ...]
    match term:
        case Compare(op, Value(), Path()) if op in _TURNED:
            op, operands = _TURNED[op], (term.right, term.left)
        case Compare(op, left, right) if op in _TURNED:
            operands = (left, right)
        case Between(of, low, high):
            op, operands = "between", (of, low, high)
        case Function("begins_with", args):
            op, operands = "begins_with", args
        case _:
            return None
    if operands[0] != Path((name,)):
        return None
    given = [values[operand.name] for operand in operands[1:] if isinstance(operand, Value)]
    if len(given) < len(operands) - 1:
        return None
    return KeyTest(name, op, tuple(given))


def _bytes_of(attribute: KeyAttribute, value: AttributeValue) -> bytes:
    return KEY_BYTES[attribute.kind](value[attribute.kind])

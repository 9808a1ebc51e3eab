"""Conditions over items: true or false, never an error.

An absent attribute makes every comparison false but <>, which is true then: it is exactly not =.
Values of two types are never equal and have no order. A size of a number or of nothing is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engines.keyvalue.evaluate import comparing
from engines.keyvalue.parse.expressions.trees import (
    And,
    Between,
    Compare,
    Condition,
    Function,
    In,
    Not,
    Operand,
    Or,
    Path,
    Test,
    Value,
    Values,
)
from engines.keyvalue.values import AttributeValue, Item, type_of

_NO_ITEM: Item = {}


def matches(condition: Condition | None, item: Item | None) -> bool:
    """Tell whether an item meets a condition.

    None for a condition: there is none; for an item: it is not there.
    """
    if condition is None:
        return True
    return _holds(condition.test, _NO_ITEM if item is None else item, condition.values)


def resolve(path: Path, item: Item) -> AttributeValue | None:
    """Return the value that a path leads to, or None."""
    parts = path.parts
    value: AttributeValue | None = item.get(parts[0])  # type: ignore[arg-type]
    for part in parts[1:]:
        if value is None:
            return None
        if isinstance(part, str):
            value = value["M"].get(part) if "M" in value else None
        else:
            elements = value.get("L")
            value = elements[part] if elements is not None and part < len(elements) else None
    return value


def _holds(test: Test, item: Item, values: Values) -> bool:
    return _TESTS[type(test)](test, item, values)


def _operand(operand: Operand, item: Item, values: Values) -> AttributeValue | None:
    if isinstance(operand, Value):
        return values[operand.name]
    if isinstance(operand, Path):
        return resolve(operand, item)
    value = _operand(operand.of, item, values)
    found = comparing.size(value) if value is not None else None
    return None if found is None else {"N": str(found)}


def _and(test: And, item: Item, values: Values) -> bool:
    for term in test.terms:  # noqa: SIM110 - a generator would double the cost
        if not _TESTS[type(term)](term, item, values):
            return False
    return True


def _or(test: Or, item: Item, values: Values) -> bool:
    for term in test.terms:  # noqa: SIM110 - a generator would double the cost
        if _TESTS[type(term)](term, item, values):
            return True
    return False


def _not(test: Not, item: Item, values: Values) -> bool:
    # One frame a level: 300 of them are allowed.
    return not _TESTS[type(test.term)](test.term, item, values)


def _compare(test: Compare, item: Item, values: Values) -> bool:
    left = _operand(test.left, item, values)
    right = _operand(test.right, item, values)
    if left is None or right is None:
        return test.op == "<>"
    if test.op == "=":
        return comparing.equal(left, right)
    if test.op == "<>":
        return not comparing.equal(left, right)
    return comparing.ordered(test.op, left, right)


def _between(test: Between, item: Item, values: Values) -> bool:
    value = _operand(test.of, item, values)
    low = _operand(test.low, item, values)
    high = _operand(test.high, item, values)
    if value is None or low is None or high is None:
        return False
    return comparing.ordered(">=", value, low) and comparing.ordered("<=", value, high)


def _in(test: In, item: Item, values: Values) -> bool:
    value = _operand(test.of, item, values)
    if value is None:
        return False
    for operand in test.options:
        option = _operand(operand, item, values)
        if option is not None and comparing.equal(value, option):
            return True
    return False


def _function(test: Function, item: Item, values: Values) -> bool:
    args = [_operand(operand, item, values) for operand in test.args]
    return _FUNCTIONS[test.name](*args)


def _exists(value: AttributeValue | None) -> bool:
    return value is not None


def _not_exists(value: AttributeValue | None) -> bool:
    return value is None


def _type(value: AttributeValue | None, kind: AttributeValue | None) -> bool:
    return value is not None and kind is not None and type_of(value) == kind.get("S")


def _begins_with(value: AttributeValue | None, prefix: AttributeValue | None) -> bool:
    return value is not None and prefix is not None and comparing.begins_with(value, prefix)


def _contains(value: AttributeValue | None, part: AttributeValue | None) -> bool:
    return value is not None and part is not None and comparing.contains(value, part)


def _not_contains(value: AttributeValue | None, part: AttributeValue | None) -> bool:
    # NOT_CONTAINS of the legacy parameters; an absent attribute contains nothing, yet fails.
    return value is not None and part is not None and not comparing.contains(value, part)


_TESTS: Mapping[type, Callable[[Any, Item, Values], bool]] = {
    And: _and,
    Between: _between,
    Compare: _compare,
    Function: _function,
    In: _in,
    Not: _not,
    Or: _or,
}

_FUNCTIONS: Mapping[str, Callable[..., bool]] = {
    "attribute_exists": _exists,
    "attribute_not_exists": _not_exists,
    "attribute_type": _type,
    "begins_with": _begins_with,
    "contains": _contains,
    "not_contains": _not_contains,
}

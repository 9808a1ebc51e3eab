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
    scope = _Scope(_NO_ITEM if item is None else item, condition.values)
    return _TESTS[type(condition.test)](condition.test, scope)


def resolve(path: Path, item: Item) -> AttributeValue | None:
    """Return the value that a path leads to, or None."""
    parts = path.parts
    value: AttributeValue | None = item.get(parts[0])  # type: ignore[arg-type]
    if len(parts) == 1:
        return value
    for part in parts[1:]:
        if value is None:
            return None
        if isinstance(part, str):
            value = value["M"].get(part) if "M" in value else None
        else:
            elements = value.get("L")
            value = elements[part] if elements is not None and part < len(elements) else None
    return value


class _Scope:
    """What one evaluation is about. `equals` are documents and sets that were compared already.

    A condition may compare the same two hundreds of times; values keep their identity meanwhile.
    """

    __slots__ = ("equals", "item", "values")

    def __init__(self, item: Item, values: Values) -> None:
        self.item = item
        self.values = values
        self.equals: dict[tuple[int, int], bool] = {}

    def operand(self, operand: Operand) -> AttributeValue | None:
        """Return the value of an operand, or None."""
        if isinstance(operand, Value):
            return self.values[operand.name]
        if isinstance(operand, Path):
            return resolve(operand, self.item)
        value = self.operand(operand.of)
        found = comparing.size(value) if value is not None else None
        return None if found is None else {"N": str(found)}

    def equal(self, one: AttributeValue, two: AttributeValue) -> bool:
        """Tell whether two values are equal."""
        for kind in one:
            if kind not in two:
                return False
            if kind in comparing.SCALARS:
                return one == two
        pair = id(one), id(two)
        found = self.equals.get(pair)
        if found is None:
            found = self.equals[pair] = comparing.equal(one, two)
        return found


def _and(test: And, scope: _Scope) -> bool:
    for term in test.terms:  # noqa: SIM110 - a generator would double the cost
        if not _TESTS[type(term)](term, scope):
            return False
    return True


def _or(test: Or, scope: _Scope) -> bool:
    for term in test.terms:  # noqa: SIM110 - a generator would double the cost
        if _TESTS[type(term)](term, scope):
            return True
    return False


def _not(test: Not, scope: _Scope) -> bool:
    # One frame a level: 300 of them are allowed.
    return not _TESTS[type(test.term)](test.term, scope)


def _compare(test: Compare, scope: _Scope) -> bool:
    left = scope.operand(test.left)
    right = scope.operand(test.right)
    if left is None or right is None:
        return test.op == "<>"
    if test.op == "=":
        return scope.equal(left, right)
    if test.op == "<>":
        return not scope.equal(left, right)
    return comparing.ordered(test.op, left, right)


def _between(test: Between, scope: _Scope) -> bool:
    value = scope.operand(test.of)
    low = scope.operand(test.low)
    high = scope.operand(test.high)
    if value is None or low is None or high is None:
        return False
    return comparing.ordered(">=", value, low) and comparing.ordered("<=", value, high)


def _in(test: In, scope: _Scope) -> bool:
    value = scope.operand(test.of)
    if value is None:
        return False
    for operand in test.options:
        option = scope.operand(operand)
        if option is not None and scope.equal(value, option):
            return True
    return False


def _function(test: Function, scope: _Scope) -> bool:
    args = [scope.operand(operand) for operand in test.args]
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


_TESTS: Mapping[type, Callable[[Any, _Scope], bool]] = {
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

"""The parameters that came before expressions -> the same trees.

    Expected, QueryFilter, ScanFilter -> Condition    KeyConditions -> KeyCondition
    AttributeUpdates -> Update                        AttributesToGet -> Projection

Developer Guide, "Legacy conditional parameters". Their texts and values are checked before
(`operations.legacy`), so nothing is refused here. Names are names: dots and brackets mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engines.keyvalue.parse.expressions.trees import (
    Action,
    AddAction,
    And,
    Between,
    Branch,
    Compare,
    Condition,
    DeleteAction,
    Expressions,
    Function,
    In,
    KeyCondition,
    KeyTest,
    Or,
    Path,
    Projection,
    RemoveAction,
    SetAction,
    Test,
    Update,
    Value,
)
from engines.keyvalue.values import AttributeValue

_FIELDS = frozenset(
    (
        "AttributeUpdates",
        "AttributesToGet",
        "Expected",
        "KeyConditions",
        "QueryFilter",
        "ScanFilter",
    )
)

_COMPARISONS: Mapping[str, str] = {
    "EQ": "=",
    "NE": "<>",
    "LE": "<=",
    "LT": "<",
    "GE": ">=",
    "GT": ">",
}
# Functions of the attribute and its arguments. NOT_CONTAINS is not the contrary of CONTAINS: it is
# false for an attribute that is absent.
_FUNCTIONS: Mapping[str, str] = {
    "BEGINS_WITH": "begins_with",
    "CONTAINS": "contains",
    "NOT_CONTAINS": "not_contains",
    "NOT_NULL": "attribute_exists",
    "NULL": "attribute_not_exists",
}
_KEY_OPERATORS: Mapping[str, str] = {
    **_COMPARISONS,
    **_FUNCTIONS,
    "BETWEEN": "between",
    "IN": "in",
}


def completed(fields: Mapping[str, Any], expressions: Expressions) -> Expressions:
    """Return the expressions of a request together with what its legacy parameters mean.

    A request has no two parameters of the same meaning.
    """
    if _FIELDS.isdisjoint(fields):
        return expressions
    is_any = fields.get("ConditionalOperator") == "OR"
    filters = fields.get("QueryFilter") or fields.get("ScanFilter")
    return Expressions(
        condition=expressions.condition or condition(fields.get("Expected"), is_any),
        filter=expressions.filter or condition(filters, is_any),
        key_condition=expressions.key_condition or key_condition(fields.get("KeyConditions")),
        projection=expressions.projection or projection(fields.get("AttributesToGet")),
        update=expressions.update or update(fields.get("AttributeUpdates")),
    )


def condition(wishes: Mapping[str, Mapping[str, Any]] | None, is_any: bool) -> Condition | None:
    """Return the condition that all, or any, of the attributes are as wished; None for no wish."""
    if not wishes:
        return None
    values: dict[str, AttributeValue] = {}
    tests = tuple([_test(name, wish, values) for name, wish in wishes.items()])
    test: Test = tests[0] if len(tests) == 1 else Or(tests) if is_any else And(tests)
    return Condition(test, values, frozenset(wishes))


def _test(name: str, wish: Mapping[str, Any], values: dict[str, AttributeValue]) -> Test:
    operator, arguments = _operation(wish)
    path = Path((name,))
    given = tuple([_placed(argument, values) for argument in arguments])
    if operator in _COMPARISONS:
        return Compare(_COMPARISONS[operator], path, given[0])
    if operator == "BETWEEN":
        return Between(path, given[0], given[1])
    if operator == "IN":
        return In(path, given)
    return Function(_FUNCTIONS[operator], (path, *given))


def _operation(wish: Mapping[str, Any]) -> tuple[str, Sequence[AttributeValue]]:
    """Return operator and arguments; `Value` and `Exists` alone are older than operators."""
    operator = wish.get("ComparisonOperator")
    value = wish.get("Value")
    if operator is None:
        return ("NULL", ()) if value is None else ("EQ", (value,))
    return operator, wish.get("AttributeValueList") or (() if value is None else (value,))


def _placed(value: AttributeValue, values: dict[str, AttributeValue]) -> Value:
    """Put a value among the values, under a name of its own."""
    name = f":{len(values)}"
    values[name] = value
    return Value(name)


def key_condition(conditions: Mapping[str, Mapping[str, Any]] | None) -> KeyCondition | None:
    """Return the tests of KeyConditions."""
    if not conditions:
        return None
    return KeyCondition(
        tuple(
            [
                KeyTest(
                    name,
                    _KEY_OPERATORS[wish["ComparisonOperator"]],
                    tuple(wish.get("AttributeValueList") or ()),
                )
                for name, wish in conditions.items()
            ]
        )
    )


def update(updates: Mapping[str, Mapping[str, Any]] | None) -> Update | None:
    """Return the update that AttributeUpdates are; None if there is nothing to do."""
    if not updates:
        return None
    values: dict[str, AttributeValue] = {}
    actions = tuple([_action(name, wish, values) for name, wish in updates.items()])
    return Update(actions, values, _flat(updates), is_legacy=True)


def _action(name: str, wish: Mapping[str, Any], values: dict[str, AttributeValue]) -> Action:
    path = Path((name,))
    kind, value = wish.get("Action", "PUT"), wish.get("Value")
    if value is None:
        return RemoveAction(path)
    placed = _placed(value, values)
    if kind == "ADD":
        return AddAction(path, placed)
    return DeleteAction(path, placed) if kind == "DELETE" else SetAction(path, placed)


def projection(names: Sequence[str] | None) -> Projection | None:
    """Return the projection that AttributesToGet is."""
    if not names:
        return None
    return Projection(tuple([Path((name,)) for name in names]), _flat(names))


def _flat(names: Iterable[str]) -> Branch:
    return Branch({name: place for place, name in enumerate(names)})

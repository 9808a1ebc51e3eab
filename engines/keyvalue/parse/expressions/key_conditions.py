"""KeyConditionExpression: a condition -> one test for each key attribute.

Only AND, comparisons but <>, BETWEEN and begins_with, each of one top-level attribute with values.
These rules come after all those of conditions, of all expressions of the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from engines.keyvalue.errors import DynamoError, validation
from engines.keyvalue.parse.expressions.trees import (
    And,
    Between,
    Compare,
    Function,
    In,
    KeyCondition,
    KeyTest,
    Not,
    Operand,
    Or,
    Path,
    Size,
    Test,
    Value,
    Values,
)

_TURNED: Mapping[str, str] = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def key_condition(test: Test, values: Values) -> KeyCondition:
    """Return the tests of a key condition, each attribute's left of its values.

    Raises DynamoError for what no key condition may say.
    """
    tests: dict[str, KeyTest] = {}
    _add(test, values, tests)
    return KeyCondition(tuple(tests.values()))


def _add(test: Test, values: Values, tests: dict[str, KeyTest]) -> None:
    op: str
    operands: tuple[Operand, ...]
    match test:
        case And(terms):
            for term in terms:
                _add(term, values, tests)
            return
        case Or():
            raise _operator("OR")
        case Not():
            raise _operator("NOT")
        case In():
            raise _operator("IN")
        case Compare("<>", _, _):
            raise _operator("<>")
        case Compare(op, left, right):
            operands = (left, right)
        case Between(of, low, high):
            op, operands = "between", (of, low, high)
            _first_is_path("BETWEEN", of)
        case Function(name, args):
            if name != "begins_with":
                raise _operator(name)
            op, operands = name, args
            _first_is_path(name, args[0])
        case _ as never:
            assert_never(never)
    name, place = _attribute(operands)
    if name in tests:
        raise validation("KeyConditionExpressions must only contain one condition per key")
    given = [values[value.name] for value in operands if isinstance(value, Value)]
    tests[name] = KeyTest(name, _TURNED[op] if place else op, tuple(given))


def _first_is_path(operator: str, operand: Operand) -> None:
    if not isinstance(operand, Path):
        raise validation(
            f"Invalid condition in KeyConditionExpression: {operator} operator must have the key "
            "attribute as its first operand"
        )


def _attribute(operands: tuple[Operand, ...]) -> tuple[str, int]:
    """Return the one attribute of a condition, and its place."""
    found: tuple[str, int] | None = None
    for place, operand in enumerate(operands):
        if isinstance(operand, Size):
            raise validation("KeyConditionExpressions cannot contain nested operations")
        if isinstance(operand, Path):
            if found is not None:
                raise validation(
                    "Invalid condition in KeyConditionExpression: "
                    "Multiple attribute names used in one condition"
                )
            if len(operand.parts) > 1:
                raise validation(
                    "KeyConditionExpressions cannot have conditions on nested attributes"
                )
            found = str(operand.parts[0]), place
    if found is None:
        raise validation("Invalid condition in KeyConditionExpression: No key attribute specified")
    return found


def _operator(name: str) -> DynamoError:
    return validation(f"Invalid operator used in KeyConditionExpression: {name}")

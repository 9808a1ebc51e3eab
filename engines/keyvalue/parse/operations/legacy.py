"""Checks of the parameters that came before expressions: conditions, Expected, AttributeUpdates.

Developer Guide, "Legacy conditional parameters". Their values are made canonical in place; what
they mean is `parse.legacy`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engines.keyvalue.errors import DynamoError, invalid_parameter, validation
from engines.keyvalue.parse.attribute_values import canonical
from engines.keyvalue.parse.operations.plan import Fields, Parsed, Step
from engines.keyvalue.parse.operations.steps import check_attribute_names
from engines.keyvalue.parse.ordering import is_greater
from engines.keyvalue.values import AttributeValue, type_of

_SCALARS = frozenset(("S", "N", "B"))
_ANY = frozenset(("S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"))
_CONTAINED = frozenset(("S", "N", "B", "BOOL", "NULL"))
_SETS = frozenset(("SS", "NS", "BS"))
_MANY = 1 << 30
KEY_CONDITIONS_MAX = 2

# ComparisonOperator -> least and most arguments, types that it compares with.
_OPERATORS: Mapping[str, tuple[int, int, frozenset[str]]] = {
    "BEGINS_WITH": (1, 1, frozenset(("S", "B"))),
    "BETWEEN": (2, 2, _SCALARS),
    "CONTAINS": (1, 1, _CONTAINED),
    "EQ": (1, 1, _ANY),
    "GE": (1, 1, _SCALARS),
    "GT": (1, 1, _SCALARS),
    "IN": (1, _MANY, _SCALARS),
    "LE": (1, 1, _SCALARS),
    "LT": (1, 1, _SCALARS),
    "NE": (1, 1, _ANY),
    "NOT_CONTAINS": (1, 1, _CONTAINED),
    "NOT_NULL": (0, 0, _ANY),
    "NULL": (0, 0, _ANY),
}


def conditions(member: str) -> Step:
    """Check a map of conditions: QueryFilter, ScanFilter, KeyConditions."""

    def step(parsed: Parsed) -> None:
        for condition in parsed.fields.get(member, {}).values():
            arguments = _canonical_arguments(condition)
            _check_arguments(condition["ComparisonOperator"], arguments)

    return step


def key_conditions_count(parsed: Parsed) -> None:
    """Refuse a Query without a condition on its key, or with more than a key has attributes."""
    fields = parsed.fields
    if "KeyConditions" in fields and not 1 <= len(fields["KeyConditions"]) <= KEY_CONDITIONS_MAX:
        raise wrong_count()
    if "KeyConditions" not in fields and "KeyConditionExpression" not in fields:
        raise validation(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in "
            "the request."
        )


def wrong_count() -> DynamoError:
    """Say how many conditions a key can have."""
    return validation("Conditions can be of length 1 or 2 only")


def conditional_operator(member: str) -> Step:
    """Refuse a ConditionalOperator that has nothing to join."""

    def step(parsed: Parsed) -> None:
        if "ConditionalOperator" not in parsed.fields:
            return
        count = len(parsed.fields.get(member, ()))
        if not count:
            raise validation("ConditionalOperator cannot be used without Filter or Expected")
        if count == 1:
            raise validation(
                "ConditionalOperator can only be used when Filter or Expected has two or more "
                "elements"
            )

    return step


def expected(parsed: Parsed) -> None:
    """Check what a conditional write expects of each attribute."""
    for name, wish in parsed.fields.get("Expected", {}).items():
        if "Value" in wish:
            wish["Value"] = canonical(wish["Value"])
        arguments = _canonical_arguments(wish)
        if "Value" in wish and "AttributeValueList" in wish:
            raise _about(name, "Value and AttributeValueList cannot be used together")
        if "ComparisonOperator" in wish:
            _check_compared(name, wish, [wish["Value"]] if "Value" in wish else arguments)
        else:
            _check_existing(name, wish)


def _check_compared(name: str, wish: Fields, arguments: Sequence[AttributeValue]) -> None:
    operator = wish["ComparisonOperator"]
    if "Exists" in wish:
        raise _about(name, "Exists and ComparisonOperator cannot be used together")
    is_alone = "Value" not in wish and "AttributeValueList" not in wish
    if is_alone and operator not in ("NULL", "NOT_NULL"):
        raise _about(
            name, f"Value or AttributeValueList must be used with ComparisonOperator: {operator}"
        )
    _check_arguments(operator, arguments)


def _check_existing(name: str, wish: Fields) -> None:
    if "AttributeValueList" in wish:
        raise _about(name, "AttributeValueList can only be used with a ComparisonOperator")
    exists = wish.get("Exists")
    if "Value" not in wish and exists is not False:
        shown = "null" if exists is None else "true"
        raise _about(name, f"Value must be provided when Exists is {shown}")
    if "Value" in wish and exists is False:
        raise _about(name, "Value cannot be used when Exists is false")


def attribute_updates(parsed: Parsed) -> None:
    """Check what an UpdateItem does with each attribute."""
    attributes = parsed.fields.get("AttributeUpdates", {})
    check_attribute_names(attributes)
    for update in attributes.values():
        action = update.get("Action", "PUT")
        if "Value" not in update:
            if action != "DELETE":
                raise invalid_parameter(
                    "Only DELETE action is allowed when no attribute value is specified"
                )
            continue
        update["Value"] = canonical(update["Value"])
        kind = type_of(update["Value"])
        if action == "DELETE" and kind not in _SETS:
            raise invalid_parameter(
                f"DELETE action with value is not supported for the type {kind}"
            )
        if action == "ADD" and kind not in _SETS and kind not in ("N", "L"):
            raise invalid_parameter(f"ADD action is not supported for the type {kind}")


def _canonical_arguments(condition: Fields) -> list[AttributeValue]:
    arguments = [canonical(value) for value in condition.get("AttributeValueList", ())]
    if "AttributeValueList" in condition:
        condition["AttributeValueList"] = arguments
    return arguments


def _check_arguments(operator: str, arguments: Sequence[AttributeValue]) -> None:
    """Check count, types and order of what an attribute is compared with."""
    least, most, types = _OPERATORS[operator]
    if not least <= len(arguments) <= most:
        raise invalid_parameter(
            f"Invalid number of argument(s) for the {operator} ComparisonOperator"
        )
    for argument in arguments:
        kind = type_of(argument)
        if kind not in types:
            raise invalid_parameter(
                f"ComparisonOperator {operator} is not valid for {kind} AttributeValue type"
            )
    if len({type_of(argument) for argument in arguments}) > 1:
        raise invalid_parameter("AttributeValues inside AttributeValueList must be of same type")
    if operator == "BETWEEN" and is_greater(arguments[0], arguments[1]):
        raise validation(
            "The BETWEEN condition was provided a range where the lower bound is greater than the "
            "upper bound"
        )


def _about(name: str, message: str) -> DynamoError:
    return invalid_parameter(f"{message} for Attribute: {name}")

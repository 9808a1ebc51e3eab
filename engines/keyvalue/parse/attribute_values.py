"""One attribute value: checked, and in the one form that the engine keeps.

    {"N": "0012.50e1"} -> {"N": "125"}        {"SS": ["a", "a"]} -> ValidationException

Input has the JSON types of the service model already (`shapes.attribute_value` sees to it): strings
where strings belong, booleans, canonical base64. Here is what DynamoDB checks after that: exactly
one type, sets, numbers, nesting. Values that are canonical come back as the same objects.

Limits: Developer Guide, "Constraints in Amazon DynamoDB": 38 digits, 1E-130 to 9.99...E+125, 32
levels, of which the attribute itself is the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from engines.keyvalue.errors import DynamoError, invalid_parameter, validation
from engines.keyvalue.values import AttributeValue, Item
from engines.kit.errors import Reason

DIGITS_MAX = 38
EXPONENT_MAX = 125
EXPONENT_MIN = -130
LEVELS_MAX = 32
# How much of a refused text its message repeats.
_SHOWN_LENGTH_MAX = 1024
# More digits than this in an exponent cannot be made up for by zeros of any body's mantissa.
_EXPONENT_DIGITS_MAX = 9

_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?)([0-9]+))?")


class FormError(DynamoError):
    """A value is wrong by its form: no type or several, an empty set, a NULL that is not true.

    Told apart because of a starting key it is said that the key is invalid; of numbers and
    duplicates in it, it is not.
    """


NO_TYPE = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
MANY_TYPES = (
    "Supplied AttributeValue has more than one datatypes set, "
    "must contain exactly one of the supported datatypes"
)
_OVERFLOW = (
    "Number overflow. Attempting to store a number with magnitude larger than supported range"
)
_UNDERFLOW = (
    "Number underflow. Attempting to store a number with magnitude smaller than supported range"
)


def _malformed(message: str) -> FormError:
    return FormError(Reason.MALFORMED, "ValidationException", message)


def _invalid_form(message: str) -> FormError:
    return _malformed(f"One or more parameter values were invalid: {message}")


def canonical(value: AttributeValue, level: int = 1) -> AttributeValue:
    """Return the canonical form of a value whose attribute stands at `level`, or refuse it."""
    if len(value) == 1:
        for kind, content in value.items():
            return _CANONICAL[kind](value, content, level)
    if not value:
        raise _malformed(NO_TYPE)
    # A member that is wrong by itself is told of before there being several.
    for kind, content in value.items():
        _CANONICAL[kind](value, content, level)
    raise _malformed(MANY_TYPES)


def canonical_item(item: Mapping[str, AttributeValue]) -> Item:
    """Return an item, or a key, all of whose values are canonical."""
    return {name: canonical(value) for name, value in item.items()}


def canonical_number(text: str) -> str:
    """Return the one text of a number: no exponent, no sign but "-", no needless zeros."""
    if text.isdigit() and text.isascii() and len(text) <= DIGITS_MAX and text[0] != "0":
        return text
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        shown = f": {text[:_SHOWN_LENGTH_MAX]}" if text else ""
        raise validation(f"The parameter cannot be converted to a numeric value{shown}")
    sign, whole, fraction, exponent_sign, exponent_digits = match.groups("")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    exponent = _exponent(exponent_sign, exponent_digits) - len(fraction)
    significant = digits.rstrip("0")
    exponent += len(digits) - len(significant)
    _check_range(len(significant), exponent)
    return ("-" if sign == "-" else "") + _plain(significant, exponent)


def _exponent(sign: str, digits: str) -> int:
    """Return what stands behind the E; 0 if nothing does."""
    digits = digits.lstrip("0")
    if len(digits) > _EXPONENT_DIGITS_MAX:
        raise validation(_UNDERFLOW if sign == "-" else _OVERFLOW)
    return int(sign + (digits or "0"))


def _check_range(count: int, exponent: int) -> None:
    """Refuse a number of so many significant digits, the last of which is worth 10**exponent."""
    if count > DIGITS_MAX:
        raise validation("Attempting to store more than 38 significant digits in a Number")
    if exponent + count - 1 > EXPONENT_MAX:
        raise validation(_OVERFLOW)
    if exponent + count - 1 < EXPONENT_MIN:
        raise validation(_UNDERFLOW)


def _plain(digits: str, exponent: int) -> str:
    if exponent >= 0:
        return digits + "0" * exponent
    point = len(digits) + exponent
    if point > 0:
        return f"{digits[:point]}.{digits[point:]}"
    return f"0.{'0' * -point}{digits}"


def _same(value: AttributeValue, content: object, level: int) -> AttributeValue:
    return value


def _number(value: AttributeValue, content: str, level: int) -> AttributeValue:
    text = canonical_number(content)
    return value if text == content else {"N": text}


def _null(value: AttributeValue, content: bool, level: int) -> AttributeValue:
    if not content:
        raise _invalid_form("Null attribute value types must have the value of true")
    return value


def _list(value: AttributeValue, content: list[AttributeValue], level: int) -> AttributeValue:
    _check_level(level)
    return {"L": [canonical(element, level + 1) for element in content]}


def _map(value: AttributeValue, content: Item, level: int) -> AttributeValue:
    _check_level(level)
    return {"M": {name: canonical(inner, level + 1) for name, inner in content.items()}}


def _check_level(level: int) -> None:
    """Refuse a list or map where only a scalar may stand: what is in it stands one level deeper."""
    if level >= LEVELS_MAX:
        raise too_deep()


def too_deep() -> DynamoError:
    """More levels than DynamoDB stores."""
    return validation(
        "Nesting Levels have exceeded supported limits: "
        "Attributes in the item have nested levels beyond supported limit"
    )


def _strings(value: AttributeValue, content: list[str | None], level: int) -> AttributeValue:
    if not content:
        raise _invalid_form("An string set  may not be empty")
    if None in content:
        raise invalid_parameter("An string set may not have a null string as a member")
    if len(set(content)) < len(content):
        raise invalid_parameter(f"Input collection {_shown(content)} contains duplicates.")
    return value


def _numbers(value: AttributeValue, content: list[str | None], level: int) -> AttributeValue:
    if not content:
        raise invalid_parameter("An number set  may not be empty")
    texts = [canonical_number(text or "") for text in content]
    if len(set(texts)) < len(texts):
        raise validation("Input collection contains duplicates")
    return {"NS": texts}


def _binaries(value: AttributeValue, content: list[str | None], level: int) -> AttributeValue:
    if not content:
        raise _invalid_form("Binary sets should not be empty")
    if None in content:
        raise invalid_parameter("Binary sets may not contain null values")
    if len(set(content)) < len(content):
        raise invalid_parameter(
            f"Input collection {_shown(content)}of type BS contains duplicates."
        )
    return value


def _shown(content: Collection[str | None]) -> str:
    text = ", ".join(map(str, content))
    return f"[{text[:_SHOWN_LENGTH_MAX]}]"


_CANONICAL: Mapping[str, Callable[[AttributeValue, Any, int], AttributeValue]] = {
    "S": _same,
    "N": _number,
    "B": _same,
    "BOOL": _same,
    "NULL": _null,
    "M": _map,
    "L": _list,
    "SS": _strings,
    "NS": _numbers,
    "BS": _binaries,
}

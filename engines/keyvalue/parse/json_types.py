"""From decoded JSON to the types of the service model, with DynamoDB's words where they differ.

Its service framework is written in Java, and so are its messages: what is said depends on the type
that was found, on the one that was expected, and on whether the place is a member of a structure (a
"field") or an element of a list or map (a "value").

Each function takes what `orjson` made and returns the value of its type, or raises a
SerializationException. Strings, booleans and numbers come back as they are; members of structures
that are null or unknown are dropped.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import Any

from engines.keyvalue.errors import DynamoError, serialization
from engines.keyvalue.parse.attribute_values import LEVELS_MAX, too_deep
from engines.keyvalue.values import AttributeValue

Typed = Callable[[Any], Any]

PACKAGE = "com.amazonaws.dynamodb.v20120810."
STRING = "java.lang.String"
FIELD = "Unexpected field type"
ELEMENT = "Unexpected value type in payload"
# What a list or map in a list or map is called by the framework.
CAST = (
    "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class "
    "java.lang.Class (sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and "
    "java.lang.Class are in module java.base of loader 'bootstrap')"
)
_STRUCTURE = "Start of structure or map found where not expected"
_LAST_CHARACTER = "Invalid last non-pad Base64 character dectected"
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def text(value: Any) -> str:
    """A string."""
    if type(value) is str:
        return value
    raise _not_a(value, "java.lang.String", "String")


def flag(value: Any) -> bool:
    """A boolean, or one of the words that the framework takes for one."""
    if value is True or value is False:
        return value is True
    if type(value) is str:
        found = _FLAGS.get(value.lower())
        if found is None:
            raise serialization("Unexpected token received from parser")
        return found
    raise _not_a(value, "java.lang.Boolean", "Boolean")


def whole(name: str, bits: int) -> Callable[[Any], int]:
    """Return the reader of a whole number of so many bits; decimals lose their fraction."""
    limit = 1 << (bits - 1)

    def typed(value: Any) -> int:
        if type(value) is int or type(value) is float:
            number = int(value)
            if -limit <= number < limit:
                return number
        raise _not_a(value, f"java.lang.{name}", name)

    return typed


def real(name: str, java: str) -> Callable[[Any], float]:
    """Return the reader of any number."""

    def typed(value: Any) -> float:
        if type(value) is int or type(value) is float:
            return value
        raise _not_a(value, java, name)

    return typed


def blob(value: Any) -> str:
    """Base64 text of the one form that its bytes have."""
    if type(value) is not str:
        if type(value) in (dict, list):
            raise _not_a(value, "java.nio.ByteBuffer", "")
        raise serialization("only base-64-encoded strings are convertible to bytes")
    if len(value) % 4:
        raise serialization(
            f"Base64 encoded length is expected a multiple of 4 bytes but found: {len(value)}"
        )
    try:
        raw = binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise serialization(_LAST_CHARACTER) from None
    # Bits behind the last byte must be zero, so that equal bytes have equal texts.
    if binascii.b2a_base64(raw, newline=False) != value.encode():
        raise serialization(_LAST_CHARACTER)
    return value


def elements(typed: Typed, wrong: str, *, absent: Callable[[], Any] | None = None) -> Typed:
    """Return the reader of a list; `absent` makes what stands for a null in it."""

    def typed_list(value: Any) -> list[Any]:
        if type(value) is list:
            if None in value:
                return [_absent(absent) if each is None else typed(each) for each in value]
            return [typed(each) for each in value]
        raise _not_a(value, "", wrong)

    return typed_list


def entries(
    typed: Typed, java: str, wrong: str, *, absent: Callable[[], Any] | None = None
) -> Typed:
    """Return the reader of a map from strings; `java` is the type of its values."""
    collection = f"java.util.Map<java.lang.String, {java}>"

    def typed_map(value: Any) -> dict[str, Any]:
        if type(value) is dict:
            return {
                name: _absent(absent) if each is None else typed(each)
                for name, each in value.items()
            }
        raise _no_structure(value, collection, wrong)

    return typed_map


def members(typed: Mapping[str, Typed], java: str, wrong: str) -> Typed:
    """Return the reader of a structure."""
    collection = f"class {java}"

    def typed_structure(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _no_structure(value, collection, wrong)
        found = {}
        for name, content in value.items():
            reader = typed.get(name)
            if reader is not None and content is not None:
                found[name] = reader(content)
        return found

    return typed_structure


def attribute_value(value: Any) -> AttributeValue:
    """An attribute value that stands in a list or map."""
    return _attribute_value(value, ELEMENT, 1)


def attribute_value_field(value: Any) -> AttributeValue:
    """An attribute value that is a member of a structure."""
    return _attribute_value(value, FIELD, 1)


def _attribute_value(value: Any, wrong: str, level: int) -> AttributeValue:
    if type(value) is not dict:
        raise _no_structure(value, f"class {PACKAGE}AttributeValue", wrong)
    if len(value) == 1:
        for kind, content in value.items():
            if kind == "S" and type(content) is str:
                return value
            if kind in _KINDS and content is not None:
                found = _KINDS[kind](content, level)
                return value if found is content else {kind: found}
        return {}
    return {
        kind: _KINDS[kind](content, level)
        for kind, content in value.items()
        if kind in _KINDS and content is not None
    }


def _list(content: Any, level: int) -> list[AttributeValue]:
    if type(content) is not list:
        raise _not_a(content, "", FIELD)
    if level >= LEVELS_MAX:
        raise too_deep()
    return [{} if each is None else _attribute_value(each, ELEMENT, level + 1) for each in content]


def _map(content: Any, level: int) -> dict[str, AttributeValue]:
    if type(content) is not dict:
        collection = f"java.util.Map<java.lang.String, {PACKAGE}AttributeValue>"
        raise _no_structure(content, collection, FIELD)
    if level >= LEVELS_MAX:
        raise too_deep()
    return {
        name: {} if each is None else _attribute_value(each, ELEMENT, level + 1)
        for name, each in content.items()
    }


def _flat(typed: Typed) -> Callable[[Any, int], Any]:
    def typed_content(content: Any, level: int) -> Any:
        return typed(content)

    return typed_content


_KINDS: Mapping[str, Callable[[Any, int], Any]] = {
    "S": _flat(text),
    "N": _flat(text),
    "B": _flat(blob),
    "BOOL": _flat(flag),
    "NULL": _flat(flag),
    "SS": _flat(elements(text, FIELD)),
    "NS": _flat(elements(text, FIELD)),
    "BS": _flat(elements(blob, FIELD)),
    "L": _list,
    "M": _map,
}


def _absent(make: Callable[[], Any] | None) -> Any:
    return None if make is None else make()


def _token(value: Any) -> str:
    """Return what the framework's JSON parser calls a scalar."""
    if value is True:
        return "TRUE_VALUE"
    if value is False:
        return "FALSE_VALUE"
    if type(value) is str:
        return "STRING_VALUE"
    return "NUMBER_VALUE" if type(value) is int else "DECIMAL_VALUE"


def _not_a(value: Any, java: str, name: str) -> DynamoError:
    """No scalar of type `name`, or no list (then `java` is empty and `name` all of the message)."""
    if type(value) is dict:
        return serialization(_STRUCTURE)
    if not java:
        return serialization(name)
    if type(value) is list:
        return serialization(f"Unrecognized collection type class {java}")
    return serialization(f"{_token(value)} cannot be converted to {name}")


def _no_structure(value: Any, collection: str, wrong: str) -> DynamoError:
    if type(value) is list:
        return serialization(f"Unrecognized collection type {collection}")
    return serialization(wrong)

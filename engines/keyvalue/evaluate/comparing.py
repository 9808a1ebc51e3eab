"""Attribute values compared: equality, order, size, what contains and begins with what.

Everything here is about values that are there; what an absent one means is said in `conditions`.
Numbers are canonical, so equal ones have equal text.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any

from engines.keyvalue.capacity import value_size
from engines.keyvalue.parse.ordering import RANKS
from engines.keyvalue.values import AttributeValue

_UNSIZED = frozenset(("N", "BOOL", "NULL"))
SCALARS = frozenset(("S", "N", "B", "BOOL", "NULL"))
SETS = frozenset(("SS", "NS", "BS"))
# The type of a set's elements.
_ELEMENTS: Mapping[str, str] = {"SS": "S", "NS": "N", "BS": "B"}

_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


def equal(one: AttributeValue, two: AttributeValue) -> bool:
    """Tell whether two values are equal: of one type, sets in any order, documents deep."""
    for kind, content in one.items():
        other = two.get(kind)
        if other is None:
            return False
        if kind in SCALARS:
            return bool(content == other)
        if len(content) != len(other):
            return False
        if kind == "L":
            return all(map(equal, content, other))
        if kind == "M":
            return content.keys() == other.keys() and all(
                equal(value, other[name]) for name, value in content.items()
            )
        return bool(content == other) or set(content) == set(other)
    return False


def ordered(op: str, one: AttributeValue, two: AttributeValue) -> bool:
    """Tell whether `one` `op` `two`, of < <= > >=; False for two types, or one without order."""
    for kind, content in one.items():
        other = two.get(kind)
        rank = RANKS.get(kind)
        if other is not None and rank is not None:
            return _ORDERS[op](rank(content), rank(other))
    return False


def size(value: AttributeValue) -> int | None:
    """Return the size of a value: characters of strings, bytes of binaries, elements of the others.

    Characters are Java's, of 16 bits each. None for the types that have no size.
    """
    for kind, content in value.items():
        if kind == "S":
            return len(content) if content.isascii() else len(content.encode("utf-16-le")) // 2
        if kind == "B":
            return value_size(value)
        return None if kind in _UNSIZED else len(content)
    return None


def begins_with(value: AttributeValue, prefix: AttributeValue) -> bool:
    """Tell whether a string or binary begins with another."""
    if "S" in value and "S" in prefix:
        return bool(value["S"].startswith(prefix["S"]))
    if "B" in value and "B" in prefix:
        return b64decode(value["B"]).startswith(b64decode(prefix["B"]))
    return False


def contains(value: AttributeValue, part: AttributeValue) -> bool:
    """Tell whether `part` is a substring of a string or binary, or an element of a set or list."""
    for kind, content in value.items():
        if kind == "S":
            return "S" in part and part["S"] in content
        if kind == "B":
            return "B" in part and b64decode(part["B"]) in b64decode(content)
        if kind in SETS:
            element = part.get(_ELEMENTS[kind])
            return element is not None and element in content
        if kind == "L":
            # A scalar is found at C's speed; only documents and sets can be equal and look unlike.
            if not SCALARS.isdisjoint(part):
                return part in content
            return any(equal(element, part) for element in content)
    return False

"""The order of attribute values, which only strings, numbers and binaries have.

Strings are ordered by their UTF-8 bytes, which is the order of Python's code points; binaries by
unsigned bytes, which their base64 text is not.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import Any

from engines.keyvalue.values import AttributeValue

# Exact for two numbers of 38 digits anywhere between 1E-130 and 1E+126.
EXACT = Context(prec=300)


def _same(content: str) -> str:
    return content


# What to compare of values of the same type; other types have no order.
RANKS: Mapping[str, Callable[[str], Any]] = {"S": _same, "N": Decimal, "B": b64decode}


def is_greater(one: AttributeValue, two: AttributeValue) -> bool:
    """Tell whether a value comes after another of the same type; False for types without order."""
    for kind, content in one.items():
        rank = RANKS.get(kind)
        if rank is not None and kind in two:
            return bool(rank(content) > rank(two[kind]))
    return False

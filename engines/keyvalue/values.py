"""What an item is in this engine: DynamoDB's own JSON, decoded and nothing more.

    {"S": "x"}  {"N": "12"}  {"B": "<base64>"}  {"BOOL": true}  {"NULL": true}
    {"M": {...}}  {"L": [...]}  {"SS": [...]}  {"NS": [...]}  {"BS": [...]}

After `parse` the text of each number is canonical (no exponent, no needless zeros), base64 is
canonical and sets hold nothing twice. An item is stored as `encode` gives it, so what a client
wants whole is sent without being decoded.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson

AttributeValue: TypeAlias = dict[str, Any]
Item: TypeAlias = dict[str, AttributeValue]

KEY_TYPES = ("S", "N", "B")


def encode(item: Item) -> bytes:
    """Return the bytes that an item is stored as and sent as."""
    return orjson.dumps(item)


def decode(stored: bytes) -> Item:
    """Return the item that `encode` made these bytes of."""
    item: Item = orjson.loads(stored)
    return item


def type_of(value: AttributeValue) -> str:
    """Return the data type descriptor of a value: "S", "N" ..."""
    return next(iter(value))

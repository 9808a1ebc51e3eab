"""Sizes of items as DynamoDB counts them, and the capacity units that they cost.

"DynamoDB item sizes and formats" and "Read/write capacity" of the Developer Guide: names count
with their UTF-8 bytes; a number has about one byte for two digits, and one; a list or map has 3
bytes, and one for each element. A read unit is 4 KB read consistently (half of one otherwise,
twice in a transaction), a write unit is 1 KB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from engines.keyvalue.values import AttributeValue, Item

ITEM_BYTES_MAX = 400 * 1024
READ_UNIT_BYTES = 4096
WRITE_UNIT_BYTES = 1024
# What one page of Query and Scan may have read.
PAGE_BYTES_MAX = 1024 * 1024
_NESTED_BYTES = 3
_PAGE_BLOCK_BYTES = 3072
_PAGE_HEADER_BYTES = 18


def item_size(item: Item) -> int:
    """Return the size of an item in bytes."""
    total = 0
    for name, value in item.items():
        total += len(name) if name.isascii() else len(name.encode())
        total += value_size(value)
    return total


def value_size(value: AttributeValue) -> int:
    """Return the size of one attribute's value in bytes, without its name."""
    for kind, content in value.items():
        return _SIZES[kind](content)
    return 0


def number_size(text: str) -> int:
    """Return the size of a number given in canonical text.

    Two digits share a byte; a pair begins at an even power of ten, so an even count of digits may
    need a byte more.
    """
    digits, exponent = digits_of(text)
    if not digits:
        return 1
    count = len(digits)
    straddles = count % 2 == 0 and exponent % 2 == 0
    return 1 + (count + 1) // 2 + straddles + text.startswith("-")


def digits_of(text: str) -> tuple[str, int]:
    """Return the significant digits of a canonical number and the power of ten of the first.

    ("125", 1) is 12.5; zero is ("", 0).
    """
    whole, _, fraction = text.lstrip("-").partition(".")
    if whole != "0":
        return (whole + fraction).rstrip("0"), len(whole) - 1
    digits = fraction.lstrip("0")
    return digits, len(digits) - len(fraction) - 1 if digits else 0


def page_size(item: Item, range_name: str | None) -> int:
    """Return what an item counts towards the 1 MB of a page, in bytes.

    DynamoDB measures pages by its stored form, which is not documented: names are kept apart, and
    each 3 KB of an item repeats a header with the sort key. The figures are those that dynalite's
    tests found.
    """
    size = key_size = 0
    for name, value in item.items():
        if name == range_name:
            key_size = value_size(value)
        else:
            size += 1 + _stored_size(value)
    return 2 + size + (1 + (1 + size) // _PAGE_BLOCK_BYTES) * (_PAGE_HEADER_BYTES + key_size)


def read_units(size_bytes: int, *, consistent: bool, transactional: bool = False) -> float:
    """Return the read capacity units of reading so many bytes; absent items count as one block."""
    blocks = max(1, math.ceil(size_bytes / READ_UNIT_BYTES))
    if transactional:
        return float(blocks * 2)
    return float(blocks) if consistent else blocks / 2


def write_units(size_bytes: int, *, transactional: bool = False) -> float:
    """Return the write capacity units of writing an item of so many bytes."""
    blocks = max(1, math.ceil(size_bytes / WRITE_UNIT_BYTES))
    return float(blocks * 2 if transactional else blocks)


def _stored_size(value: AttributeValue) -> int:
    """Return the size of a value in the form that pages are measured by."""
    for kind, content in value.items():
        size = _SIZES[kind](content)
        if kind == "S":
            return size + (1 if size < 128 else 2 if size < 16_384 else 3)
        if kind in ("B", "N"):
            return size + 1
        if kind in ("SS", "NS", "BS"):
            return size + len(content) + 1
        if kind == "NULL":
            return 0
        if kind == "L":
            return _NESTED_BYTES + sum(1 + _stored_size(element) for element in content)
        if kind == "M":
            names = len(content)
            return _NESTED_BYTES + names * 2 + sum(map(_stored_size, content.values()))
        return size
    return 0


def _string_size(content: str) -> int:
    return len(content) if content.isascii() else len(content.encode())


def _binary_size(content: str) -> int:
    """Return how many bytes base64 text stands for."""
    return len(content) // 4 * 3 - content.count("=", -2)


def _list_size(content: list[AttributeValue]) -> int:
    return _NESTED_BYTES + sum(1 + value_size(element) for element in content)


def _map_size(content: Mapping[str, AttributeValue]) -> int:
    return _NESTED_BYTES + sum(
        1 + _string_size(name) + value_size(value) for name, value in content.items()
    )


_SIZES: Mapping[str, Callable[[Any], int]] = {
    "S": _string_size,
    "N": number_size,
    "B": _binary_size,
    "BOOL": lambda content: 1,
    "NULL": lambda content: 1,
    "M": _map_size,
    "L": _list_size,
    "SS": lambda content: sum(map(_string_size, content)),
    "NS": lambda content: sum(map(number_size, content)),
    "BS": lambda content: sum(map(_binary_size, content)),
}

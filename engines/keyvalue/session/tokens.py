"""NextToken of ExecuteStatement: a place in what a SELECT reads, bound to the statement.

    base64 of {"d": digest of the statement and its parameters, "p": partition, "k": key or null}

A token says nothing that its owner may not read: it is checked for its form, not signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from engines.keyvalue.errors import DynamoError, validation
from engines.keyvalue.parse.attribute_values import canonical_item
from engines.keyvalue.values import KEY_TYPES, Item

_DIGEST_CHARACTERS = 32
# A table's key and an index's key.
_KEYS_MAX = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Behind an item of one of the partitions, or at the beginning of it."""

    partition: int
    key: Item | None


BEGIN = Place(0, None)


def invalid() -> DynamoError:
    """The token is none that this statement was answered with."""
    return validation("Invalid NextToken: it does not belong to this statement")


def digest_of(*parts: Any) -> str:
    """Return the digest that binds a token to a statement."""
    data = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()[:_DIGEST_CHARACTERS]


def write(place: Place, digest: str) -> str:
    """Return the token of a place."""
    return base64.b64encode(
        orjson.dumps({"d": digest, "p": place.partition, "k": place.key})
    ).decode()


def read(text: str, digest: str) -> Place:
    """Return the place of a token. Raises DynamoError."""
    try:
        content = orjson.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise invalid() from None
    if not isinstance(content, dict) or content.get("d") != digest:
        raise invalid()
    partition, key = content.get("p"), content.get("k")
    if type(partition) is not int or partition < 0:
        raise invalid()
    return Place(partition, None if key is None else _key(key))


def _key(given: Any) -> Item:
    """Return a start key if it has the form of one; whether it fits is looked at with the table."""
    if not isinstance(given, dict) or not 1 <= len(given) <= _KEYS_MAX:
        raise invalid()
    for value in given.values():
        if not isinstance(value, dict) or len(value) != 1:
            raise invalid()
        for kind, content in value.items():
            if kind not in KEY_TYPES or not isinstance(content, str):
                raise invalid()
            if kind == "B" and not _is_base64(content):
                raise invalid()
    return canonical_item(given)


def _is_base64(text: str) -> bool:
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except ValueError:
        return False

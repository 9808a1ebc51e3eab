"""Key attributes as bytes: what rows are found, ordered and spread by.

    pk   bytes of the partition key; a long one is its beginning and a SHA-256 of the whole, so
         that every key fits into a b-tree. Nothing but equality is asked of it.
    sk   32 bits of MD5 over "Outliers" and the key: the order of scans, and what segments are
         ranges of. DynamoDB's own order, as dynalite's tests found it.
    rk   bytes of the sort key, in whose order queries read

The bytes of a string are its UTF-8, those of binary itself; those of a number are `ordkey`'s. The
type of a key is its table's, so no tag is needed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from engines.keyvalue.capacity import digits_of
from engines.kit.ordkey import OrdKey, Tags

PARTITION_BYTES_MAX = 2048
SORT_BYTES_MAX = 1024
# Longer partition keys are stored as a beginning and a digest.
STORED_BYTES_MAX = 255
_PREFIX_BYTES = STORED_BYTES_MAX - hashlib.sha256().digest_size
_HASH_SALT = b"Outliers"
_SIGN_BIT = 1 << 31
HASHES = 1 << 32

# Only numbers are encoded; the other tags are not used.
_NUMBERS = OrdKey(
    Tags(
        null=1, number=2, string=3, object=4, array=5, bytes=6, object_id=7, boolean=8, date=9
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeyBytes:
    """The stored form of one item's primary key."""

    sk: int
    pk: bytes
    rk: bytes


def string_bytes(text: str) -> bytes:
    """Return the key bytes of a string."""
    return text.encode()


def binary_bytes(text: str) -> bytes:
    """Return the key bytes of binary, which is given in base64."""
    return binascii.a2b_base64(text)


def number_bytes(text: str) -> bytes:
    """Return the key bytes of a canonical number: their order is the order of numbers."""
    value = Decimal(text) if "." in text else int(text)
    return _NUMBERS.encode(value)[1:]


KEY_BYTES: Mapping[str, Callable[[str], bytes]] = {
    "S": string_bytes,
    "N": number_bytes,
    "B": binary_bytes,
}


def stored_partition(data: bytes) -> bytes:
    """Return what a partition key is stored as."""
    if len(data) <= STORED_BYTES_MAX:
        return data
    return data[:_PREFIX_BYTES] + hashlib.sha256(data).digest()


def hash_bytes(kind: str, text: str, data: bytes) -> bytes:
    """Return what of a key attribute goes into the hash; `data` are its key bytes."""
    return _hashed_number(text) if kind == "N" else data


def hash_digest(*parts: bytes) -> bytes:
    """Return the 4 bytes whose order is the order of scans."""
    return hashlib.md5(_HASH_SALT + b"".join(parts), usedforsecurity=False).digest()[:4]


def hash_number(*parts: bytes) -> int:
    """Return `hash_digest` as a signed number of the same order."""
    return int.from_bytes(hash_digest(*parts)) - _SIGN_BIT


def segment_range(segment: int, total: int) -> tuple[int, int]:
    """Return the first hash of a scan's segment and the last one."""
    first = -(-HASHES * segment // total)
    end = -(-HASHES * (segment + 1) // total)
    return first - _SIGN_BIT, end - 1 - _SIGN_BIT


def text_of_binary(data: bytes) -> str:
    """Return the base64 of binary key bytes."""
    return base64.b64encode(data).decode()


def _hashed_number(text: str) -> bytes:
    """Return the bytes of a number that DynamoDB hashes: an exponent, and digits in base 100.

    Those of a negative number are complemented, and end in 102 while there is room.
    """
    digits, exponent = digits_of(text)
    if not digits:
        return b"\x80"
    exponent += 1
    if exponent % 2:
        digits, exponent = "0" + digits, exponent + 1
    if len(digits) % 2:
        digits += "0"
    pairs = [int(digits[at : at + 2]) for at in range(0, len(digits), 2)]
    first = (exponent // 2 - 64) & 0xFF
    if not text.startswith("-"):
        return bytes([first, *(pair + 1 for pair in pairs)])
    end = [102] if len(pairs) < 20 else []
    return bytes([first ^ 0xFF, *(101 - pair for pair in pairs), *end])

"""Reads and changes keys of an inmemory instance: every read is bounded, whatever lies there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from tenants.console.explorer.access import KEYRING, Access
from tenants.console.explorer.sql import NEW_SECONDS
from tenants.core.errors import InvalidError

TIMEOUT_SECONDS = 5.0
KEYS_MAX = 100
ITEMS_MAX = 200
VALUE_BYTES_MAX = 64 * 1024
KEY_BYTES_MAX = 8 * 1024
# One request for a page of names with what each is: as many requests would cost as many units.
PAGE = """
local found = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local rows = {}
for _, key in ipairs(found[2]) do
  if #rows < 400 then
    rows[#rows + 1] = {key, redis.call('TYPE', key)['ok'], redis.call('PTTL', key)}
  end
end
return {found[1], rows}
"""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key; `ttl_ms` -1: it never expires."""

    key: bytes
    kind: str
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Some keys, and where to go on; "0" is the end."""

    rows: list[KeyRow]
    cursor: str


@dataclass(frozen=True, slots=True)
class Value:
    """A key's value or the beginning of it: `items` are (name, value) of whatever has parts."""

    row: KeyRow
    size: int
    text: bytes = b""
    items: tuple[tuple[bytes, bytes], ...] = ()
    is_cut: bool = False


class KeyGoneError(Exception):
    """The key is not there any more."""


@contextlib.contextmanager
def connected(access: Access) -> Iterator[redis.Redis]:
    """Sign in as a client; the data plane learns of a new credential within a second."""
    client = redis.Redis(
        host=access.host,
        port=access.port,
        username=access.username,
        password=access.password,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        client_name="weftkit-console",
        protocol=2,
    )
    try:
        _signed_in(client, access)
        yield client
    finally:
        client.close()


def _signed_in(client: redis.Redis, access: Access) -> None:
    deadline = access.made_at + NEW_SECONDS
    while True:
        try:
            client.ping()
            return
        except redis.AuthenticationError:
            if time.monotonic() > deadline:
                KEYRING.forget(access)
                raise
        time.sleep(0.1)


def key_page(client: redis.Redis, *, pattern: str, cursor: str, count: int = KEYS_MAX) -> KeyPage:
    """Return the next keys that match; there may be none although the end is not reached."""
    if not cursor.isdecimal() or len(cursor) > 20:
        raise InvalidError("this cursor is none of ours")
    answer: Any = client.eval(PAGE, 0, cursor, pattern.encode() or b"*", str(count))
    rows = [KeyRow(bytes(key), _word(kind), int(ttl)) for key, kind, ttl in answer[1]]
    return KeyPage(rows, _word(answer[0]))


def key_value(client: redis.Redis, key: bytes) -> Value:
    """Return a key's value, or as much of it as is shown; KeyGoneError if there is none."""
    kind = _word(client.type(key))
    if kind == "none":
        raise KeyGoneError
    row = KeyRow(key, kind, int(_any(client.pttl(key))))
    reader = READERS.get(kind)
    return reader(client, row) if reader is not None else Value(row, 0)


def _string(client: redis.Redis, row: KeyRow) -> Value:
    size = int(_any(client.strlen(row.key)))
    text: Any = client.getrange(row.key, 0, VALUE_BYTES_MAX - 1)
    return Value(row, size, text=bytes(text), is_cut=size > VALUE_BYTES_MAX)


def _list(client: redis.Redis, row: KeyRow) -> Value:
    size = int(_any(client.llen(row.key)))
    found: Any = client.lrange(row.key, 0, ITEMS_MAX - 1)
    return _parts(row, size, [(str(index).encode(), item) for index, item in enumerate(found)])


def _hash(client: redis.Redis, row: KeyRow) -> Value:
    size = int(_any(client.hlen(row.key)))
    _, found = _any(client.hscan(row.key, 0, count=ITEMS_MAX))
    return _parts(row, size, list(found.items()))


def _set(client: redis.Redis, row: KeyRow) -> Value:
    size = int(_any(client.scard(row.key)))
    _, found = _any(client.sscan(row.key, 0, count=ITEMS_MAX))
    return _parts(row, size, [(b"", item) for item in found])


def _sorted(client: redis.Redis, row: KeyRow) -> Value:
    size = int(_any(client.zcard(row.key)))
    found: Any = client.zrange(row.key, 0, ITEMS_MAX - 1, withscores=True)
    return _parts(row, size, [(f"{score:g}".encode(), item) for item, score in found])


def _stream(client: redis.Redis, row: KeyRow) -> Value:
    size = int(_any(client.xlen(row.key)))
    found: Any = client.xrange(row.key, count=ITEMS_MAX)
    parts = [
        (name, b" ".join(b"=".join(pair) for pair in fields.items())) for name, fields in found
    ]
    return _parts(row, size, parts)


def _parts(row: KeyRow, size: int, found: list[tuple[bytes, bytes]]) -> Value:
    """Return a value with parts, none of them longer than what is shown of a string."""
    shown: list[tuple[bytes, bytes]] = []
    left = VALUE_BYTES_MAX
    for name, value in found[:ITEMS_MAX]:
        shown.append((bytes(name)[:KEY_BYTES_MAX], bytes(value)[:left]))
        left -= len(value)
        if left <= 0:
            break
    return Value(row, size, items=tuple(shown), is_cut=len(shown) < size)


READERS: Mapping[str, Callable[[redis.Redis, KeyRow], Value]] = {
    "hash": _hash,
    "list": _list,
    "set": _set,
    "stream": _stream,
    "string": _string,
    "zset": _sorted,
}


def _any(value: Any) -> Any:
    """Return what a synchronous client answers; redis-py types it as perhaps awaitable."""
    return value


def _word(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

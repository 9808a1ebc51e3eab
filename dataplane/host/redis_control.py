"""The few commands that the host says to a Redis server: one connection, one exchange, closed.

A client library would retry and reconnect; the host wants to know what happened, once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import hiredis

REPLY_BYTES_MAX = 16 * 1024 * 1024
EXCHANGE_SECONDS_MAX = 5.0
SERVICE_USER = "weftkit"
DATABASE = re.compile(r"db[0-9]+")

Command: TypeAlias = Sequence[str]
Reply: TypeAlias = "str | int | list[Reply] | None"


class RedisReplyError(Exception):
    """The server answered a command with an error."""

    @property
    def code(self) -> str:
        """The first word of the error: LOADING, WRONGPASS, NOPERM ..."""
        return str(self).split(" ", 1)[0]


async def exchange(socket: Path, secret: str, commands: Sequence[Command]) -> list[Reply]:
    """Sign in as the service user, say `commands` in one pipeline, return their replies.

    Raises RedisReplyError for the first error reply, OSError or TimeoutError where the server does
    not answer.
    """
    async with asyncio.timeout(EXCHANGE_SECONDS_MAX):
        reading, writing = await asyncio.open_unix_connection(str(socket))
        try:
            pipeline = [("AUTH", SERVICE_USER, secret), *commands]
            writing.write(
                b"".join(
                    hiredis.pack_command(tuple(each))  # type: ignore[arg-type]  # one word each
                    for each in pipeline
                )
            )
            replies = await _read(reading, len(pipeline))
        finally:
            writing.close()
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise RedisReplyError(str(reply))
    return replies[1:]


async def _read(reading: asyncio.StreamReader, count: int) -> list[Reply]:
    parser = hiredis.Reader(encoding="utf-8", errors="replace", replyError=hiredis.ReplyError)
    replies: list[Reply] = []
    received = 0
    while len(replies) < count:
        data = await reading.read(65536)
        received += len(data)
        if not data or received > REPLY_BYTES_MAX:
            raise ConnectionError("the server ended the exchange")
        parser.feed(data)
        while (reply := parser.gets()) is not False:
            replies.append(reply)
    return replies


def facts_of(said: Reply) -> dict[str, str]:
    """Return the lines of INFO by name."""
    lines = said.splitlines() if isinstance(said, str) else []
    return dict(line.split(":", 1) for line in lines if ":" in line)


def keys_counted(facts: Mapping[str, str]) -> dict[str, int]:
    """Count keys, and those with an expiry, over all databases (`db0:keys=3,expires=1,...`)."""
    databases = [
        dict(each.split("=", 1) for each in value.split(","))
        for name, value in facts.items()
        if DATABASE.fullmatch(name)
    ]
    return {
        "keys": sum(int(each["keys"]) for each in databases),
        "expiring_keys": sum(int(each["expires"]) for each in databases),
    }

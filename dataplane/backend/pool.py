"""Warm PostgreSQL sessions of one cell, and `ports.Store` over them.

A fixed number of sessions keep their prepared statements for life. A session goes back to the
instance that used it last, if it can, and is reset only when it changes instance: a reset on every
release halves throughput (research/performance.md section 1.3).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg

from dataplane.backend.sqlstate import to_request_error
from engines.kit.errors import Reason, RequestError

STATEMENTS_CACHED = 512
CONNECT_SECONDS_MAX = 5.0

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class CellPool:
    """The sessions of one cell."""

    def __init__(self, dsn: str, *, size: int, wait_s: float, statement_s: float) -> None:
        self._dsn = dsn
        self._wait_s = wait_s
        self._statement_s = statement_s
        self._size = size
        self._lent = 0
        self._free = asyncio.Semaphore(size)
        # Idle sessions with the instance that used them last; the freshest at the end.
        self._idle: list[tuple[str, Connection]] = []

    @contextlib.asynccontextmanager
    async def session(self, instance_id: str) -> AsyncIterator[Connection]:
        """Lend a session to `instance_id`. Raises RequestError(BACKEND) if none is free in time."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise to_request_error("53300") from error
        self._lent += 1
        try:
            connection = await self._take(instance_id)
            try:
                yield connection
            except asyncpg.InternalClientError:
                # A session that died while it was idle; asyncpg notices at the next use.
                connection.terminate()
                raise
            finally:
                if not connection.is_closed():
                    self._idle.append((instance_id, connection))
        finally:
            self._lent -= 1
            self._free.release()

    async def close(self) -> None:
        """Close the idle sessions."""
        while self._idle:
            await self._idle.pop()[1].close()

    async def _take(self, instance_id: str) -> Connection:
        for index in range(len(self._idle) - 1, -1, -1):
            owner, connection = self._idle[index]
            if owner == instance_id and not connection.is_closed():
                del self._idle[index]
                return connection
        try:
            self._idle = [each for each in self._idle if not each[1].is_closed()]
            # Another session is cheaper than a reset, as long as there is room for one.
            if self._lent + len(self._idle) > self._size:
                # Of the others, the one that rested longest: its owner is least likely to return.
                _, connection = self._idle.pop(0)
                await connection.reset()
                return connection
            return await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_SECONDS_MAX,
                command_timeout=self._statement_s,
                statement_cache_size=STATEMENTS_CACHED,
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise to_request_error("08006") from error


class InstanceStore:
    """`ports.Store` of one instance."""

    def __init__(self, pool: CellPool, instance_id: str) -> None:
        self._pool = pool
        self._instance_id = instance_id

    async def fetch(self, text: str, *params: object) -> list[tuple[object, ...]]:
        """Run one statement and return its rows. Raises RequestError by SQLSTATE."""
        async with _translated(), self._pool.session(self._instance_id) as connection:
            return [tuple(row) for row in await connection.fetch(text, *params)]

    async def execute(self, text: str, *params: object) -> int:
        """Run one statement and return the number of rows it touched."""
        async with _translated(), self._pool.session(self._instance_id) as connection:
            tag = await connection.execute(text, *params)
        # "INSERT 0 5", "UPDATE 5"; statements without a count end in a word.
        count = tag.rsplit(" ", 1)[-1]
        return int(count) if count.isdigit() else 0


@contextlib.asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise to_request_error(error.sqlstate or "") from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise to_request_error("08006") from error
    except TimeoutError as error:
        raise RequestError(Reason.TIMEOUT, "the request took too long") from error

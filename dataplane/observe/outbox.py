"""The way out to the control database: usage, audit events and last-used times, all repeatable.

One task and one connection a worker. While the database is away everything waits where it is
durable or bounded (meter, audit, key_seen), and nothing on the request path notices.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import asyncpg

from dataplane.config import Config
from dataplane.observe.audit import AuditTrail
from dataplane.observe.key_seen import KeySeen
from dataplane.observe.log import get_logger
from dataplane.observe.meter import Meter, UsageRow
from engines.kit.exchange import INTAKE_CHANNEL
from engines.kit.ports import Clock

T = TypeVar("T")

CONNECT_SECONDS_MAX = 5.0
STATEMENT_SECONDS_MAX = 30.0

_USAGE = """
    INSERT INTO publish.usage_intake
        (idempotency_key, instance_id, source, started_at, stopped_at, unlimited_units, read_units,
         write_units, query_units, refused_units, bytes_in, bytes_out)
    SELECT k, i, s, to_timestamp(a), to_timestamp(b), u, r, w, q, f, n, o
    FROM unnest($1::text[], $2::uuid[], $3::text[], $4::float8[], $5::float8[], $6::int8[],
                $7::int8[], $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::int8[])
         AS row (k, i, s, a, b, u, r, w, q, f, n, o)
    ON CONFLICT DO NOTHING
"""
_AUDIT = """
    INSERT INTO publish.audit_intake (event_id, body)
    SELECT * FROM unnest($1::uuid[], $2::jsonb[])
    ON CONFLICT DO NOTHING
"""
_KEY_SEEN = """
    INSERT INTO publish.key_seen AS seen (key_id, last_used_at)
    SELECT k, to_timestamp(t) FROM unnest($1::text[], $2::float8[]) AS row (k, t)
    ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at
    WHERE seen.last_used_at < excluded.last_used_at
"""
_NOTIFY = "SELECT pg_notify($1, i) FROM unnest($2::text[]) AS row (i)"

# What a connection to PostgreSQL may fail with while the database is away or restarting.
# InternalClientError is what the next use of a connection that was cut while idle may raise.
DATABASE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class Outbox:
    """Flushes at an interval until it is closed; `close` flushes a last time."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        meter: Meter,
        audit: AuditTrail,
        key_seen: KeySeen,
        *,
        before_spooling: Callable[[], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._meter = meter
        self._audit = audit
        self._key_seen = key_seen
        self._before_spooling = before_spooling
        self._log = get_logger("outbox")
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        # Files are written here: one thread, so one at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._stopping = asyncio.Event()
        self._is_away = False

    async def run(self) -> None:
        """Flush until `stop` is called."""
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._config.intervals.flush_s)
            if not self._stopping.is_set():
                await self.flush()

    def stop(self) -> None:
        """Let `run` return."""
        self._stopping.set()

    async def flush(self) -> None:
        """Spool and deliver everything that there is."""
        now = self._clock.now()
        self._before_spooling()
        self._audit.collect()
        try:
            await self._in_thread(lambda: self._spool(now))
            await self._deliver()
        except DATABASE_ERRORS as error:
            if not self._is_away:
                self._log.warning("delivery_delayed", error=str(error))
            self._is_away = True
            await self._disconnect()

    async def close(self, *, deliver_within_s: float) -> None:
        """Make the rest durable, and deliver it if the database answers in time."""
        now = self._clock.now()
        self._before_spooling()
        await self._in_thread(lambda: self._meter.close(now))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.flush(), deliver_within_s)
        await self._disconnect()
        self._thread.shutdown()

    def _spool(self, now: float) -> None:
        self._meter.spool(now)
        self._meter.collect(now)
        self._audit.spool()

    async def _deliver(self) -> None:
        usage = await self._in_thread(self._meter.deliverable)
        events = await self._in_thread(self._audit.deliverable)
        seen = self._key_seen.take()
        try:
            if usage or events or seen:
                await self._connect()
            for path in usage:
                await self._insert_usage(await self._read(self._meter.read, path))
                await self._remove(path)
            for path in events:
                await self._insert_events(path)
            if seen:
                await self._execute(_KEY_SEEN, list(seen), list(seen.values()))
                seen = {}
        finally:
            self._key_seen.give_back(seen)

    async def _read(self, reader: Callable[[Path], list[T]], path: Path) -> list[T]:
        """Read a spool file; one that is damaged is set aside for a person, and stops no other."""
        try:
            return await self._in_thread(partial(reader, path))
        except (ValueError, KeyError, TypeError) as error:
            await self._set_aside(path, error)
            return []

    async def _set_aside(self, path: Path, error: Exception) -> None:
        self._log.error("spool_file_damaged", file=path.name, error=repr(error))
        await self._in_thread(partial(path.replace, path.with_suffix(".damaged")))

    async def _insert_events(self, path: Path) -> None:
        batch = await self._read(self._audit.read, path)
        try:
            await self._execute(_AUDIT, *_columns(batch, 2))
        except asyncpg.DataError as error:
            # The database will never take it, and the others behind it must not wait for that.
            await self._set_aside(path, error)
            return
        await self._remove(path)

    async def _insert_usage(self, rows: list[UsageRow]) -> None:
        if not rows:
            return
        columns = _columns(
            [
                (row.key, row.instance_id, row.source, row.started_at, row.stopped_at, *row.counts)
                for row in rows
            ],
            12,
        )
        assert self._connection is not None
        async with asyncio.timeout(STATEMENT_SECONDS_MAX), self._connection.transaction():
            await self._connection.execute(_USAGE, *columns)
            # In the same transaction: listeners hear of it only once it is durable.
            await self._connection.execute(_NOTIFY, INTAKE_CHANNEL, list(dict.fromkeys(columns[1])))

    async def _execute(self, statement: str, *columns: list[object]) -> None:
        assert self._connection is not None
        await self._connection.execute(statement, *columns, timeout=STATEMENT_SECONDS_MAX)

    async def _connect(self) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._config.database_url,
                timeout=CONNECT_SECONDS_MAX,
                server_settings={"application_name": "weftkit-dataplane-outbox"},
            )
            self._is_away = False

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _remove(self, path: Path) -> None:
        await self._in_thread(lambda: path.unlink(missing_ok=True))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _columns(
    rows: list[tuple[object, ...]] | list[tuple[str, str]], width: int
) -> list[list[object]]:
    """Turn rows into one array a column, as `unnest` takes them."""
    return [[row[index] for row in rows] for index in range(width)]

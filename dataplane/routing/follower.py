"""Keeps the record table equal to `publish.record`: LISTEN, resync, comparison, back-off.

On every (re)connect it listens first and then reads everything, so nothing falls between. A
notification carries an instance's id and only says "look": the row is read afterwards. Versions are
compared now and then, for notifications that were lost. While the database is away the table stays
as it is, and no query notices.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg

from dataplane.config import Config
from dataplane.observe import metrics
from dataplane.observe.log import get_logger
from dataplane.observe.outbox import DATABASE_ERRORS
from dataplane.routing import snapshot
from dataplane.routing.table import RecordTable
from engines.kit.exchange import OBSERVED_CHANNEL, RECORD_CHANNEL

CONNECT_SECONDS_MAX = 5.0
STATEMENT_SECONDS_MAX = 30.0
RECONNECT_SECONDS_MIN = 0.1
# Ids of changed instances that wait to be read; beyond that everything is read.
CHANGED_MAX = 10_000

_RECORDS = "SELECT instance_id::text, body::text FROM publish.record"
_VERSIONS = "SELECT instance_id::text, version FROM publish.record"
_OBSERVED = "SELECT instance_id::text, storage_bytes FROM publish.observed"
_SOME = " WHERE instance_id = ANY($1::uuid[])"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Follower:
    """One task that follows, one that writes the snapshot if this worker is the one to do so."""

    def __init__(self, config: Config, table: RecordTable, *, writes_snapshot: bool) -> None:
        self._config = config
        self._table = table
        self._writes_snapshot = writes_snapshot
        self._log = get_logger("follower")
        self._changed: dict[str, set[str]] = {RECORD_CHANNEL: set(), OBSERVED_CHANNEL: set()}
        self._wake = asyncio.Event()
        self._is_stale = asyncio.Event()
        # There are records to answer from: the database's, or the last known good ones.
        self.is_ready = asyncio.Event()
        # The database was asked once, whatever came of it.
        self.has_asked = asyncio.Event()

    @property
    def _directory(self) -> Path:
        return self._config.state_dir

    async def load_snapshot(self) -> None:
        """Fill the table with the last known good records."""
        try:
            entries = await asyncio.to_thread(snapshot.read, self._directory)
        except snapshot.SnapshotError as error:
            self._log.error("snapshot_unusable", error=str(error))
            return
        for entry in entries:
            self._table.put(entry)
        if entries:
            self._log.info("snapshot_loaded", records=len(entries))
            self.is_ready.set()
        metrics.RECORDS.set(len(self._table))

    async def run(self) -> None:
        """Follow until cancelled."""
        delay = RECONNECT_SECONDS_MIN
        while True:
            try:
                connection = await self._connect()
                try:
                    await self._resync(connection)
                    self.has_asked.set()
                    delay = RECONNECT_SECONDS_MIN
                    await self._follow(connection)
                finally:
                    connection.terminate()
            except DATABASE_ERRORS as error:
                self._log.warning("control_database_away", error=str(error), retry_in_s=delay)
            metrics.FOLLOWING.set(0)
            self.has_asked.set()
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._config.intervals.reconnect_max_s)

    async def write_snapshots(self) -> None:
        """Write the snapshot after changes, at most once in an interval, until cancelled."""
        while True:
            await self._is_stale.wait()
            self._is_stale.clear()
            await self.write_snapshot()
            await asyncio.sleep(self._config.intervals.snapshot_s)

    async def write_snapshot(self) -> None:
        """Write the snapshot now."""
        try:
            await asyncio.to_thread(snapshot.write, self._directory, self._table.entries())
        except OSError as error:
            self._log.error("snapshot_not_written", error=str(error))

    async def _connect(self) -> Connection:
        connection = await asyncpg.connect(
            self._config.database_url,
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=STATEMENT_SECONDS_MAX,
            server_settings={"application_name": "weftkit-dataplane-follower"},
        )
        connection.add_termination_listener(lambda _: self._wake.set())
        for channel in self._changed:
            await connection.add_listener(channel, self._heard)
        return connection

    def _heard(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        changed = self._changed[channel]
        if len(changed) < CHANGED_MAX:
            # What is no UUID still wakes us: the sender meant to say something.
            with contextlib.suppress(ValueError):
                changed.add(str(UUID(str(payload))))
        self._wake.set()

    async def _follow(self, connection: Connection) -> None:
        while not connection.is_closed():
            try:
                async with asyncio.timeout(self._config.intervals.compare_s):
                    await self._wake.wait()
            except TimeoutError:
                await self._compare(connection)
                continue
            self._wake.clear()
            await self._read_changed(connection)

    async def _resync(self, connection: Connection) -> None:
        for changed in self._changed.values():
            changed.clear()
        self._wake.clear()
        rows = await connection.fetch(_RECORDS)
        self._take(rows, set(self._table.versions()))
        self._observe(await connection.fetch(_OBSERVED))
        metrics.FOLLOWING.set(1)
        self.is_ready.set()
        self._log.info("records_synchronised", records=len(self._table))

    async def _compare(self, connection: Connection) -> None:
        """Find what no notification told."""
        published: dict[str, int] = {row[0]: row[1] for row in await connection.fetch(_VERSIONS)}
        known = self._table.versions()
        differing = {key for key in published | known if published.get(key) != known.get(key)}
        if differing:
            self._take(await connection.fetch(_RECORDS + _SOME, list(differing)), differing)
        self._observe(await connection.fetch(_OBSERVED))

    async def _read_changed(self, connection: Connection) -> None:
        for channel, changed in self._changed.items():
            if len(changed) >= CHANGED_MAX:
                await self._resync(connection)
                return
            ids = list(changed)
            changed.clear()
            if ids and channel == RECORD_CHANNEL:
                self._take(await connection.fetch(_RECORDS + _SOME, ids), set(ids))
            elif ids:
                self._observe(await connection.fetch(_OBSERVED + _SOME, ids))

    def _take(self, rows: list[asyncpg.Record], asked: set[str]) -> None:
        """Put the rows that came, and remove what was asked for and is not there."""
        is_changed = False
        for instance_id, body in rows:
            try:
                entry = snapshot.read_record(body)
            except ValueError as error:
                # The last good one stays in force: better old than none.
                metrics.RECORDS_REFUSED.inc()
                self._log.error("record_refused", instance_id=instance_id, error=str(error))
                continue
            is_changed |= self._table.put(entry)
        for instance_id in asked - {row[0] for row in rows}:
            is_changed |= self._table.remove(instance_id)
        metrics.RECORDS.set(len(self._table))
        if is_changed and self._writes_snapshot:
            self._is_stale.set()

    def _observe(self, rows: list[asyncpg.Record]) -> None:
        for instance_id, storage_bytes in rows:
            self._table.observe(instance_id, storage_bytes)

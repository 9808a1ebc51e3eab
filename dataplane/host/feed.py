"""The host's side of `engines.kit.exchange`: records come in, observations go out.

One connection to the control database listens for changes and compares all versions every few
seconds, so that a lost notification costs seconds, not correctness. While the database is away the
last known records hold, and observations wait here: only the newest of an instance is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg
import structlog

from engines.kit.exchange import OBSERVED_CHANNEL, RECORD_CHANNEL
from engines.kit.records import InstanceRecord

COMPARE_SECONDS = 5.0
CONNECT_SECONDS_MAX = 5.0
COMMAND_SECONDS_MAX = 10.0
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 3.0

VERSIONS = "SELECT instance_id, version FROM publish.record WHERE body->>'host' = $1"
BODIES = (
    "SELECT body::text AS body, version FROM publish.record WHERE instance_id = ANY($1::uuid[])"
)
OBSERVED = (
    "SELECT instance_id, generation, state, storage_bytes FROM publish.observed WHERE host = $1"
)
# Write and announce in one statement, so that listeners hear of it exactly when it is durable.
OBSERVE = """
    WITH written AS (
        INSERT INTO publish.observed AS old
            (instance_id, host, generation, state, detail, storage_bytes, memory_bytes)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (instance_id) DO UPDATE SET
            host = excluded.host, state = excluded.state,
            generation = greatest(old.generation, excluded.generation),
            detail = excluded.detail, storage_bytes = excluded.storage_bytes,
            memory_bytes = excluded.memory_bytes, observed_at = now()
        RETURNING instance_id
    )
    SELECT pg_notify($8, instance_id::text) FROM written
"""

log = structlog.get_logger("host")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
# What keeps us from the database without being our fault: it is down, or not migrated yet.
UNAVAILABLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncio.TimeoutError)


@dataclass(frozen=True, slots=True)
class Observation:
    """What is true of one instance; the columns of `publish.observed`."""

    instance_id: str
    generation: int
    state: str
    detail: str = ""
    storage_bytes: int = 0
    memory_bytes: int = 0


class Feed:
    """Keeps the connection, hands over what is new, and writes what was observed."""

    def __init__(
        self,
        database_url: str,
        host_name: str,
        *,
        known: Mapping[str, InstanceRecord],
        on_observed: Callable[[Mapping[str, Observation]], None],
        on_records: Callable[[Mapping[str, InstanceRecord]], None],
    ) -> None:
        self._database_url = database_url
        self._host_name = host_name
        self._records = dict(known)
        self._on_observed = on_observed
        self._on_records = on_records
        self._outbox: dict[str, Observation] = {}
        self._wake = asyncio.Event()
        self._written = asyncio.Event()  # set while the outbox is empty
        self.is_connected = False

    def observe(self, observation: Observation) -> None:
        """Queue an observation; it replaces an older one of the same instance."""
        self._outbox[observation.instance_id] = observation
        self._written.clear()
        self._wake.set()

    async def run(self) -> None:
        """Follow the database for ever; returns only by cancellation."""
        pause = RETRY_SECONDS_MIN
        while True:
            try:
                connection = await asyncpg.connect(
                    self._database_url,
                    timeout=CONNECT_SECONDS_MAX,
                    command_timeout=COMMAND_SECONDS_MAX,
                    server_settings={"application_name": f"weftkit host {self._host_name}"},
                )
                try:
                    await self._begin(connection)
                    pause = RETRY_SECONDS_MIN
                    await self._follow(connection)
                finally:
                    self.is_connected = False
                    connection.terminate()
            except UNAVAILABLE as error:
                log.info("control_database_unavailable", error=str(error) or type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, RETRY_SECONDS_MAX)

    async def flush(self, seconds_max: float) -> None:
        """Wait until the outbox is empty, at most so long; for the end of the host."""
        if self.is_connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds_max):
                    await self._written.wait()

    async def _begin(self, connection: Connection) -> None:
        connection.add_termination_listener(lambda _: self._wake.set())
        await connection.add_listener(RECORD_CHANNEL, lambda *_: self._wake.set())
        rows = await connection.fetch(OBSERVED, self._host_name)
        self._on_observed(
            {
                str(row["instance_id"]): Observation(
                    str(row["instance_id"]),
                    row["generation"],
                    row["state"],
                    storage_bytes=row["storage_bytes"],
                )
                for row in rows
            }
        )
        await self._compare(connection)
        self.is_connected = True
        log.info("control_database_connected", records=len(self._records))

    async def _follow(self, connection: Connection) -> None:
        while not connection.is_closed():
            await self._write(connection)
            # Not wait_for: in Python 3.11 it can lose a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await self._compare(connection)

    async def _compare(self, connection: Connection) -> None:
        """Fetch the records that differ, and forget those that are no longer ours."""
        rows = await connection.fetch(VERSIONS, self._host_name)
        versions = {str(row["instance_id"]): row["version"] for row in rows}
        kept = {
            instance_id: record
            for instance_id, record in self._records.items()
            if versions.get(instance_id) == record.version
        }
        missing = [instance_id for instance_id in versions if instance_id not in kept]
        fetched = await connection.fetch(BODIES, missing) if missing else []
        for row in fetched:
            record = _parsed(row["body"])
            if record is not None and record.host == self._host_name:
                kept[record.instance_id] = record
            elif record is None:
                self._keep_old(kept, row["body"])
        self._records = kept
        self._on_records(dict(kept))

    def _keep_old(self, kept: dict[str, InstanceRecord], body: str) -> None:
        """Hold on to the last good record of an instance whose new one cannot be read."""
        instance_id = str(json.loads(body).get("instance_id", ""))
        if instance_id in self._records:
            kept[instance_id] = self._records[instance_id]

    async def _write(self, connection: Connection) -> None:
        while self._outbox:
            instance_id, each = next(iter(self._outbox.items()))
            await connection.execute(
                OBSERVE,
                instance_id,
                self._host_name,
                each.generation,
                each.state,
                each.detail,
                each.storage_bytes,
                each.memory_bytes,
                OBSERVED_CHANNEL,
            )
            # A newer one may have come in while this one was written.
            if self._outbox.get(instance_id) is each:
                del self._outbox[instance_id]
        self._written.set()


def _parsed(body: str) -> InstanceRecord | None:
    try:
        return InstanceRecord.from_json(json.loads(body))
    except (KeyError, TypeError, ValueError):
        log.exception("record_unusable")
        return None

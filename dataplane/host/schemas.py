"""Instances that are schemas in a cell: made, measured and dropped as their records want it.

Level-triggered like `keeper`, but there is no process to start and nothing sleeps, so one task a
cell looks after all of its instances: it compares what the records want with the schemas that are
there, does what is missing, and says so. Every few seconds one query measures them all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import asyncpg
import structlog

from dataplane.host.feed import UNAVAILABLE, Observation
from dataplane.host.keeper import SETTLED, BackOff, Surroundings
from dataplane.host.server import safe_fields
from engines import registry
from engines.kit.records import Desired, InstanceRecord
from engines.kit.statement import quote_name

MEASURE_SECONDS = 5.0
CONNECT_SECONDS_MAX = 5.0
COMMAND_SECONDS_MAX = 60.0
# One step waits no longer for clients' locks, nor the other instances of the cell for it.
LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS = 2_000, 30_000
# What may not be done now, before the database has said which records there are.
NOT_NOW_SECONDS = 0.2
# A transaction that drops thousands of tables would need thousands of locks.
TABLES_DROPPED_AT_ONCE = 50
FAILURES_BEFORE_FAILED = 3

_EXISTING = r"SELECT nspname FROM pg_namespace WHERE nspname LIKE 'wk\_%'"
_SIZES = r"""
    SELECT n.nspname, coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8
    FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r'
    WHERE n.nspname LIKE 'wk\_%' GROUP BY n.nspname
"""
_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind = 'r' LIMIT $2
"""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

log = structlog.get_logger("host")


class SchemaError(Exception):
    """What is wanted cannot be made true; the message is safe to show to a tenant."""


@dataclass(slots=True)
class _Kept:
    """One instance: what is wanted, what was said last, how often it failed."""

    record: InstanceRecord
    known: Observation | None = None
    back_off: BackOff = field(default_factory=BackOff)
    state: str = ""
    storage_bytes: int = 0
    is_due: bool = True


class Cell:
    """All instances of one cell that this host looks after."""

    def __init__(self, name: str, dsn: str, around: Surroundings) -> None:
        self._name = name
        self._dsn = dsn
        self._around = around
        self._kept: dict[str, _Kept] = {}
        self._wake = asyncio.Event()
        self._measured_at = -MEASURE_SECONDS

    @property
    def states(self) -> list[tuple[InstanceRecord, str]]:
        """Return each instance's record and state; "" while nothing is known."""
        return [(kept.record, kept.state) for kept in list(self._kept.values())]

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do, or nothing more can be done now."""
        return all(state in SETTLED[record.desired] for record, state in self.states)

    def want(
        self, records: Mapping[str, InstanceRecord], observed: Mapping[str, Observation]
    ) -> None:
        """Take the newest records of the cell, all of them, and what was observed before."""
        for instance_id in self._kept.keys() - records.keys():
            # Without a record nothing is removed: only one that wants it absent removes data.
            del self._kept[instance_id]
        for instance_id, record in records.items():
            kept = self._kept.get(instance_id)
            if kept is None:
                known = observed.get(instance_id)
                kept = self._kept[instance_id] = _Kept(record, known)
                kept.storage_bytes = known.storage_bytes if known else 0
                continue
            if kept.known is None and instance_id in observed:
                # Kept since the snapshot was read, and the database only now says what it was.
                kept.known = observed[instance_id]
                kept.storage_bytes = kept.storage_bytes or kept.known.storage_bytes
            if kept.record != record:
                if kept.record.generation != record.generation:
                    kept.back_off.reset()
                kept.record, kept.is_due = record, True
        self._wake.set()

    async def run(self) -> None:
        """Keep the instances until cancelled."""
        while True:
            try:
                connection = await asyncpg.connect(
                    self._dsn,
                    timeout=CONNECT_SECONDS_MAX,
                    command_timeout=COMMAND_SECONDS_MAX,
                    server_settings={
                        "application_name": "weftkit host",
                        "lock_timeout": str(LOCK_TIMEOUT_MS),
                        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                    },
                )
                try:
                    while True:
                        await self._look(connection)
                        await self._rest()
                finally:
                    connection.terminate()
            except UNAVAILABLE as error:
                log.info("cell_unavailable", cell=self._name, error=str(error))
            for kept in self._kept.values():
                kept.is_due = True
            await asyncio.sleep(1.0)

    async def _rest(self) -> None:
        pauses = [
            kept.back_off.remaining(time.monotonic()) for kept in self._kept.values() if kept.is_due
        ]
        try:
            async with asyncio.timeout(min([MEASURE_SECONDS, *pauses])):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _look(self, connection: Connection) -> None:
        self._wake.clear()
        if time.monotonic() - self._measured_at >= MEASURE_SECONDS:
            self._measured_at = time.monotonic()
            sizes: dict[str, int] = {row[0]: row[1] for row in await connection.fetch(_SIZES)}
            for kept in self._kept.values():
                size_bytes = sizes.get(kept.record.schema)
                if size_bytes is not None:
                    kept.storage_bytes = size_bytes
                elif kept.state == "running":
                    kept.is_due = True  # it has gone: the step says so, and what it held stays said
                if kept.state:
                    self._report(kept, kept.state)
        due = [
            kept
            for kept in self._kept.values()
            if kept.is_due and not kept.back_off.remaining(time.monotonic())
        ]
        if not due:
            return
        existing = {row[0] for row in await connection.fetch(_EXISTING)}
        for kept in due:
            await self._step(connection, kept, kept.record.schema in existing)

    async def _step(self, connection: Connection, kept: _Kept, exists: bool) -> None:
        record = kept.record
        try:
            state = await _made_true(connection, kept, exists, self._around.may_change_data)
        except (asyncpg.PostgresError, SchemaError) as error:
            self._failed(kept, error)
            return
        if state is None:
            kept.back_off.not_before = time.monotonic() + NOT_NOW_SECONDS
            return
        if kept.record is record:
            kept.is_due = False
        kept.back_off.reset()
        self._report(kept, state, record.generation)

    def _failed(self, kept: _Kept, error: Exception) -> None:
        kept.back_off.fail(time.monotonic())
        log.warning(
            "schema_step_failed",
            error=repr(error),
            failures=kept.back_off.failures,
            **safe_fields(kept.record),
        )
        is_final = isinstance(error, SchemaError)
        detail = str(error) if is_final else "the cell has a problem"
        if is_final or kept.back_off.failures >= FAILURES_BEFORE_FAILED:
            self._report(kept, "failed", kept.record.generation, detail)
        else:
            self._report(kept, "starting", 0, detail)

    def _report(self, kept: _Kept, state: str, generation: int = 0, detail: str = "") -> None:
        known = kept.known
        detail = detail or (known.detail if known and known.state == state else "")
        observation = Observation(
            kept.record.instance_id,
            max(generation, known.generation if known else 0),
            state,
            detail,
            kept.storage_bytes,
        )
        if observation != known:
            kept.known = observation
            self._around.observe(observation)
        if state != kept.state:
            kept.state = state
            self._around.on_change()


async def _made_true(
    connection: Connection, kept: _Kept, exists: bool, may_change_data: bool
) -> str | None:
    """Make what a record wants true; return the state, None for "not now"."""
    record = kept.record
    if record.desired is Desired.ABSENT:
        if exists and not may_change_data:
            return None
        if exists:
            await _drop(connection, record.schema)
            log.info("schema_dropped", **safe_fields(record))
        kept.storage_bytes = 0
        return "absent"
    if not exists and record.desired is Desired.RUNNING:
        if not may_change_data:
            return None
        known = kept.known
        if known is not None and _had_data(known):
            # A lost cell must not be answered with an empty instance.
            raise SchemaError("the instance's data are missing in its cell")
        await _make(connection, record)
        log.info("schema_made", **safe_fields(record))
    return "running" if record.desired is Desired.RUNNING else "stopped"


def _had_data(known: Observation) -> bool:
    return known.state != "absent" and (known.state == "running" or known.storage_bytes > 0)


async def _make(connection: Connection, record: InstanceRecord) -> None:
    """Make the schema of an empty instance; all or nothing."""
    ddl = registry.load(record.engine).ddl
    if ddl is None:
        raise SchemaError("the engine has no schema")
    async with connection.transaction():
        await connection.execute(f"CREATE SCHEMA {quote_name(record.schema)}")
        for text in ddl(record.schema):
            await connection.execute(text)


async def _drop(connection: Connection, schema: str) -> None:
    """Drop a schema, a few tables at a time; killed in between, the next look goes on."""
    while names := await connection.fetch(_TABLES, schema, TABLES_DROPPED_AT_ONCE):
        listed = ", ".join(f"{quote_name(schema)}.{quote_name(row[0])}" for row in names)
        await connection.execute(f"DROP TABLE IF EXISTS {listed} CASCADE")
    await connection.execute(f"DROP SCHEMA IF EXISTS {quote_name(schema)} CASCADE")

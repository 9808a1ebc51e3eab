"""Schemas in a cell: made whole, measured, dropped, never made anew in the place of lost data."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace

import asyncpg
import pytest

from dataplane.host import schemas
from dataplane.host.feed import Observation
from dataplane.host.keeper import Surroundings
from dataplane.host.schemas import Cell
from engines.kit.records import Desired, InstanceRecord, Limits, Status
from tests.servers import PostgresServer

SECONDS_MAX = 20.0


@dataclass
class Around:
    """What the keepers of a host share, with everything that was observed."""

    said: list[Observation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.heard = asyncio.Event()
        self.surroundings = Surroundings(observe=self._observe, on_change=lambda: None)
        self.surroundings.may_change_data = True

    def _observe(self, observation: Observation) -> None:
        self.said.append(observation)
        self.heard.set()

    async def until(self, record: InstanceRecord, state: str) -> Observation:
        """Wait for an observation of this state, for the record's generation."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                self.heard.clear()
                for each in reversed(self.said):
                    if each.instance_id != record.instance_id:
                        continue
                    if each.state == state and each.generation >= record.generation:
                        return each
                await self.heard.wait()


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database(f"cell_{uuid.uuid4().hex[:8]}")


@pytest.fixture
async def tables(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def running(cell: Cell) -> AsyncIterator[None]:
    task = asyncio.create_task(cell.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def make_record(**changes: object) -> InstanceRecord:
    instance_id = str(uuid.uuid4())
    record = InstanceRecord(
        instance_id=instance_id,
        handle=f"acme-{instance_id[:8]}",
        tenant_id=str(uuid.uuid4()),
        tenant="acme",
        engine="keyvalue",
        status=Status.ACTIVE,
        plan="lite",
        limits=Limits(),
        credentials=(),
        version=1,
        cell="local",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def by_id(*records: InstanceRecord) -> Mapping[str, InstanceRecord]:
    return {record.instance_id: record for record in records}


async def names(tables: asyncpg.Connection[asyncpg.Record], record: InstanceRecord) -> set[str]:
    rows = await tables.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = $1", record.schema
    )
    return {row[0] for row in rows}


async def has_schema(tables: asyncpg.Connection[asyncpg.Record], record: InstanceRecord) -> bool:
    return bool(
        await tables.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", record.schema)
    )


async def test_an_instance_is_made_with_its_tables_stopped_kept_and_dropped(
    dsn: str, tables: asyncpg.Connection[asyncpg.Record]
) -> None:
    around, record = Around(), make_record()
    cell = Cell("local", dsn, around.surroundings)
    async with running(cell):
        cell.want(by_id(record), {})
        await around.until(record, "running")
        assert {"catalogue", "streamlog"} <= await names(tables, record)
        stopped = replace(record, desired=Desired.STOPPED, generation=2)
        cell.want(by_id(stopped), {})
        await around.until(stopped, "stopped")
        assert {"catalogue", "streamlog"} <= await names(tables, record)
        # More tables than one transaction may lock.
        for number in range(schemas.TABLES_DROPPED_AT_ONCE + 7):
            await tables.execute(f'CREATE TABLE "{record.schema}".t{number} (a int)')
        absent = replace(record, desired=Desired.ABSENT, generation=3)
        cell.want(by_id(absent), {})
        said = await around.until(absent, "absent")
    assert said.storage_bytes == 0
    assert not await has_schema(tables, record)


async def test_a_schema_is_measured_with_indexes_and_values_out_of_line(
    dsn: str,
    tables: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schemas, "MEASURE_SECONDS", 0.05)
    around, record, other = Around(), make_record(), make_record()
    cell = Cell("local", dsn, around.surroundings)
    async with running(cell):
        cell.want(by_id(record, other), {})
        await around.until(record, "running")
        await around.until(other, "running")
        await tables.execute(f'CREATE TABLE "{record.schema}".t1 (a bytea STORAGE EXTERNAL)')
        await tables.execute(
            f'INSERT INTO "{record.schema}".t1 SELECT convert_to(repeat($1, 1000000), $2)',
            "x",
            "UTF8",
        )
        async with asyncio.timeout(SECONDS_MAX):
            while (await around.until(record, "running")).storage_bytes < 1_000_000:
                around.heard.clear()
                await around.heard.wait()
        assert (await around.until(other, "running")).storage_bytes < 500_000


async def test_a_schema_that_went_away_is_never_made_anew(
    dsn: str,
    tables: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schemas, "MEASURE_SECONDS", 0.05)
    around, record = Around(), make_record()
    cell = Cell("local", dsn, around.surroundings)
    async with running(cell):
        cell.want(by_id(record), {})
        await around.until(record, "running")
        async with asyncio.timeout(SECONDS_MAX):
            while not (await around.until(record, "running")).storage_bytes:
                around.heard.clear()
                await around.heard.wait()
        await tables.execute(f'DROP SCHEMA "{record.schema}" CASCADE')
        said = await around.until(record, "failed")
        assert said.storage_bytes > 0
        assert said.detail == "the instance's data are missing in its cell"
        again = replace(record, generation=2)
        cell.want(by_id(again), {})
        await around.until(again, "failed")
    assert not await has_schema(tables, record)


async def test_a_host_that_starts_from_its_snapshot_makes_no_schema_in_the_place_of_a_lost_one(
    dsn: str, tables: asyncpg.Connection[asyncpg.Record]
) -> None:
    around, record = Around(), make_record()
    around.surroundings.may_change_data = False
    cell = Cell("local", dsn, around.surroundings)
    cell.want(by_id(record), {})  # the snapshot: the database has not answered yet
    known = Observation(record.instance_id, 1, "running", "", 81920)
    async with running(cell):
        around.surroundings.may_change_data = True
        cell.want(by_id(record), {record.instance_id: known})
        said = await around.until(record, "failed")
    assert said.storage_bytes == 81920
    assert not await has_schema(tables, record)


async def test_a_client_that_holds_a_lock_keeps_no_other_instance_waiting(
    dsn: str,
    tables: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schemas, "LOCK_TIMEOUT_MS", 100)
    around, held, other = Around(), make_record(), make_record()
    cell = Cell("local", dsn, around.surroundings)
    async with running(cell):
        cell.want(by_id(held), {})
        await around.until(held, "running")
        absent = replace(held, desired=Desired.ABSENT, generation=2)
        transaction = tables.transaction()
        await transaction.start()
        await tables.execute(f'LOCK TABLE "{held.schema}".catalogue IN ACCESS SHARE MODE')
        cell.want(by_id(absent, other), {})
        await around.until(other, "running")
        assert await has_schema(tables, held)
        await transaction.rollback()
        await around.until(absent, "absent")
    assert not await has_schema(tables, held)


async def test_a_session_that_is_ended_in_the_middle_leaves_no_half_schema(
    dsn: str,
    tables: asyncpg.Connection[asyncpg.Record],
) -> None:
    around = Around()
    records = [make_record() for _ in range(12)]
    cell = Cell("local", dsn, around.surroundings)
    async with running(cell):
        cell.want(by_id(*records), {})
        await around.until(records[0], "running")
        await tables.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'weftkit host' AND datname = current_database()"
        )
        for record in records:
            await around.until(record, "running")
            assert {"catalogue", "token", "work", "stream", "backup"} <= await names(tables, record)

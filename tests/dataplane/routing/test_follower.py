"""Following `publish.record` on a real PostgreSQL: notifications, losses, restarts, absence."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dataplane.config import Config, Intervals
from dataplane.routing import snapshot
from dataplane.routing.follower import Follower
from dataplane.routing.table import RecordTable
from tests.dataplane.plane import MASTER_KEY, PEPPER, ControlDatabase, elapsed, instance, until
from tests.servers import run_postgres, temporary_home

# Long: what a test sees sooner than this came by notification.
NEVER = 600.0


class Following:
    """A follower at work, and the table that it fills."""

    def __init__(self, home: Path, dsn: str, **intervals: float) -> None:
        config = Config(
            home=home,
            run_dir=home,
            database_url=dsn,
            redis_url="",
            master_key=MASTER_KEY,
            peppers={1: PEPPER},
            ports={},
            admin_port=0,
            intervals=Intervals(
                **{"compare_s": NEVER, "snapshot_s": 0.01, "reconnect_max_s": 0.2, **intervals}
            ),
        )
        self.table = RecordTable()
        self.follower = Follower(config, self.table, writes_snapshot=True)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Following:
        await self.follower.load_snapshot()
        self._tasks = [
            asyncio.create_task(self.follower.run()),
            asyncio.create_task(self.follower.write_snapshots()),
        ]
        return self

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


Follow = Callable[..., "asyncio.Future[Following]"]


@pytest.fixture
async def follow(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    started: list[Following] = []

    async def start(dsn: str, **intervals: float) -> Following:
        started.append(await Following(tmp_path, dsn, **intervals).start())
        return started[-1]

    yield start
    for each in started:
        await each.stop()


async def test_it_reads_everything_and_then_follows_each_change(
    database: ControlDatabase, follow: Follow
) -> None:
    first = database.publish(instance())
    database.observe(first, 77)
    following = await follow(database.dataplane_dsn)
    table = following.table
    await until(lambda: table.get(first.instance_id) == first, "the first record")
    await until(lambda: table.storage_bytes == {first.instance_id: 77}, "the observed size")
    second = database.publish(instance())
    await until(lambda: table.get(second.instance_id) == second, "a new record")
    took = elapsed()
    changed = database.publish(dataclasses.replace(first, plan="lite"))
    await until(lambda: table.get(first.instance_id) == changed, "a change")
    assert took() < 1.0
    database.observe(first, 78)
    await until(lambda: table.storage_bytes == {first.instance_id: 78}, "a new size")


async def test_a_deleted_row_is_forgotten(database: ControlDatabase, follow: Follow) -> None:
    record = database.publish(instance())
    table = (await follow(database.dataplane_dsn)).table
    await until(lambda: len(table) == 1, "the record")
    with database.connect() as connection, connection.transaction():
        connection.execute("DELETE FROM publish.record")
        connection.execute("SELECT pg_notify('weftkit_record', %s)", [record.instance_id])
    await until(lambda: len(table) == 0, "the record is gone")


async def test_lost_notifications_are_found_by_comparing_versions(
    database: ControlDatabase, follow: Follow
) -> None:
    kept, gone = database.publish(instance()), database.publish(instance())
    table = (await follow(database.dataplane_dsn, compare_s=0.05)).table
    await until(lambda: len(table) == 2, "both records")
    changed = database.publish(dataclasses.replace(kept, plan="lite"), silently=True)
    added = database.publish(instance(), silently=True)
    with database.connect() as connection:
        connection.execute("DELETE FROM publish.record WHERE instance_id = %s", [gone.instance_id])
    expected = {changed.instance_id: changed.version, added.instance_id: added.version}
    await until(lambda: table.versions() == expected, "all three changes")


async def test_a_row_that_is_no_record_leaves_the_last_good_one(
    database: ControlDatabase, follow: Follow
) -> None:
    record = database.publish(instance())
    table = (await follow(database.dataplane_dsn)).table
    await until(lambda: len(table) == 1, "the record")
    with database.connect() as connection, connection.transaction():
        connection.execute("UPDATE publish.record SET version = version + 1, body = '{}'")
        connection.execute("SELECT pg_notify('weftkit_record', %s)", [record.instance_id])
    other = database.publish(instance())
    await until(lambda: table.get(other.instance_id) == other, "a later record")
    assert table.get(record.instance_id) == record


async def test_notifications_that_name_nothing_are_harmless(
    database: ControlDatabase, follow: Follow
) -> None:
    table = (await follow(database.dataplane_dsn)).table
    with database.connect() as connection:
        for payload in ("", "no uuid", "'; DROP TABLE x; --"):
            connection.execute("SELECT pg_notify('weftkit_record', %s)", [payload])
    record = database.publish(instance())
    await until(lambda: table.get(record.instance_id) == record, "a record after them")


async def test_it_resynchronises_after_the_database_was_away(tmp_path: Path) -> None:
    with temporary_home() as root:
        with run_postgres(root) as server:
            database = ControlDatabase(server, "control")
            old = database.publish(instance())
            following = await Following(tmp_path, database.dataplane_dsn).start()
            table = following.table
            await until(lambda: len(table) == 1, "the record")
            # Killed by its administrator: every connection breaks, the table stays.
            with database.connect() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'weftkit-dataplane%'"
                )
            new = database.publish(dataclasses.replace(old, plan="lite"), silently=True)
            await until(lambda: table.get(old.instance_id) == new, "the change made meanwhile")
        assert table.get(old.instance_id) == new
        await following.stop()


async def test_it_starts_from_the_snapshot_without_a_database(tmp_path: Path) -> None:
    record = instance()
    snapshot.write(tmp_path / "dataplane", [snapshot.read_record(json.dumps(record.to_json()))])
    following = await Following(tmp_path, "postgresql://nobody@/none?host=/nowhere").start()
    assert following.table.get(record.instance_id) == record
    assert following.follower.is_ready.is_set()
    await following.stop()


async def test_the_snapshot_follows_the_table(
    database: ControlDatabase, follow: Follow, tmp_path: Path
) -> None:
    following = await follow(database.dataplane_dsn)
    record = database.publish(instance())

    def is_written() -> bool:
        entries = snapshot.read(tmp_path / "dataplane")
        return [entry.record for entry in entries] == [record]

    await until(is_written, "the snapshot holds the record")
    assert len(following.table) == 1


async def test_a_damaged_snapshot_is_no_obstacle(
    database: ControlDatabase, follow: Follow, tmp_path: Path
) -> None:
    (tmp_path / "dataplane").mkdir()
    (tmp_path / "dataplane" / snapshot.FILE_NAME).write_text("no snapshot")
    record = database.publish(instance())
    table = (await follow(database.dataplane_dsn)).table
    await until(lambda: table.get(record.instance_id) == record, "the record")

"""Time to live: expired items go, within minutes, and in streams they are the service's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engines.keyvalue.session import ttl
from tests.engines.keyvalue.made_tables import index as index_of
from tests.engines.keyvalue.made_tables import look, new_index, put, refused, settled, table
from tests.engines.keyvalue.rig import Rig, running
from tests.engines.keyvalue.test_session_updates import pass_leases
from tests.servers import PostgresServer

SPECIFICATION = {"Enabled": True, "AttributeName": "ends"}


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_ttl")


@pytest_asyncio.fixture
async def rig(dsn: str) -> AsyncIterator[Rig]:
    async with running(dsn) as rigs:
        yield rigs[0]


def item(rig: Rig, key: str, ends_in_s: float) -> dict[str, Any]:
    return {"a": {"S": key}, "ends": {"N": str(int(rig.clock.now() + ends_in_s))}}


async def keys(rig: Rig) -> set[str]:
    got = await rig.perform("Scan", TableName="songs")
    return {each["a"]["S"] for each in got["Items"]}


async def status(rig: Rig) -> dict[str, Any]:
    answer = await rig.perform("DescribeTimeToLive", TableName="songs")
    shown: dict[str, Any] = answer["TimeToLiveDescription"]
    return shown


@pytest.mark.parametrize("stream", [False, True])
async def test_items_of_before_and_after_expire(rig: Rig, stream: bool) -> None:
    more: dict[str, Any] = {}
    if stream:
        more["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": "OLD_IMAGE"}
    await rig.perform("CreateTable", **table("songs", **more))
    assert await status(rig) == {"TimeToLiveStatus": "DISABLED"}
    await put(
        rig,
        "songs",
        item(rig, "long gone", -100),
        item(rig, "soon", 50),
        item(rig, "older than five years", -6 * 365 * 86_400),
        {"a": {"S": "no number"}, "ends": {"S": "1"}},
        {"a": {"S": "without"}},
    )
    answer = await rig.perform(
        "UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=SPECIFICATION
    )
    assert answer == {"TimeToLiveSpecification": SPECIFICATION}
    await settled(rig)
    assert await status(rig) == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ends"}
    kept = {"older than five years", "no number", "without"}
    assert await keys(rig) == kept | {"soon"}
    await put(rig, "songs", item(rig, "later", 70), item(rig, "renewed", 50))
    await put(rig, "songs", item(rig, "renewed", 1_000))
    rig.clock.ahead_s += 60
    # What has expired is there until it is deleted.
    assert await keys(rig) == kept | {"soon", "later", "renewed"}
    await pass_leases(rig)
    await look(rig)
    assert await keys(rig) == kept | {"later", "renewed"}


async def test_the_sweeper_comes_again_and_takes_no_units(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs"))
    await rig.perform("UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=SPECIFICATION)
    await settled(rig)
    await put(rig, "songs", *(item(rig, str(n), 10) for n in range(5)))
    units = dict(rig.gate.units)
    rig.clock.ahead_s += 60
    await look(rig)
    text = (
        "SELECT extract(epoch FROM lease_until - now())::float8 FROM "
        f"\"{rig.record.schema}\".work WHERE kind = 'ttl'"
    )
    rows = await rig.store(rig.record).fetch(text)
    assert 0 < rows[0][0] <= ttl.SWEEP_EVERY_S
    await pass_leases(rig)
    await look(rig)
    assert dict(rig.gate.units) == units
    assert await keys(rig) == set()


async def test_batches_of_any_size_are_deleted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ttl, "BATCH_ROWS", 3)
    await rig.perform("CreateTable", **table("songs"))
    await put(rig, "songs", *(item(rig, str(n), -10) for n in range(10)))
    await rig.perform("UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=SPECIFICATION)
    await settled(rig)
    assert await keys(rig) == set()


async def test_time_to_live_is_switched_off_and_on_for_another_attribute(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs"))
    error = await refused(
        rig,
        "UpdateTimeToLive",
        TableName="songs",
        TimeToLiveSpecification=SPECIFICATION | {"Enabled": False},
    )
    assert error.message == "TimeToLive is already disabled"
    await rig.perform("UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=SPECIFICATION)
    await settled(rig)
    error = await refused(
        rig, "UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=SPECIFICATION
    )
    assert error.message == "TimeToLive is already enabled"
    await put(rig, "songs", item(rig, "x", 10) | {"other": {"N": str(10**10)}})
    off = SPECIFICATION | {"Enabled": False}
    await rig.perform("UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=off)
    rig.clock.ahead_s += 60
    await look(rig)
    assert await keys(rig) == {"x"}
    other = {"Enabled": True, "AttributeName": "other"}
    await rig.perform("UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=other)
    await settled(rig)
    assert await keys(rig) == {"x"}
    rig.clock.ahead_s += 10**10
    await pass_leases(rig)
    rig.clock.ahead_s = 10**10 - rig.clock.now() + 60 + rig.clock.ahead_s
    await look(rig)
    assert await keys(rig) == set()


async def test_time_to_live_goes_on_beside_indexes_and_streams(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs"))
    await rig.perform("UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=SPECIFICATION)
    await settled(rig)
    await put(rig, "songs", item(rig, "x", 10) | {"g": {"S": "y"}})
    stream = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    await rig.perform("UpdateTable", TableName="songs", StreamSpecification=stream)
    await rig.perform("UpdateTable", **new_index("songs", index_of("of_g", "g"), g="S"))
    await settled(rig)
    rig.clock.ahead_s += 60
    await pass_leases(rig)
    await look(rig)
    assert await keys(rig) == set()
    await rig.perform("DeleteTable", TableName="songs")
    await look(rig)
    rows = await rig.store(rig.record).fetch(f'SELECT kind FROM "{rig.record.schema}".work')
    assert [row[0] for row in rows] == ["trim"]


async def test_a_table_is_deleted_while_its_times_are_filled(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs"))
    await put(rig, "songs", *(item(rig, f"song {n}", 50) for n in range(25)))
    await rig.perform("UpdateTimeToLive", TableName="songs", TimeToLiveSpecification=SPECIFICATION)
    await rig.perform("DeleteTable", TableName="songs")
    await settled(rig)
    assert not any(task.exception() for task in rig.tasks.values() if task.done())
    error = await refused(rig, "DescribeTable", TableName="songs")
    assert error.code == "ResourceNotFoundException"
    store = rig.store(rig.record)
    assert await store.fetch(f'SELECT 1 FROM "{rig.record.schema}".work') == []

"""Rounds: every instance in service is looked at by one worker, with others of its cell."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, cast

import pytest

from dataplane.config import Config, Intervals
from dataplane.routing.table import Entry, RecordTable
from dataplane.server.web import rounds
from dataplane.server.web.rounds import Rounds
from engines.keyvalue.engine import ENGINE
from engines.kit.errors import Reason, RequestError
from engines.kit.http.whole import HttpPorts
from engines.kit.records import InstanceRecord, Status
from tests.dataplane.plane import instance

WORKERS = 3


@dataclasses.dataclass
class Settings:
    workers: int = WORKERS
    intervals: Intervals = dataclasses.field(default_factory=lambda: Intervals(look_s=0.001))


def table_of(*records: InstanceRecord) -> RecordTable:
    table = RecordTable()
    for record in records:
        table.put(Entry(record, "{}"))
    return table


def keyvalue(**changes: Any) -> InstanceRecord:
    return instance(**{"engine": "keyvalue", "cell": "one"} | changes)


async def looked_at(
    table: RecordTable, number: int, wanted: int, *, fails_once: bool = False
) -> list[Sequence[InstanceRecord]]:
    """Return the first looks of one worker."""
    looks: list[Sequence[InstanceRecord]] = []
    enough = asyncio.Event()
    failed = not fails_once

    async def look(ports: HttpPorts, records: Sequence[InstanceRecord]) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise RequestError(Reason.BACKEND, "the cell is away")
        looks.append(records)
        if len(looks) == wanted:
            enough.set()

    spec = dataclasses.replace(ENGINE, look=look)
    going = Rounds(spec, cast(HttpPorts, None), table, cast(Config, Settings()), number)
    task = asyncio.ensure_future(going.run())
    async with asyncio.timeout(10):
        await enough.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return looks[:wanted]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SLICE_SECONDS_MIN", 0.001)


async def test_each_instance_in_service_is_in_one_workers_share() -> None:
    active = [keyvalue() for _ in range(50)]
    table = table_of(*active, keyvalue(status=Status.SUSPENDED), instance())
    shares = []
    for number in range(WORKERS):
        (records,) = await looked_at(table, number, 1)
        shares.append([record.instance_id for record in records])
    assert sorted(itertools.chain(*shares)) == sorted(record.instance_id for record in active)
    assert all(shares)


async def test_a_look_is_at_one_cell_and_at_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SLICE_INSTANCES", 4)
    table = table_of(*(keyvalue(cell=cell) for cell in "abab" for _ in range(3)))
    settings = [await looked_at(table, number, 4) for number in range(WORKERS)]
    for looks in settings:
        for records in looks:
            assert len({record.cell for record in records}) == 1
            assert len(records) <= 4


async def test_the_next_round_comes_though_a_cell_is_away() -> None:
    table = table_of(*(keyvalue() for _ in range(20)))
    assert len(await looked_at(table, 0, 2, fails_once=True)) == 2

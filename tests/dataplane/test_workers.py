"""Several real workers under a master: common limits, deaths, and what they need going away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from dataplane.server.forward import TokenBook
from engines.kit.records import InstanceRecord, Limits
from tests.dataplane.plane import (
    MASTER_KEY,
    Client,
    ControlDatabase,
    EchoServer,
    Plane,
    elapsed,
    instance,
    key,
    until,
)
from tests.servers import RedisServer, run_postgres, temporary_home

NewPlane = Callable[..., Plane]


async def clients_on_both(plane: Plane, record: InstanceRecord, password: str) -> list[Client]:
    """Return one signed-in client of each worker."""
    found: dict[int, Client] = {}
    book = TokenBook(plane.home, 0, MASTER_KEY)
    for _ in range(64):
        client = await plane.connect()
        answer = await client.ask(f"LOGIN {record.credentials[0].username} {password}")
        worker = book.owner(int(answer.split()[1]))
        if worker in found:
            await client.close()
        found.setdefault(worker, client)
        if len(found) == 2:
            return list(found.values())
    raise AssertionError("the kernel never chose the other worker")


async def hammer(client: Client, request: str, until_time: float) -> tuple[int, int]:
    """Ask as fast as answers come, waiting out each refusal; return (admitted, refused)."""
    admitted = refused = 0
    while time.monotonic() < until_time:
        answer = await client.ask(request)
        if answer == request:
            admitted += 1
        else:
            refused += 1
            _, reason, retry_after = answer.split()
            assert reason == "rate"
            await asyncio.tasks.sleep(min(float(retry_after), 0.05))
    return admitted, refused


@pytest.mark.parametrize(
    ("request_line", "limits"), [("r x", Limits(read=100)), ("w x", Limits(write=20))]
)
async def test_two_workers_together_admit_the_plans_figure(
    new_plane: NewPlane, database: ControlDatabase, request_line: str, limits: Limits
) -> None:
    credential, password = key()
    record = database.publish(instance(credential, limits=limits))
    plane = new_plane(workers=2)
    plane.start()
    await plane.serve(record)
    clients = await clients_on_both(plane, record, password)
    # Seven windows of a second, cut off before the eighth begins to open.
    seconds = 6.9
    end = time.monotonic() + seconds
    results = await asyncio.gather(*(hammer(client, request_line, end) for client in clients))
    admitted, refused = (sum(column) for column in zip(*results, strict=True))
    per_second = admitted / 7
    limit = limits.read or limits.write
    assert limit is not None
    assert 0.9 * limit <= per_second <= 1.1 * limit
    assert refused > 0
    name = "read" if limits.read else "write"
    usage = plane.database.usage
    await until(
        lambda: (usage(record)[name], usage(record)["refused"]) == (admitted, refused),
        "metered units equal performed units",
    )


async def test_two_workers_together_hold_the_plans_connections(
    new_plane: NewPlane, database: ControlDatabase
) -> None:
    credential, password = key()
    record = database.publish(instance(credential, limits=Limits(connections=7)))
    plane = new_plane(workers=2)
    plane.start()
    await plane.serve(record)
    answers = []
    for _ in range(12):
        client = await plane.connect()
        answers.append(await client.ask(f"LOGIN {credential.username} {password}"))
    assert [answer.split()[0] for answer in answers] == ["OK"] * 7 + ["ERR"] * 5
    assert {answer.split()[1] for answer in answers[7:]} == {"connections"}
    # A killed worker's connections are free again.
    await plane.kill_workers()
    again = await plane.login(credential, password)
    assert await again.ask("r x") == "r x"


async def test_sigkill_under_load_loses_and_doubles_no_unit(
    new_plane: NewPlane, database: ControlDatabase
) -> None:
    credential, password = key()
    record = database.publish(instance(credential))
    plane = new_plane(workers=2)
    plane.start()
    server = await plane.serve(record)
    answered = 0
    for _ in range(3):
        clients = [await plane.login(credential, password) for _ in range(6)]
        batches = [asyncio.create_task(_write_until_lost(client)) for client in clients]
        await until(partial(_has_lines, server, answered + 500), "load")
        await plane.kill_workers()
        answered += sum(await asyncio.gather(*batches))
    assert plane.stop() == 0
    # Counted and then killed before it was forwarded: at most one request a connection and kill.
    units = database.usage(record)["write"]
    assert answered <= len(server.lines) <= units <= answered + 3 * 6


def _has_lines(server: EchoServer, count: int) -> bool:
    return len(server.lines) > count


async def _write_until_lost(client: Client) -> int:
    """Write one request at a time; return how many were answered before the connection broke."""
    answered = 0
    try:
        while await client.ask("w x") == "w x":
            answered += 1
    except ConnectionError:
        pass
    return answered


async def test_a_killed_worker_is_replaced_and_the_other_serves_on(
    new_plane: NewPlane, database: ControlDatabase
) -> None:
    credential, password = key()
    record = database.publish(instance(credential))
    plane = new_plane(workers=2)
    plane.start()
    await plane.serve(record)
    clients = await clients_on_both(plane, record, password)
    before = set(plane.worker_pids())
    os.kill(min(before), signal.SIGKILL)
    await until(
        lambda: len(set(plane.worker_pids()) - before) == 1, "a new worker has been started"
    )
    survivors = 0
    for client in clients:
        try:
            survivors += await client.ask("r alive") == "r alive"
        except ConnectionError:
            continue
    assert survivors == 1


async def test_workers_end_with_their_master(
    new_plane: NewPlane, database: ControlDatabase
) -> None:
    plane = new_plane(workers=2)
    plane.start()
    pids = plane.worker_pids()
    assert plane.master is not None
    plane.master.kill()
    plane.master.wait()

    def all_gone() -> bool:
        return not any(_is_running(pid) for pid in pids)

    await until(all_gone, "the workers have drained and left")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Adopted by init, it may be waiting to be reaped.
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(") ", 1)[1][0] != "Z"


async def test_a_stopped_control_database_stops_nothing(
    new_plane: NewPlane, redis: RedisServer
) -> None:
    credential, password = key()
    with temporary_home() as root, temporary_home("wkd") as home:
        with run_postgres(root) as server:
            database = ControlDatabase(server, "control")
            record = database.publish(instance(credential))
            plane = Plane(home, database, redis)
            plane.start()
            await plane.serve(record)
            old = await plane.login(credential, password)
            snapshot = home / "home" / "dataplane" / "records.jsonl"
            await until(
                lambda: snapshot.exists() and record.instance_id in snapshot.read_text(),
                "the last known good is on disk",
            )
        # The database is down now: old and new connections work on.
        assert await old.ask("w one") == "w one"
        new = await plane.login(credential, password)
        assert await new.ask("w two") == "w two"
        # Also of a data plane that starts without it.
        assert plane.stop() == 0
        took = elapsed()
        plane.start()
        assert took() < 5.0
        third = await plane.login(credential, password)
        assert await third.ask("w three") == "w three"
        await plane.close_parts()
        plane.close()

"""The end of HTTP connections: drain, suspension, work in the background."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from engines.kit.records import InstanceRecord, Status
from tests.dataplane.plane import ControlDatabase, Plane, elapsed, instance, key, until
from tests.dataplane.server.web.http_client import Caller, Front
from tests.dataplane.whole_engine import ENGINE

NewPlane = Callable[..., Plane]


@pytest.fixture
async def draining(
    new_plane: NewPlane, database: ControlDatabase
) -> AsyncIterator[Callable[..., Awaitable[Front]]]:
    fronts: list[Front] = []

    async def start(toml: str = "", **bounds: float) -> Front:
        credential, password = key()
        record = database.publish(instance(credential, engine="whole", cell="local"))
        plane = new_plane(engine=ENGINE, bounds=bounds, cells=f"local={database.dsn}", toml=toml)
        plane.start()
        fronts.append(Front(plane, record, Caller(credential, password)))
        return fronts[-1]

    yield start
    for front in fronts:
        await front.close()


def terminate(plane: Plane) -> asyncio.Task[int]:
    assert plane.master is not None
    plane.master.send_signal(signal.SIGTERM)
    return asyncio.create_task(asyncio.to_thread(plane.master.wait, 30))


async def test_drain_closes_idle_connections_and_finishes_requests(
    draining: Callable[..., Awaitable[Front]],
) -> None:
    front = await draining(drain_grace_s=20.0)
    idle, busy, ahead = await front.open(), await front.open(), await front.open()
    assert (await idle.ask(front.caller.request("/answer", b"x"))).body == b"x"
    for client in (busy, ahead):
        assert (await client.ask(front.caller.request("/answer", b"x"))).body == b"x"
    sleep = front.caller.request("/sql", b"SELECT 1 FROM pg_sleep(1)")
    busy.send(sleep)
    # One under way, one behind it.
    ahead.send(sleep + front.caller.request("/answer", b"behind"))
    await until(
        lambda: len(front.plane.database.rows(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        )) == 2,
        "both requests are under way",
    )  # fmt: skip
    ended = terminate(front.plane)
    assert await idle.is_over()
    answer = await busy.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await busy.is_over()
    assert (await ahead.answer()).status == 200
    last = await ahead.answer()
    assert (last.body, last.headers["connection"]) == (b"behind", "close")
    assert await ended == 0


async def test_drain_ends_what_takes_too_long(
    draining: Callable[..., Awaitable[Front]],
) -> None:
    front = await draining(drain_grace_s=0.3, linger_s=0.3)
    client = await front.open()
    client.send(front.caller.request("/sql", b"SELECT 1 FROM pg_sleep(60)"))
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    await until(lambda: front.plane.database.rows(sleeping) != [], "the request is under way")
    ended, watch = terminate(front.plane), elapsed()
    assert await client.is_over()
    assert await ended == 0
    assert watch() < 10
    await until(lambda: front.plane.database.rows(sleeping) == [], "its statement was stopped")


async def test_work_in_the_background_ends_with_its_instance(
    draining: Callable[..., Awaitable[Front]],
) -> None:
    front = await draining()
    client = await front.open()
    work = front.caller.request("/work", b"SELECT 1 FROM pg_sleep(60)")
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    # The second is work of the same name, and is not begun.
    assert [(await client.ask(work)).status for _ in range(2)] == [200, 200]
    await until(lambda: len(front.plane.database.rows(sleeping)) == 1, "it goes on")
    front.plane.database.publish(
        InstanceRecord.from_json({**front.record.to_json(), "status": Status.SUSPENDED.value})
    )
    await until(lambda: front.plane.database.rows(sleeping) == [], "it was stopped")


async def test_anonymous_access_is_for_the_default_instance_alone_and_is_logged(
    draining: Callable[..., Awaitable[Front]],
) -> None:
    front = await draining(toml="[keyvalue]\nanonymous = true\n")
    request = b"POST /echo HTTP/1.1\r\nhost: h\r\nauthorization: anybody x\r\n"
    client = await front.open()
    # The setting is that of another engine.
    assert (await client.ask(request + b"content-length: 0\r\n\r\n")).body == b"unauthenticated"
    assert front.plane.logged("anonymous_access") == []

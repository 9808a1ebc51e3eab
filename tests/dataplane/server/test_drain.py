"""SIGTERM against real workers: readiness, goodbyes, grace, and an exit code of 0."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest

from tests.dataplane.plane import ControlDatabase, EchoServer, Plane, elapsed, instance, key, until

NewPlane = Callable[..., Plane]


class Draining:
    """A plane with an idle and a busy client."""

    def __init__(self, plane: Plane, server: EchoServer, sign_in: str) -> None:
        self.plane = plane
        self.server = server
        self.sign_in = sign_in

    def terminate(self) -> asyncio.Task[int]:
        assert self.plane.master is not None
        self.plane.master.send_signal(signal.SIGTERM)
        return asyncio.create_task(asyncio.to_thread(self.plane.master.wait, 30))


@pytest.fixture
async def draining(new_plane: NewPlane, database: ControlDatabase) -> Callable[..., object]:
    async def start(**bounds: float) -> tuple[Draining, Callable[[], object]]:
        credential, password = key()
        record = database.publish(instance(credential))
        plane = new_plane(bounds=bounds)
        plane.start()
        server = await plane.serve(record)
        sign_in = f"LOGIN {credential.username} {password}"
        return Draining(plane, server, sign_in), lambda: plane.login(credential, password)

    return start


async def test_idle_sessions_leave_at_once_and_busy_ones_after_their_answer(
    draining: Callable[..., object],
) -> None:
    case, login = await draining(drain_grace_s=20.0)  # type: ignore[misc]
    idle, busy = await login(), await login()
    busy.send("u hold")
    await until(lambda: case.server.lines == ["u hold"], "the request is under way")
    assert case.plane.admin("/readyz") == (200, "ready\n")
    ended = case.terminate()
    assert await idle.rest() == "BYE shutdown\n"
    assert case.plane.admin("/readyz") == (503, "not ready\n")
    assert case.plane.admin("/healthz") == (200, "ok\n")
    with pytest.raises(ConnectionRefusedError):
        await case.plane.connect()
    case.server.release.set()
    assert await busy.rest() == "u hold\nBYE shutdown\n"
    assert await ended == 0


async def test_what_exceeds_the_grace_period_is_cut_off(draining: Callable[..., object]) -> None:
    case, login = await draining(drain_grace_s=0.3)  # type: ignore[misc]
    busy = await login()
    busy.send("u hold")
    await until(lambda: case.server.lines == ["u hold"], "the request is under way")
    took = elapsed()
    ended = case.terminate()
    assert await busy.rest() == "BYE shutdown\n"
    assert 0.2 < took() < 3.0
    assert await ended == 0


async def test_a_sign_in_under_way_is_refused_with_shutdown(
    draining: Callable[..., object],
) -> None:
    case, login = await draining()  # type: ignore[misc]
    await login()
    late = await case.plane.connect()
    late.writer.write(case.sign_in[:10].encode())
    await until(lambda: bool(case.plane.logged("signed_in")), "the first one is in")
    ended = case.terminate()
    await until(lambda: bool(case.plane.logged("draining")), "it drains")
    late.send(case.sign_in[10:])
    assert (await late.line()).startswith("ERR shutdown ")
    assert await ended == 0


async def test_the_last_usage_is_delivered_before_the_end(draining: Callable[..., object]) -> None:
    case, login = await draining()  # type: ignore[misc]
    client = await login()
    for number in range(10):
        assert await client.ask(f"w {number}") == f"w {number}"
    assert await case.terminate() == 0
    rows = case.plane.database.rows("SELECT sum(write_units)::int FROM publish.usage_intake")
    assert rows == [(10,)]
    assert list((case.plane.home / "dataplane" / "usage").iterdir()) == []

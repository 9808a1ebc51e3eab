"""The way to a server that sleeps: one question for all, and patience without a host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dataplane.backend.instance_server import InstanceServers
from dataplane.host import paths, wake_socket
from dataplane.host.wake_socket import WakeSocket
from engines.kit.contract import Placement
from engines.kit.errors import Reason, RequestError
from tests.dataplane.plane import instance

RECORD = instance()
PLACEMENT = Placement.REDIS_SERVER


class Sleepy:
    """An instance's server that listens once it was woken; keeps what it was asked."""

    def __init__(self, run_dir: Path) -> None:
        self.path = paths.redis_socket(run_dir, RECORD.instance_id)
        self.path.parent.mkdir(parents=True)
        self.asked: list[str] = []
        self.is_asked = asyncio.Event()
        self.may_wake = asyncio.Event()
        self.answer = True
        self._server: asyncio.Server | None = None

    async def wake(self, instance_id: str) -> bool:
        self.asked.append(instance_id)
        self.is_asked.set()
        await self.may_wake.wait()
        if self.answer and self._server is None:
            self._server = await asyncio.start_unix_server(lambda _, w: w.close(), str(self.path))
        return self.answer

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


@pytest.fixture
async def sleepy(home: Path) -> AsyncIterator[Sleepy]:
    """A sleeping instance, and the socket of a host that knows it."""
    server = Sleepy(home)
    host = WakeSocket(paths.wake_socket(home), server.wake)
    await host.start()
    yield server
    host.close()
    server.close()


async def test_many_clients_ask_the_host_once(home: Path, sleepy: Sleepy) -> None:
    servers = InstanceServers(home)
    connects = [
        asyncio.create_task(servers.connect(PLACEMENT, RECORD, within_s=5)) for _ in range(20)
    ]
    await sleepy.is_asked.wait()
    # One that gives up takes nothing from the others.
    connects.pop().cancel()
    sleepy.may_wake.set()
    channels = await asyncio.gather(*connects)
    assert len(channels) == 19
    assert sleepy.asked == [RECORD.instance_id]
    for channel in channels:
        channel.close()


async def test_a_refusal_or_no_host_at_all_ends_in_an_error_at_the_deadline(
    home: Path, sleepy: Sleepy
) -> None:
    sleepy.answer = False
    sleepy.may_wake.set()
    for run_dir in (home, home / "nowhere"):
        with pytest.raises(RequestError) as raised:
            await InstanceServers(run_dir).connect(PLACEMENT, RECORD, within_s=0.2)
        assert raised.value.reason is Reason.BACKEND
    assert len(sleepy.asked) > 1, "who is refused may be let in a moment later"


async def test_a_host_that_comes_late_is_asked_then(home: Path) -> None:
    server = Sleepy(home)
    server.may_wake.set()
    connect = asyncio.create_task(InstanceServers(home).connect(PLACEMENT, RECORD, within_s=5))
    await asyncio.sleep(0)
    host = WakeSocket(paths.wake_socket(home), server.wake)
    await host.start()
    (await connect).close()
    host.close()
    server.close()


async def test_the_hosts_socket_is_ours_alone_and_answers_one_question_in_one_byte(
    home: Path, sleepy: Sleepy
) -> None:
    path = paths.wake_socket(home)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    sleepy.may_wake.set()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(bytes(wake_socket.QUESTION_BYTES))
    assert await reader.read() == wake_socket.READY
    writer.close()
    assert sleepy.asked == ["00000000-0000-0000-0000-000000000000"]


@pytest.mark.parametrize("said", [b"", b"short"])
async def test_who_asks_nothing_is_hung_up_on(
    said: bytes, home: Path, sleepy: Sleepy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_socket, "QUESTION_SECONDS_MAX", 0.05)
    reader, writer = await asyncio.open_unix_connection(str(paths.wake_socket(home)))
    writer.write(said)
    assert await reader.read() == b""
    writer.close()
    assert sleepy.asked == []


async def test_a_client_that_leaves_is_not_waited_for(home: Path) -> None:
    ended = asyncio.Event()

    async def wake(instance_id: str) -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return False

    host = WakeSocket(paths.wake_socket(home), wake)
    await host.start()
    _, writer = await asyncio.open_unix_connection(str(paths.wake_socket(home)))
    writer.write(bytes(wake_socket.QUESTION_BYTES))
    await writer.drain()
    writer.close()
    async with asyncio.timeout(5):
        await ended.wait()
    host.close()

"""Bytes between client and server: order, volume, back-pressure, ends, and what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.kit.records import InstanceRecord, Limits
from tests.dataplane.plane import (
    Client,
    ControlDatabase,
    EchoServer,
    Plane,
    elapsed,
    instance,
    key,
    until,
)

NewPlane = Callable[..., Plane]


class Line:
    """A signed-in client, its instance's server, and the plane between."""

    def __init__(
        self, plane: Plane, record: InstanceRecord, server: EchoServer, client: Client
    ) -> None:
        self.plane = plane
        self.record = record
        self.server = server
        self.client = client


@pytest.fixture
async def line(plane: Plane) -> Line:
    credential, password = key()
    record = await plane.know(instance(credential))
    server = await plane.serve(record)
    return Line(plane, record, server, await plane.login(credential, password))


async def test_requests_that_came_with_the_sign_in_are_not_lost(
    plane: Plane,
) -> None:
    credential, password = key()
    record = await plane.know(instance(credential))
    await plane.serve(record)
    client = await plane.connect()
    client.send(f"LOGIN {credential.username} {password}", "r one", "r two")
    assert (await client.line()).startswith("OK")
    assert [await client.line(), await client.line()] == ["r one", "r two"]


async def test_a_long_pipeline_keeps_its_order(line: Line) -> None:
    sent = [f"r {number}" for number in range(20_000)]
    line.client.send(*sent)
    assert [await line.client.line() for _ in sent] == sent


async def test_large_answers_arrive_whole(line: Line) -> None:
    size = 20_000_000
    line.client.send(f"u big {size}")
    async with asyncio.timeout(20):
        data = await line.client.reader.readexactly(size + 1)
    assert data == b"x" * size + b"\n"


async def test_a_client_that_does_not_read_does_not_fill_our_memory(line: Line) -> None:
    (worker,) = line.plane.worker_pids()

    def resident_kb() -> int:
        status = Path(f"/proc/{worker}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    before = resident_kb()
    line.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    line.client.send(*["u big 1000000"] * 100)
    await until(lambda: len(line.server.lines) >= 3, "the server is held up")
    settled = len(line.server.lines)
    assert resident_kb() - before < 30_000
    assert settled < 60
    line.client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        await line.client.reader.readexactly(100 * 1_000_001)


async def test_a_half_closed_client_still_gets_its_answers(line: Line) -> None:
    line.client.send("r last", "r words")
    line.client.writer.write_eof()
    assert await line.client.rest() == "r last\nr words\n"


async def test_a_half_closed_client_is_not_waited_for_for_ever(line: Line) -> None:
    line.client.send("u hold")
    line.client.writer.write_eof()
    took = elapsed()
    assert await line.client.rest() in ("", "reset")
    assert took() < 5.0


async def test_the_end_of_the_server_ends_the_client(line: Line) -> None:
    assert await line.client.ask("r here") == "r here"
    await line.server.close()
    assert await line.client.rest() in ("", "reset")


async def test_a_client_that_breaks_the_protocol_is_told_and_closed(line: Line) -> None:
    line.client.writer.write(b"x" * 5000)
    assert await line.client.rest() == "BYE limit\n"


async def test_requests_wait_in_order_while_units_are_fetched(
    plane: Plane,
) -> None:
    credential, password = key()
    record = await plane.know(instance(credential, limits=Limits(read=50)))
    server = await plane.serve(record)
    client = await plane.login(credential, password)
    sent = [f"r {number}" if number % 2 else f"u {number}" for number in range(80)]
    client.send(*sent)
    assert [await client.line() for _ in sent] == sent
    assert server.lines == sent


async def test_metered_units_and_bytes_equal_what_was_done(line: Line) -> None:
    sent = ["r a", "r b", "w c", "g d", "q e", "u f"]
    for text in sent:
        assert await line.client.ask(text) == text
    await line.client.close()
    size = sum(len(text) + 1 for text in sent)
    expected = {
        "read": 2, "write": 2, "query": 1, "unlimited": 1, "refused": 0,
        "bytes_in": size, "bytes_out": size,
    }  # fmt: skip
    usage = line.plane.database.usage
    await until(lambda: usage(line.record) == expected, "usage arrives")


async def test_a_server_that_cannot_be_reached_is_said_so(
    new_plane: NewPlane, database: ControlDatabase
) -> None:
    credential, password = key()
    database.publish(instance(credential))
    plane = new_plane(bounds={"backend_connect_s": 0.2})
    plane.start()
    client = await plane.connect()
    answer = await client.ask(f"LOGIN {credential.username} {password}")
    assert answer.startswith("ERR backend ")


async def test_a_server_that_is_being_started_is_waited_for(
    plane: Plane,
) -> None:
    credential, password = key()
    record = await plane.know(instance(credential))
    client = await plane.connect()
    client.send(f"LOGIN {credential.username} {password}")
    await until(lambda: len(plane.logged("signed_in")) == 1, "the sign-in is past the proof")
    await plane.serve(record)
    assert (await client.line()).startswith("OK ")

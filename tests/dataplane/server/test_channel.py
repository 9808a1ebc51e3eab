"""The awaitable byte stream of the sign-in: any split of the bytes reads alike."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.server.channel import READ_AHEAD_BYTES_MAX, StreamChannel


class Pipe:
    """A transport that only remembers what was asked of it."""

    def __init__(self) -> None:
        self.is_paused = False
        self.writes: list[bytes] = []
        self.is_closed = False

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.is_closed = True

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol


def connected() -> tuple[StreamChannel, Pipe]:
    channel, pipe = StreamChannel(), Pipe()
    channel.connection_made(pipe)  # type: ignore[arg-type]
    return channel, pipe


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.lists(st.integers(min_value=1, max_value=60), max_size=8),
)
def test_reads_return_what_was_sent_however_it_was_split(
    pieces: list[bytes], sizes: list[int]
) -> None:
    async def read_all() -> bytes:
        channel, _ = connected()
        loop = asyncio.get_running_loop()
        for piece in pieces:
            loop.call_soon(channel.data_received, piece)
        loop.call_soon(channel.eof_received)
        data = b""
        for size in sizes:
            try:
                data += await channel.read_exactly(size)
            except EOFError:
                break
        while rest := await channel.read():
            data += rest
        return data

    assert asyncio.run(read_all()) == b"".join(pieces)


async def test_what_was_unread_comes_first_again() -> None:
    channel, _ = connected()
    channel.data_received(b"world")
    channel.unread(b"hello ")
    assert await channel.read_exactly(8) == b"hello wo"
    assert await channel.read() == b"rld"


async def test_a_stream_that_ends_early_is_an_eof_error() -> None:
    channel, _ = connected()
    channel.data_received(b"abc")
    channel.connection_lost(None)
    with pytest.raises(EOFError, match="2 bytes too early"):
        await channel.read_exactly(5)
    assert await channel.read() == b"abc"
    assert await channel.read() == b""


async def test_reading_ahead_is_bounded_and_goes_on_when_read() -> None:
    channel, pipe = connected()
    channel.data_received(bytes(READ_AHEAD_BYTES_MAX))
    assert pipe.is_paused
    await channel.read()
    assert not pipe.is_paused


async def test_a_read_larger_than_the_bound_is_still_served() -> None:
    channel, pipe = connected()
    reading = asyncio.create_task(channel.read_exactly(READ_AHEAD_BYTES_MAX * 2))
    await asyncio.tasks.sleep(0)
    for _ in range(2):
        assert not pipe.is_paused
        channel.data_received(bytes(READ_AHEAD_BYTES_MAX))
    assert len(await reading) == READ_AHEAD_BYTES_MAX * 2


async def test_drain_waits_until_the_peer_takes_more() -> None:
    channel, _ = connected()
    channel.pause_writing()
    draining = asyncio.create_task(channel.drain())
    await asyncio.tasks.sleep(0)
    assert not draining.done()
    channel.resume_writing()
    await draining


async def test_detaching_hands_over_the_rest_and_resumes_the_transport() -> None:
    channel, pipe = connected()
    channel.data_received(bytes(READ_AHEAD_BYTES_MAX))
    successor = asyncio.Protocol()
    assert channel.detach(successor) == bytes(READ_AHEAD_BYTES_MAX)
    assert pipe.protocol is successor
    assert not pipe.is_paused


async def test_the_writes_of_one_turn_leave_together_and_before_what_follows() -> None:
    channel, pipe = connected()
    channel.write(b"a")
    channel.write(b"b")
    assert pipe.writes == []
    await asyncio.tasks.sleep(0)
    assert pipe.writes == [b"ab"]
    channel.write(b"c")
    await channel.drain()
    channel.write(b"d")
    channel.detach(asyncio.Protocol())
    assert pipe.writes == [b"ab", b"c", b"d"]


async def test_writing_to_a_closed_transport_is_silent() -> None:
    channel, pipe = connected()
    channel.write(b"a")
    channel.close()
    channel.write(b"b")
    assert pipe.writes == [b"a"]

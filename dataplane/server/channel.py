"""A byte stream with await, over an asyncio transport: both ends of a connection while signing in.

Afterwards the splice takes the transport and what was read too much (`detach`). What arrives is
bounded by pausing the transport, what leaves by `drain`; the listener's deadline bounds the waits.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address
from typing import cast

from engines.kit.ports import Tls

READ_AHEAD_BYTES_MAX = 64 * 1024
WRITE_AHEAD_BYTES_MAX = 256 * 1024


def keeps_way_back(transport: asyncio.BaseTransport) -> bool:
    """Say whether bytes can be sent after the peer's EOF: not inside TLS."""
    return transport.get_extra_info("ssl_object") is None


class StreamChannel:
    """`ports.Channel` over one transport.

    A plain class, so that it can be compiled: the loop asks for the methods of a protocol only.
    """

    def __init__(self) -> None:
        # Asked for once: the loop's own getter makes a system call each time.
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._outgoing: list[bytes] = []
        self._wanted = 1
        self._waiter: asyncio.Future[None] | None = None
        self._is_full = False
        self._room: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_ended = False

    @property
    def transport(self) -> asyncio.Transport:
        """The transport below."""
        assert self._transport is not None, "not connected yet"
        return self._transport

    @property
    def is_ended(self) -> bool:
        """True once the peer will send no more."""
        return self._is_ended

    def as_protocol(self) -> asyncio.Protocol:
        """Return the channel as the event loop wants it: a factory of a transport's protocol."""
        return cast(asyncio.Protocol, self)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES_MAX)

    def data_received(self, data: bytes) -> None:
        """Keep the bytes until they are read."""
        self._received += data
        if len(self._received) >= max(self._wanted, READ_AHEAD_BYTES_MAX) and not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()
        if len(self._received) >= self._wanted:
            self._wake()

    def eof_received(self) -> bool:
        """Note the end; keep the way back open where there is one."""
        self._is_ended = True
        self._wake()
        return keeps_way_back(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of both ways."""
        self._is_ended = True
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        """Let `drain` wait."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Let `drain` go on."""
        self._is_full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # What an engine calls.

    async def read(self) -> bytes:
        """Return the next bytes, at least one; b"" at the end of the stream."""
        if not self._received:
            await self._wait_for(1)
        return self._take(len(self._received))

    async def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes; raises EOFError if the stream ends before."""
        if len(self._received) < size:
            await self._wait_for(size)
        if len(self._received) < size:
            raise EOFError(f"the stream ended {size - len(self._received)} bytes too early")
        return self._take(size)

    def unread(self, data: bytes) -> None:
        """Put `data` back in front of what the next read returns."""
        self._received[:0] = data

    def write(self, data: bytes) -> None:
        """Queue `data`."""
        # uvloop makes a system call, and TLS a record, of every write: send a turn's writes as one.
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)

    async def drain(self) -> None:
        """Wait until the peer takes more."""
        self._flush()
        if self._is_full:
            assert self._room is None, "two writers wait on one channel"
            self._room = self._loop.create_future()
            try:
                await self._room
            finally:
                self._room = None

    def close(self) -> None:
        """Flush what is queued, then close."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    # What the splice and the listener call.

    def abort(self) -> None:
        """Close without flushing."""
        if self._transport is not None:
            self._transport.abort()

    def detach(self, successor: asyncio.Protocol) -> bytes:
        """Hand the transport to `successor`; return what was read and not consumed."""
        self._flush()
        rest = bytes(self._received)
        self._received.clear()
        self.transport.set_protocol(successor)
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()
        return rest

    def _flush(self) -> None:
        if self._outgoing and not self.transport.is_closing():
            self.transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    async def _wait_for(self, size: int) -> None:
        if self._is_ended:
            return
        assert self._waiter is None, "two readers on one channel"
        self._wanted = size
        self._resume()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._wanted = 1

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self, size: int) -> bytes:
        data = bytes(self._received[:size])
        del self._received[:size]
        if len(self._received) < READ_AHEAD_BYTES_MAX:
            self._resume()
        return data

    def _resume(self) -> None:
        if self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()


class ClientStream(StreamChannel):
    """`ports.ClientChannel`: the client's end, with what the listener knows about it."""

    def __init__(self, address: IPv4Address | IPv6Address, connection_id: str) -> None:
        super().__init__()
        self._address = address
        self._connection_id = connection_id
        self._tls: Tls | None = None

    @property
    def address(self) -> IPv4Address | IPv6Address:
        """The client's address as the listener saw it."""
        return self._address

    @property
    def tls(self) -> Tls | None:
        """The handshake's facts, or None on a plain connection."""
        return self._tls

    @property
    def connection_id(self) -> str:
        """The request id of this connection in logs and messages."""
        return self._connection_id

    def secured(self, facts: Tls) -> None:
        """Note that TLS has been established."""
        self._tls = facts

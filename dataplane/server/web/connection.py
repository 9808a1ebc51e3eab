"""One client's HTTP connection: its requests one after the other, its deadlines, its end.

A task a connection takes each whole request, awaits the engine's handler, and writes the answer, so
answers keep the order of their requests. What a client sends ahead is read up to a bound; a client
that does not take its answers gets no more of them made. A client that goes away stops nothing that
has begun: the request under way is finished, and what waited behind it is dropped.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from dataplane.observe.log import ConnectionLog
from dataplane.server.channel import WRITE_AHEAD_BYTES_MAX, ClientStream, keeps_way_back
from dataplane.server.web.answers import CONTINUE, rendered
from dataplane.server.web.framing import FramingError, Received, RequestReader
from engines.kit.http.whole import HttpAnswer

if TYPE_CHECKING:
    from dataplane.server.web.front import HttpFront
    from dataplane.server.web.http_ports import Account

# Requests that are read before the first of them is answered.
AHEAD_MAX = 32
# So fast, at least, must a body come, beyond `body_timeout_s`.
BODY_BYTES_PER_S_MIN = 128 * 1024
# After a refusal in the middle of a request its rest is dropped, so that the answer is read.
DROPPED_BYTES_MAX = 64 * 1024 * 1024
_NEVER = float("inf")


class HttpConnection:
    """A plain class, so that it can be compiled: the loop asks for a protocol's methods only."""

    def __init__(self, front: HttpFront, client: ClientStream, log: ConnectionLog) -> None:
        self.front = front
        self.log = log
        self.address = client.address
        self.connection_id = client.connection_id
        self._loop = front.loop
        self._reader = RequestReader(
            body_bytes_max=front.body_bytes_max,
            room=front.room,
            address=client.address,
            server_name=client.tls.server_name if client.tls else "",
            connection_id=client.connection_id,
        )
        # Whom requests of this connection have proven to be (http_ports); and whose this one is.
        self.accounts: dict[str, Account] = {}
        self.account: Account | None = None
        # When somebody has to act, and what is overdue then.
        self.deadline = self._loop.time() + front.bounds.keep_alive_s
        self._began = 0.0
        self._transport: asyncio.Transport | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._fault: FramingError | None = None
        self._bytes_in = 0
        self._dropped_bytes = 0
        self._is_busy = False
        self._is_full = False
        self._is_paused = False
        self._is_ending = False
        self._is_dropping = False
        self._is_lost = False
        self._has_sent_continue = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """True while no request is under way, nor being read."""
        return not (self._is_busy or self._reader.is_reading or self._reader.ready)

    def idle_s(self, now: float) -> float:
        """Return for how long no request has come; 0 while one is under way."""
        if not self.is_idle or self.deadline == _NEVER:
            return 0.0
        return now - (self.deadline - self.front.bounds.keep_alive_s)

    def start(self, client: ClientStream) -> None:
        """Take the connection over from the listener."""
        self._transport = client.transport
        rest = client.detach(cast(asyncio.Protocol, self))
        self._task = self._loop.create_task(self._run())
        if rest:
            self.data_received(rest)
        if client.is_ended:
            self.eof_received()

    def end_when_idle(self) -> None:
        """Close behind the requests that have been read or are being read, or now."""
        self._is_ending = True
        if not self._reader.is_reading:
            self._reader.end()
        self._wake()

    def abort(self) -> None:
        """Close now. What a handler does at this moment is cancelled."""
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def overdue(self, now: float) -> None:
        """Do what has to be done at the deadline."""
        self.deadline = _NEVER
        if self._is_full or self._is_dropping or self._fault is not None:
            # It does not take its answers, or does not go.
            assert self._transport is not None
            self._transport.abort()
        elif self._reader.is_reading:
            self._refuse(FramingError(408, "the request came too slowly"))
        elif not self._is_busy:
            self.end_when_idle()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Never: the transport comes from the listener."""

    def data_received(self, data: bytes) -> None:
        """Read requests; drop what comes after a refusal."""
        if self._is_dropping or self._fault is not None:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > DROPPED_BYTES_MAX and self._transport is not None:
                self._transport.abort()
            return
        self._bytes_in += len(data)
        reader = self._reader
        was_reading = reader.is_reading
        try:
            reader.feed(data)
        except FramingError as fault:
            self._refuse(fault)
            return
        if reader.is_reading:
            self._read_on(begins=not was_reading or bool(reader.ready))
        if reader.ready:
            if len(reader.ready) >= AHEAD_MAX and not self._is_paused:
                self._is_paused = True
                cast(asyncio.Transport, self._transport).pause_reading()
            self._wake()

    def eof_received(self) -> bool:
        """Answer what was asked, if there is a way back, and close."""
        self._is_ending = True
        if self._reader.is_reading:
            # Half a request, which nobody will complete.
            self._reader.end()
            self._reader.is_reading = False
        self._wake()
        transport = self._transport
        return transport is not None and not self.is_idle and keeps_way_back(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the request under way end by itself; forget the others."""
        self._is_lost = self._is_ending = True
        self._reader.drop()
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        """Make no more answers for now."""
        self._is_full = True
        self.deadline = self._loop.time() + self.front.bounds.body_timeout_s

    def resume_writing(self) -> None:
        """Go on."""
        self._is_full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # The connection's task.

    async def _run(self) -> None:
        try:
            cast(asyncio.Transport, self._transport).set_write_buffer_limits(
                high=WRITE_AHEAD_BYTES_MAX
            )
            while not self._is_over():
                if self._reader.ready:
                    if not await self._serve(self._reader.ready.popleft()):
                        break
                else:
                    self._wanted = self._loop.create_future()
                    await self._wanted
        except asyncio.CancelledError:
            pass
        except Exception:  # one connection's fault must stay its own
            self.log.exception("http_connection_failed")
        finally:
            self._close()

    def _is_over(self) -> bool:
        """Say whether nothing is left to be served; tell a client to go on that waits for it."""
        reader = self._reader
        if self._is_lost or reader.ready:
            return self._is_lost
        if self._fault is not None:
            return True
        if reader.wants_continue and reader.is_in_body and not self._has_sent_continue:
            self._has_sent_continue = True
            cast(asyncio.Transport, self._transport).write(CONTINUE)
        return self._is_ending and not reader.is_reading

    async def _serve(self, received: Received) -> bool:
        loop, front = self._loop, self.front
        self._is_busy = True
        self._has_sent_continue = False
        self.account = None
        self.deadline = _NEVER
        started = loop.time()
        try:
            answer = await front.handler(received.call)
        except Exception:  # the engine answers all that a client can cause
            self.log.exception("request_failed")
            answer = front.refusal(500)
        finally:
            front.room.give(received.room_bytes)
        self._is_busy = False
        now = loop.time()
        front.observe(answer, now - started, self.log)
        is_last = self._is_ending and not (self._reader.ready or self._reader.is_reading)
        closes = answer.closes or is_last or not received.keeps_alive
        self._write(answer, received, closes)
        if closes or self._is_lost:
            return False
        if self._is_full:
            await self._until_taken()
            now = loop.time()
        self._await_next(now)
        return True

    def _write(self, answer: HttpAnswer, received: Received, closes: bool) -> None:
        data = rendered(
            answer,
            is_http_10=received.is_http_10,
            closes=closes,
            is_head=received.call.method == "HEAD",
        )
        if self.account is not None:
            self.account.count_bytes(self._bytes_in, len(data))
        self._bytes_in = 0
        if not self._is_lost:
            cast(asyncio.Transport, self._transport).write(data)

    def _await_next(self, now: float) -> None:
        reader = self._reader
        if reader.is_reading:
            self._began = now
            self._read_on(begins=False)
        else:
            self.deadline = now + self.front.bounds.keep_alive_s
        if self._is_paused and len(reader.ready) <= AHEAD_MAX // 2:
            self._is_paused = False
            cast(asyncio.Transport, self._transport).resume_reading()

    def _read_on(self, *, begins: bool) -> None:
        """Set the deadline of a request that has come in part."""
        bounds, reader = self.front.bounds, self._reader
        if begins:
            self._began = self._loop.time()
        if self._is_busy or self._is_full:
            return
        if reader.is_in_body:
            seconds = bounds.body_timeout_s + reader.body_bytes / BODY_BYTES_PER_S_MIN
            if reader.wants_continue and not self._has_sent_continue:
                self._wake()
        else:
            seconds = bounds.head_timeout_s
        self.deadline = self._began + seconds

    async def _until_taken(self) -> None:
        self._room = self._loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def _refuse(self, fault: FramingError) -> None:
        """Answer behind what waits to be answered, and close."""
        self._fault = fault
        self._reader.end()
        self._reader.is_reading = False
        self.deadline = self._loop.time() + self.front.bounds.body_timeout_s
        self._wake()

    def _close(self) -> None:
        """Write the last refusal, and close once the client has had a chance to read it."""
        self._reader.drop()
        self.front.closed(self)
        transport = cast(asyncio.Transport, self._transport)
        if self._fault is None or self._is_lost or transport.is_closing():
            transport.close()
            # A peer that does not take its last bytes must not keep the socket.
            self._loop.call_later(self.front.bounds.linger_s, transport.abort)
            return
        self.front.refused(self, self._fault)
        transport.write(rendered(self.front.refusal(self._fault.status), closes=True))
        if transport.can_write_eof():
            transport.write_eof()
        # Closing with bytes unread would reset the connection, and the answer with it.
        self._is_dropping = True
        if self._is_paused:
            transport.resume_reading()
        self._loop.call_later(self.front.bounds.linger_s, transport.abort)

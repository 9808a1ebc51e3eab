"""A signed-in connection that has a session of the server for a transaction at a time.

    client --> relay.from_client --> multiplexer.from_client --> the session, if there is one
    client <-- relay.from_server <-- multiplexer.from_server <-- the session

Like the splice (`splice`), but the server's side comes and goes: while the multiplexer waits for a
session nothing is read from the client, so that what is held stays as small as one read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import cast

from dataplane.backend.pooled_sessions import Pool, PooledConnection, PooledSessions
from dataplane.observe.counters import BYTES_IN_WORD, BYTES_OUT_WORD, Slot
from dataplane.observe.log import ConnectionLog
from dataplane.server.channel import ClientStream, keeps_way_back
from dataplane.server.splice import ANSWERS_BYTES_MAX, LOT_BYTES
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Gate, Pooled
from engines.kit.records import InstanceRecord

# Why reading from the client is paused; several may hold at once.
_SERVER_IS_FULL = 1
_ANSWERS_ARE_FULL = 2
_UNITS_ARE_AWAITED = 4
_SESSION_IS_AWAITED = 8


class PooledSplice:
    """One client of a pool; `pooled_sessions.Holder`."""

    def __init__(
        self,
        pooled: Pooled,
        record: InstanceRecord,
        pools: PooledSessions,
        gate: Gate,
        slot: Slot,
        *,
        linger_s: float,
        on_end: Callable[[], None],
        on_closed: Callable[[], None],
        log: ConnectionLog,
    ) -> None:
        self.pooled = pooled
        self.since = 0.0
        self.is_told = False
        self._relay = pooled.relay
        self._multiplexer = pooled.multiplexer
        self._pools = pools
        self._pool: Pool = pools.enter(record, pooled)
        self._gate = gate
        self._slot = slot
        # Passed, and not yet in the counter file.
        self._bytes_in = 0
        self._bytes_out = 0
        self._linger_s = linger_s
        self._on_end = on_end
        self._on_closed = on_closed
        self._log = log
        self.client: asyncio.Transport
        self._connection: PooledConnection | None = None
        self._last: PooledConnection | None = None
        self._is_waiting = False
        self._is_client_full = False
        self._pauses = 0
        self._is_held = False
        self._held: list[bytes] = []
        self._fetching: asyncio.Task[None] | None = None
        self._client_ended = False
        self._farewell: RequestError | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._is_over = False
        self._is_advancing = False

    def start(self, client: ClientStream) -> None:
        """Take the client's transport, with what was read ahead; greet it as soon as can be."""
        self.client = client.transport
        from_client = client.detach(cast(asyncio.Protocol, self))
        if from_client:
            self.data_received(from_client)
        self._advance()
        if self.client.is_closing():
            self._leave()
        elif client.is_ended:
            self._end_of_client()

    # What sessions and drains call, as they call a splice.

    def end(self, error: RequestError) -> None:
        """Say the protocol's farewell and close. Safe to call at any time, more than once."""
        if self._is_over:
            return
        last_words = [*self._relay.to_client]
        with self._faults_logged():
            last_words.append(self._relay.goodbye(error))
        if not self.client.is_closing():
            self.client.write(b"".join(last_words))
        self._leave()

    def end_when_idle(self, error: RequestError) -> None:
        """End now if no request is under way, else as soon as none is."""
        self._farewell = error
        self._end_if_idle()

    async def cancel(self) -> None:
        """Stop the statement that this client has under way, if it has one."""
        connection = self._connection
        if connection is not None:
            await self._pool.cancel(connection)

    def count_bytes(self) -> None:
        """Put what has passed and is not yet counted into the counter file."""
        cells, base = self._slot.cells, self._slot.base
        cells[base + BYTES_IN_WORD] += self._bytes_in
        cells[base + BYTES_OUT_WORD] += self._bytes_out
        self._bytes_in = self._bytes_out = 0

    def _end_if_idle(self) -> None:
        if self._farewell is not None and self._relay.is_idle:
            self.end(self._farewell)

    # What the client's transport calls.

    def data_received(self, data: bytes) -> None:
        """Admit what arrives, and pass it on."""
        self._bytes_in += len(data)
        if self._bytes_in > LOT_BYTES:
            self.count_bytes()
        if self._is_held:
            if not self._is_over:
                self._held.append(data)
            return
        try:
            self._take(data)
        except Exception as error:  # noqa: BLE001 - `_failed` logs it and ends the session
            self._failed(error)
            return
        if self._relay.waiting is not None:
            self._fetch_soon()
        elif self._relay.has_left:
            self._leave()

    def eof_received(self) -> bool:
        """The client will send no more; it may still take answers."""
        self._end_of_client()
        return keeps_way_back(self.client)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._leave()
        if self._lingering is not None:
            self._lingering.cancel()
        self._on_closed()

    def pause_writing(self) -> None:
        """The client does not keep up: take no more from the server."""
        self._is_client_full = True
        if self._connection is not None:
            self._connection.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._is_client_full = False
        if self._connection is not None:
            self._connection.transport.resume_reading()
        self._resume(_ANSWERS_ARE_FULL)

    # What the pool calls.

    def attached(self, connection: PooledConnection) -> None:
        """Take the session that was waited for."""
        self._is_waiting = False
        self._guarded(lambda: self._attach(connection))

    def told(self, seconds: float) -> None:
        """Tell the client that it waits."""
        self._write(self._multiplexer.waits(seconds))

    def refused(self, error: RequestError) -> None:
        """There will be no session."""
        self._is_waiting = False
        self._log.info("no_session_of_pool", reason=error.reason.value)
        self.end(error)

    def from_server(self, data: bytes) -> None:
        """Take what the held session says."""
        if self._is_over:
            return
        multiplexer = self._multiplexer
        try:
            if multiplexer.from_server(data):
                self._to_client(data)
                if multiplexer.is_free and not (multiplexer.to_relay or self._is_odd()):
                    self._let_go()
                    return
            self._advance()
        except Exception as error:  # noqa: BLE001 - `_failed` logs it and ends the session
            self._failed(error)

    def server_lost(self) -> None:
        """The held session has died: the client goes on with another, if it has lost nothing."""
        self._connection = self._last = None
        if self._is_over:
            return
        self._resume(_SERVER_IS_FULL)
        if self._multiplexer.lost():
            self._guarded(self._advance)
        else:
            self._log.info("session_of_pool_lost")
            self.end(self._multiplexer.farewell())

    def server_is_full(self) -> None:
        """The session does not keep up: take no more from the client."""
        self._pause(_SERVER_IS_FULL)

    def server_has_room(self) -> None:
        """The session caught up."""
        self._resume(_SERVER_IS_FULL)

    # How bytes go.

    def _take(self, data: bytes) -> None:
        """Let the relay look at the client's bytes, and the multiplexer at what comes of them."""
        relay, multiplexer = self._relay, self._multiplexer
        if relay.from_client(data):
            if self._connection is None and not self._is_waiting:
                connection = self._pool.take_idle(self, self._last)
                if connection is not None:
                    self._hold(connection)
            if multiplexer.from_client(data):
                assert self._connection is not None
                self._connection.transport.write(data)
                return
        elif relay.to_server:
            for chunk in relay.to_server:
                if multiplexer.from_client(chunk):
                    multiplexer.to_server.append(chunk)
            relay.to_server.clear()
        if relay.to_client:
            self._answer()
        self._advance()

    def _advance(self) -> None:
        """Carry on whatever the multiplexer asks for, until it asks for nothing."""
        if self._is_advancing or self._is_over:
            return
        multiplexer = self._multiplexer
        self._is_advancing = True
        try:
            while True:
                if multiplexer.to_relay:
                    for chunk in multiplexer.to_relay:
                        self._to_client(chunk)
                    multiplexer.to_relay.clear()
                if multiplexer.to_client:
                    self._write(b"".join(multiplexer.to_client))
                    multiplexer.to_client.clear()
                if multiplexer.failure is not None:
                    self.end(multiplexer.failure)
                    return
                if multiplexer.to_server:
                    assert self._connection is not None
                    self._connection.transport.writelines(multiplexer.to_server)
                    multiplexer.to_server.clear()
                if multiplexer.is_free and self._connection is not None:
                    self._let_go()
                if not multiplexer.wants_server or self._is_waiting or self._connection:
                    break
                if not self._request():
                    break
        finally:
            self._is_advancing = False
        self._after_advance()

    def _after_advance(self) -> None:
        if self._multiplexer.is_full:
            self._pause(_SESSION_IS_AWAITED)
        else:
            self._resume(_SESSION_IS_AWAITED)
        if self._farewell is not None:
            self._end_if_idle()
        if self._client_ended and self._relay.is_idle and not self._is_waiting:
            self._leave()

    def _request(self) -> bool:
        """Ask for a session; True if there is one now."""
        try:
            connection = self._pool.request(self, self._last)
        except RequestError as error:
            self.end(error)
            return False
        if connection is None:
            self._is_waiting = True
            return False
        self._hold(connection)
        return True

    def _hold(self, connection: PooledConnection) -> None:
        self._connection = self._last = connection
        if self._is_client_full:
            connection.transport.pause_reading()
        self._multiplexer.attach(connection.server)

    def _is_odd(self) -> bool:
        """Say whether there is more to be done at the end of a transaction than to end it."""
        return self._client_ended or self._pauses != 0 or self._farewell is not None

    def _attach(self, connection: PooledConnection) -> None:
        if self._is_over:
            self._pool.release(connection)
            return
        self._hold(connection)
        self._advance()

    def _let_go(self) -> None:
        """The transaction has ended: the session is for others."""
        connection = self._connection
        assert connection is not None
        self._connection = None
        self._multiplexer.detach()
        if self._is_client_full:
            connection.transport.resume_reading()
        self._pool.release(connection)

    def _to_client(self, data: bytes) -> None:
        """Let the relay look at the server's bytes, and write what comes of them."""
        relay = self._relay
        if relay.from_server(data):
            self._write(data)
        elif relay.to_client:
            self._write(b"".join(relay.to_client))
            relay.to_client.clear()

    def _write(self, data: bytes) -> None:
        self._bytes_out += len(data)
        if self._bytes_out > LOT_BYTES:
            self.count_bytes()
        if not self.client.is_closing():
            self.client.write(data)

    def _answer(self) -> None:
        """Write the relay's own answers; a client that does not read them may ask no more."""
        self._write(b"".join(self._relay.to_client))
        self._relay.to_client.clear()
        if self.client.get_write_buffer_size() > ANSWERS_BYTES_MAX:
            self._pause(_ANSWERS_ARE_FULL)

    # Units, as in the splice.

    def _fetch_soon(self) -> None:
        self._is_held = True
        self._pause(_UNITS_ARE_AWAITED)
        self._fetching = asyncio.get_running_loop().create_task(self._fetch_units())

    async def _fetch_units(self) -> None:
        """Fetch units until the relay has no more need of them, then read on."""
        relay = self._relay
        try:
            while relay.waiting is not None:
                await self._gate.wait(*relay.waiting)
                relay.waiting = None
                self._take(b"")
                while self._held and relay.waiting is None:
                    self._take(self._held.pop(0))
        except Exception as error:  # noqa: BLE001 - `_failed` logs it and ends the session
            self._fetching = None
            self._failed(error)
            return
        self._fetching = None
        self._is_held = self._is_over
        self._resume(_UNITS_ARE_AWAITED)
        if self._relay.has_left:
            self._leave()
        elif self._client_ended:
            self._end_of_client()

    # The end.

    def _end_of_client(self) -> None:
        """Answer what is under way, then close."""
        self._client_ended = True
        if self._is_over or self._fetching is not None:
            return
        if (self._relay.is_idle and not self._is_waiting) or not keeps_way_back(self.client):
            self._leave()
        else:
            self._linger()

    def _leave(self) -> None:
        """Give back what the client has, and close."""
        if self._is_over:
            return
        self._is_over = self._is_held = True
        if self._fetching is not None:
            self._fetching.cancel()
        self._held.clear()
        self.count_bytes()
        with self._faults_logged():
            self._relay.closed()
        if self._is_waiting:
            self._pool.withdraw(self)
        self._drop_connection()
        if self._multiplexer.is_pinned:
            self._pool.pins.give()
        self._pools.leave(self._pool)
        self.client.close()
        self._linger()
        self._on_end()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed:
            return
        if self._is_client_full:
            connection.transport.resume_reading()
        multiplexer = self._multiplexer
        if not multiplexer.is_resting or multiplexer.failure is not None:
            self._pool.abandon(connection)
            return
        if multiplexer.is_pinned:
            connection.server.is_reset_due = True
        multiplexer.detach()
        self._pool.release(connection)

    def _failed(self, error: Exception) -> None:
        """The relay could not go on: the client broke the protocol, or we have a fault."""
        if isinstance(error, RequestError):
            self._log.info("session_refused", reason=error.reason.value)
            self.end(error)
            return
        self._log.error("relay_failed", exc_info=error)
        self.end(RequestError(Reason.INTERNAL, "internal error"))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - `_failed` logs it and ends the session
            self._failed(error)

    @contextlib.contextmanager
    def _faults_logged(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is logged, and the session ends anyway
            self._log.error("relay_failed", exc_info=error)

    def _pause(self, reason: int) -> None:
        if not self._pauses and not self.client.is_closing():
            self.client.pause_reading()
        self._pauses |= reason

    def _resume(self, reason: int) -> None:
        if not self._pauses & reason:
            return
        self._pauses &= ~reason
        if not self._pauses and not self.client.is_closing():
            self.client.resume_reading()

    def _linger(self) -> None:
        """Bound the time that the client may take for its last bytes."""
        if self._lingering is None:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(self._linger_s, self._abort)

    def _abort(self) -> None:
        self._leave()
        self.client.abort()
        self._on_closed()

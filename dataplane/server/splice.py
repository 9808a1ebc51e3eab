"""A signed-in connection: bytes from one transport through the relay to the other, by callbacks.

    client --data_received--> relay.from_client --> server.write
    server --data_received--> relay.from_server --> client.write

No task and no buffer of ours exists while bytes flow. Back-pressure goes across: a full write
buffer on one side pauses reading on the other. While the relay waits for units (`relay.waiting`)
reading from the client is paused and one short task fetches them.

A client that half-closes (EOF) still gets its answers: the end is passed on, and the server's end
closes the rest. Nothing lingers longer than `linger_s`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

from dataplane.observe.counters import BYTES_IN_WORD, BYTES_OUT_WORD, Slot
from dataplane.observe.log import ConnectionLog
from dataplane.server.channel import ClientStream, keeps_way_back
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Gate, Relay

# Answers that we gave ourselves to a client that does not read them.
ANSWERS_BYTES_MAX = 4 * 1024 * 1024

# Bytes go into the counter file in lots: before a spooling, at the end, and whenever so many have
# passed. What a killed worker has not counted is less than this for each connection and direction.
LOT_BYTES: Final = 64 * 1024

# Why reading from the client is paused; several may hold at once.
_SERVER_IS_FULL: Final = 1
_ANSWERS_ARE_FULL: Final = 2
_UNITS_ARE_AWAITED: Final = 4


class ServerEnd(Protocol):
    """The connection with the instance's server, as the sign-in leaves it."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport below."""
        ...

    @property
    def is_ended(self) -> bool:
        """True once the server will send no more."""
        ...

    def detach(self, successor: asyncio.Protocol) -> bytes:
        """Hand the transport to `successor`; return what was read and not consumed."""
        ...


class Splice:
    """Joins two transports through a relay until one of them, or somebody outside, ends it."""

    def __init__(
        self,
        relay: Relay,
        gate: Gate,
        slot: Slot,
        *,
        linger_s: float,
        on_end: Callable[[], None],
        on_closed: Callable[[], None],
        on_server_free: Callable[[], None] | None = None,
        log: ConnectionLog,
    ) -> None:
        self.relay = relay
        self._gate = gate
        self._linger_s = linger_s
        self._on_end = on_end
        self._on_closed = on_closed
        # Takes the server's transport where its session outlives the client; None: it does not.
        self._on_server_free = on_server_free
        self._log = log
        # Looked up once: they are called for each message.
        self.from_client = relay.from_client
        self.from_server = relay.from_server
        self._slot = slot
        self._client_side = _ClientSide(self)
        self._server_side = _ServerSide(self)
        self.client: asyncio.Transport
        self.server: asyncio.Transport
        self.to_client: Callable[[bytes], None]
        self.to_server: Callable[[bytes], None]
        self._pauses = 0
        # Nothing of the client may go to the relay: units are awaited, or the session is over.
        self.is_held = False
        self._held: list[bytes] = []
        self._fetching: asyncio.Task[None] | None = None
        self._client_ended = False
        self._lingering: asyncio.TimerHandle | None = None
        self._is_over = False
        self._sides_lost = 0
        # The server's transport is somebody else's again.
        self._has_let_go = False
        # Set by `end_when_idle`: the farewell of a session that may finish its request first.
        self._farewell: RequestError | None = None

    def start(self, client: ClientStream, server: ServerEnd) -> None:
        """Take both transports, with what was read ahead during the sign-in."""
        self.client, self.server = client.transport, server.transport
        self.to_client, self.to_server = self.client.write, self.server.write
        # Plain classes, so that they can be compiled: the loop asks for the methods only.
        from_server = server.detach(cast(asyncio.Protocol, self._server_side))
        from_client = client.detach(cast(asyncio.Protocol, self._client_side))
        if from_server:
            self._server_side.data_received(from_server)
        if from_client:
            self._client_side.data_received(from_client)
        # An end that came during the sign-in has been told to the channel, not to us.
        if server.is_ended or self.client.is_closing():
            self.lost()
        elif client.is_ended:
            self.client_ended()

    def end(self, error: RequestError) -> None:
        """Say the protocol's farewell and close. Safe to call at any time, more than once."""
        if self._is_over:
            return
        # Answers from before the fault that ends it come first.
        last_words = [*self.relay.to_client]
        try:
            last_words.append(self.relay.goodbye(error))
        except Exception as fault:  # noqa: BLE001 - as in `_close_relay`
            self._log.error("relay_failed", exc_info=fault)
        if any(last_words) and not self.client.is_closing():
            self.client.write(b"".join(last_words))
        self.lost()

    def end_when_idle(self, error: RequestError) -> None:
        """End now if no request is under way, else as soon as none is."""
        self._farewell = error
        self.end_if_idle()

    def end_if_idle(self) -> None:
        """End a session that was asked to, if it is between two requests."""
        if self._farewell is not None and self.relay.is_idle:
            self.end(self._farewell)

    def count_bytes(self) -> None:
        """Put what has passed and is not yet counted into the counter file."""
        cells, base = self._slot.cells, self._slot.base
        cells[base + BYTES_IN_WORD] += self._client_side.bytes_in
        cells[base + BYTES_OUT_WORD] += self._server_side.bytes_out
        self._client_side.bytes_in = self._server_side.bytes_out = 0

    def answer(self, data: bytes) -> None:
        """Write what we say ourselves; a client that does not read it may ask no more."""
        self._server_side.bytes_out += len(data)
        self.client.write(data)
        if self.client.get_write_buffer_size() > ANSWERS_BYTES_MAX:
            self._pause(_ANSWERS_ARE_FULL)

    @property
    def is_leaving(self) -> bool:
        """True once `end_when_idle` has been called."""
        return self._farewell is not None

    @property
    def is_over(self) -> bool:
        """True once the session has ended; what still arrives is nobody's."""
        return self._is_over

    # What the two sides call.

    def hold(self, data: bytes) -> None:
        """Keep what the client sent before its transport noticed the pause."""
        if not self._is_over:
            self._held.append(data)

    def fetch_units(self) -> None:
        """Pause the client and fetch the units that the relay waits for."""
        self.is_held = True
        self._pause(_UNITS_ARE_AWAITED)
        self._fetching = asyncio.get_running_loop().create_task(self._fetch_units())

    def client_is_full(self) -> None:
        """The client does not keep up: take no more from the server."""
        if not self.server.is_closing():
            self.server.pause_reading()

    def client_has_room(self) -> None:
        """The client caught up."""
        if not self.server.is_closing():
            self.server.resume_reading()
        self._resume(_ANSWERS_ARE_FULL)

    def server_is_full(self) -> None:
        """The server does not keep up: take no more from the client."""
        self._pause(_SERVER_IS_FULL)

    def server_has_room(self) -> None:
        """The server caught up."""
        self._resume(_SERVER_IS_FULL)

    def client_ended(self) -> None:
        """Pass the client's EOF on, behind everything that it sent."""
        if self.client_left():
            return
        self._client_ended = True
        if self._fetching is None and not self._is_over and not self.server.is_closing():
            if self.server.can_write_eof():
                self.server.write_eof()
            self._linger()

    def client_left(self) -> bool:
        """Let go of the server, if the client went between two requests; say whether it was so."""
        if self._on_server_free is None or self._is_over or self._fetching is not None:
            return False
        if not self.relay.is_clean and not self.relay.has_left:
            return False
        self._is_over = self.is_held = self._has_let_go = True
        self.count_bytes()
        self._close_relay()
        self.client.close()
        self._sides_lost += 1
        if self.client.get_write_buffer_size():
            self._linger()
        self._on_end()
        self._on_server_free()
        return True

    def failed(self, error: Exception) -> None:
        """The relay could not go on: the client broke the protocol, or we have a fault."""
        if isinstance(error, RequestError):
            self._log.info("session_refused", reason=error.reason.value)
            self.end(error)
            return
        self._log.error("relay_failed", exc_info=error)
        self.end(RequestError(Reason.INTERNAL, "internal error"))

    def lost(self) -> None:
        """One side is gone, or the session was ended: flush and close what is left."""
        if self._is_over:
            return
        self._is_over = self.is_held = True
        if self._fetching is not None:
            self._fetching.cancel()
        self._held.clear()
        self.count_bytes()
        self._close_relay()
        self.server.close()
        self.client.close()
        self._linger()
        self._on_end()

    def side_lost(self) -> None:
        """A transport has closed for good; after the second nothing is left to abort."""
        self.lost()
        self._sides_lost += 1
        if self._sides_lost == 2:
            if self._lingering is not None:
                self._lingering.cancel()
            self._on_closed()

    def _close_relay(self) -> None:
        """Keep one relay's fault from whoever ends sessions: the follower, or the drain."""
        try:
            self.relay.closed()
        except Exception as error:  # noqa: BLE001 - it is logged, and the session ends anyway
            self._log.error("relay_failed", exc_info=error)

    async def _fetch_units(self) -> None:
        """Fetch units until the relay has no more need of them, then read on."""
        relay = self.relay
        try:
            while relay.waiting is not None:
                await self._gate.wait(*relay.waiting)
                relay.waiting = None
                relay.from_client(b"")
                self._client_side.flush()
                while self._held and relay.waiting is None:
                    data = self._held.pop(0)
                    if relay.from_client(data):
                        self.server.write(data)
                    self._client_side.flush()
        except Exception as error:  # noqa: BLE001 - `failed` logs it and ends the session
            self._fetching = None
            self.failed(error)
            return
        self._fetching = None
        self.is_held = self._is_over
        self._resume(_UNITS_ARE_AWAITED)
        if self._client_ended:
            self.client_ended()

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
        """Bound the time that a peer may take for the last bytes."""
        if self._lingering is None:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(self._linger_s, self._abort)

    def _abort(self) -> None:
        if not self._has_let_go:
            self.server.abort()
        self.client.abort()
        # A transport that was closed before we took it tells nobody.
        self._on_closed()


class _ClientSide:
    """The client's transport calls this."""

    __slots__ = ("_splice", "bytes_in")

    def __init__(self, splice: Splice) -> None:
        self._splice = splice
        self.bytes_in = 0

    def data_received(self, data: bytes) -> None:
        """Admit what arrives, and pass it on."""
        splice = self._splice
        self.bytes_in += len(data)
        if self.bytes_in > LOT_BYTES:
            splice.count_bytes()
        if splice.is_held:
            splice.hold(data)
            return
        try:
            is_forwarded = splice.from_client(data)
        except Exception as error:  # noqa: BLE001 - `failed` logs it and ends the session
            splice.failed(error)
            return
        if is_forwarded:
            splice.to_server(data)
            return
        self.flush()
        if splice.relay.waiting is not None:
            splice.fetch_units()
        elif splice.relay.has_left:
            splice.client_left()

    def flush(self) -> None:
        """Write what `from_client` left in the relay's lists."""
        splice = self._splice
        relay = splice.relay
        if relay.to_server:
            splice.server.writelines(relay.to_server)
            relay.to_server.clear()
        if relay.to_client:
            answer = b"".join(relay.to_client)
            relay.to_client.clear()
            splice.answer(answer)

    def eof_received(self) -> bool:
        """Pass the end on; the way back stays open where there is one."""
        self._splice.client_ended()
        return keeps_way_back(self._splice.client)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the transport is gone."""
        self._splice.client_left()
        self._splice.side_lost()

    def pause_writing(self) -> None:
        """Let the server wait for the client."""
        self._splice.client_is_full()

    def resume_writing(self) -> None:
        """Let the server go on."""
        self._splice.client_has_room()


class _ServerSide:
    """The instance server's transport calls this."""

    __slots__ = ("_splice", "bytes_out")

    def __init__(self, splice: Splice) -> None:
        self._splice = splice
        self.bytes_out = 0

    def data_received(self, data: bytes) -> None:
        """Pass replies on."""
        splice = self._splice
        if splice.is_over:
            return
        try:
            is_forwarded = splice.from_server(data)
        except Exception as error:  # noqa: BLE001 - `failed` logs it and ends the session
            splice.failed(error)
            return
        if is_forwarded:
            self.bytes_out += len(data)
            splice.to_client(data)
        else:
            self._flush()
        if self.bytes_out > LOT_BYTES:
            splice.count_bytes()
        if splice.is_leaving:
            splice.end_if_idle()

    def _flush(self) -> None:
        """Write what `from_server` left in the relay's lists."""
        splice = self._splice
        relay = splice.relay
        if relay.to_client:
            self.bytes_out += sum(map(len, relay.to_client))
            splice.client.writelines(relay.to_client)
            relay.to_client.clear()
        if relay.to_server:
            splice.server.writelines(relay.to_server)
            relay.to_server.clear()

    def eof_received(self) -> bool:
        """Close: a server that has ended has nothing more to say."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the transport is gone."""
        self._splice.side_lost()

    def pause_writing(self) -> None:
        """Let the client wait for the server."""
        self._splice.server_is_full()

    def resume_writing(self) -> None:
        """Let the client go on."""
        self._splice.server_has_room()

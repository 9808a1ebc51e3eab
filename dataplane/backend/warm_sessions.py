"""Sessions with instances' own servers that outlive their clients: reset, parked, handed out again.

    take        a parked session with the same key, checked; else a new one over a new connection
    give_back   reset, and parked once the reset has been answered; LIFO, so that few stay warm

A session serves the instance, under the version of the record, for which it was opened, and no
other. It is never in two hands: `take` removes it from the stack before anything else happens.
Whatever is unclear (an unexpected byte, an error, the end of the stream, a deadline) closes it.

Parked sessions are counted beside the clients' connections (limits/connections.py): all workers
together hold no more of a server's connections than the plan allows to clients, and a client that
needs one gets it before any session is parked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import cast

from dataplane.config import Bounds
from dataplane.host.postgres_settings import CONNECTIONS_RESERVED, server_connections
from dataplane.limits.connections import ConnectionCounts
from dataplane.observe import metrics
from dataplane.observe.counters import Slot
from dataplane.observe.tally import tally_of
from dataplane.server.channel import StreamChannel
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import AnySession, ServerSession, TryAgainError
from engines.kit.records import InstanceRecord, Status

RESET_SECONDS_MAX = 5.0
# A reset takes less than a new session does, as a rule; so long a client waits for one.
COMES_SECONDS_MAX = 0.02
SWEEP_SECONDS = 0.25
# Between two attempts at a server that starts, stops or is full.
AGAIN_SECONDS_MIN = 0.01
AGAIN_SECONDS_MAX = 0.25
# A closed session still takes up its connection until its process has ended.
LEAVING_SECONDS_MAX = 1.0
TOO_MANY_CONNECTIONS = "53300"

# Opens a connection to the instance's server within so many seconds; raises RequestError(BACKEND).
Dial = Callable[[InstanceRecord, float], Awaitable[StreamChannel]]
_StackKey = tuple[str, bytes]


class _State(Enum):
    ASKED = "asked"  # start or check; somebody awaits the answer
    LENT = "lent"
    RESETTING = "resetting"
    PARKED = "parked"
    CLOSED = "closed"


class WarmServer:
    """One connection with its session. The splice takes the transport and gives it back."""

    def __init__(
        self,
        pool: WarmSessions,
        record: InstanceRecord,
        slot: Slot,
        session: ServerSession,
        now: float,
    ) -> None:
        self.session = session
        self.slot = slot
        self.instance_id = record.instance_id
        self.version = record.version
        self.opened_at = now
        self.since = now  # when it came to its state
        self.state = _State.ASKED
        self._transport: asyncio.Transport | None = None
        self._pool = pool
        self._waiter: asyncio.Future[None] | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """The transport below."""
        assert self._transport is not None, "not connected yet"
        return self._transport

    @property
    def stack_key(self) -> _StackKey:
        """What sessions have in common that may stand in for each other."""
        return self.instance_id, self.session.key

    @property
    def is_ended(self) -> bool:
        """True once the server has gone."""
        return self.state is _State.CLOSED or self.transport.is_closing()

    def detach(self, successor: asyncio.Protocol) -> bytes:
        """Hand the transport to `successor`; nothing was read ahead."""
        self.state = _State.LENT
        self.transport.set_protocol(successor)
        return b""

    def attach(self, channel: StreamChannel) -> bytes:
        """Take over a new connection; return what was read ahead."""
        self._transport = channel.transport
        return channel.detach(cast(asyncio.Protocol, self))

    async def ask(self, request: bytes) -> None:
        """Send `request` and return once its answer is complete.

        Raises RequestError, TryAgainError; EOFError if the server ends the stream.
        """
        if self.is_ended:
            raise EOFError
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            await self._waiter
        finally:
            self._waiter = None

    # What the event loop calls while the transport is ours.

    def data_received(self, data: bytes) -> None:
        """Feed the session's exchange; in a parked session there is none."""
        if self.state is _State.PARKED:
            self._pool.close(self)
            return
        try:
            is_complete = self.session.answer(data)
        except (RequestError, TryAgainError) as error:
            self._failed(error)
            return
        if is_complete and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        elif is_complete and self.state is _State.RESETTING:
            self._pool.was_reset(self)

    def eof_received(self) -> bool:
        """The server ends the session: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._failed(EOFError())

    def _failed(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self._pool.close(self)


class WarmSessions:
    """The sessions of one worker that belong to no client at this moment."""

    def __init__(
        self,
        bounds: Bounds,
        dial: Dial,
        counts: ConnectionCounts,
        *,
        record_of: Callable[[str], InstanceRecord | None],
        slot_of: Callable[[InstanceRecord], Slot],
    ) -> None:
        self._bounds = bounds
        self._dial = dial
        self._counts = counts
        self._record_of = record_of
        self._slot_of = slot_of
        self._loop = asyncio.get_running_loop()
        # In the order in which they were parked, the oldest first; and the same as stacks.
        self._parked: dict[WarmServer, None] = {}
        self._stacks: dict[_StackKey, list[WarmServer]] = {}
        self._resetting: dict[WarmServer, None] = {}
        self._waiting: dict[_StackKey, list[asyncio.Future[None]]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._parked)

    async def take(
        self, record: InstanceRecord, wanted: AnySession, *, within_s: float
    ) -> tuple[WarmServer, AnySession]:
        """Return an open session with `wanted`'s key; its connection is the caller's.

        The caller gives it back, or closes its transport. Raises RequestError.
        """
        key = (record.instance_id, wanted.key)
        while key in self._stacks or await self._comes(key):
            server = self._stacks[key][-1]
            self._unpark(server)
            if server.version == record.version and await self._is_good(server):
                tally_of(metrics.SERVER_SESSIONS, record.engine, "reused").add()
                # Equal keys come from one engine: it is the class that `wanted` has.
                return server, cast(AnySession, server.session)
        server = await self._open(record, wanted, within_s)
        tally_of(metrics.SERVER_SESSIONS, record.engine, "opened").add()
        return server, wanted

    def give_back(self, server: WarmServer) -> None:
        """Take a session that its client left between two transactions; reset and park it."""
        server.transport.set_protocol(cast(asyncio.Protocol, server))
        server.state = _State.RESETTING
        server.since = self._loop.time()
        record = self._record_of(server.instance_id)
        if not self._may_stay(server, record) or server.transport.is_closing():
            self.close(server)
            return
        self._counts.keep(server.slot, 1)
        self._resetting[server] = None
        self._watch()
        # Whoever held it may have paused it.
        server.transport.resume_reading()
        server.transport.write(server.session.reset())

    def was_reset(self, server: WarmServer) -> None:
        """Park a session whose reset has been answered."""
        record = self._record_of(server.instance_id)
        if not self._may_stay(server, record):
            self.close(server)
            return
        assert record is not None
        if len(self._parked) >= self._bounds.warm_sessions_max:
            self.close(next(iter(self._parked)))
        if self._is_full(record) and not self._close_oldest(record.instance_id):
            self.close(server)
            return
        del self._resetting[server]
        server.state = _State.PARKED
        server.since = self._loop.time()
        self._parked[server] = None
        self._stacks.setdefault(server.stack_key, []).append(server)
        for waiter in self._waiting.get(server.stack_key, ()):
            if not waiter.done():
                waiter.set_result(None)
                break

    def close(self, server: WarmServer) -> None:
        """Close a session for good, wherever it is. Safe to call more than once."""
        if server.state is _State.CLOSED:
            return
        if server.state is _State.PARKED:
            self._unpark(server)
        elif server in self._resetting:
            del self._resetting[server]
            self._counts.keep(server.slot, -1)
        server.state = _State.CLOSED
        server.transport.close()

    def follow(self, old: InstanceRecord | None, new: InstanceRecord | None) -> None:
        """Close the sessions of an instance whose record changed; a subscriber of the table."""
        known = old or new
        if known is None or old is new:
            return
        self._close_all(known.instance_id)

    def shut(self) -> None:
        """Close all, and keep none from now on."""
        self._is_closed = True
        for server in [*self._parked, *self._resetting]:
            self.close(server)
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _comes(self, key: _StackKey) -> bool:
        """Wait a moment for a session that is being reset; say whether one is parked now."""
        if not self._resetting:
            return False
        waiting = self._waiting.setdefault(key, [])
        try:
            if sum(server.stack_key == key for server in self._resetting) <= len(waiting):
                return False
            waiter = self._loop.create_future()
            timer = self._loop.call_later(COMES_SECONDS_MAX, _resolve, waiter)
            waiting.append(waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                waiting.remove(waiter)
        finally:
            if not waiting:
                self._waiting.pop(key, None)
        return key in self._stacks

    async def _is_good(self, server: WarmServer) -> bool:
        """Have the server say whether a new session would be the same; close it if not."""
        server.state = _State.ASKED
        try:
            await server.ask(server.session.check())
        except EOFError:
            return False
        except (RequestError, TryAgainError):
            # What a new session is told has changed: for the others too.
            self._close_all(server.instance_id)
            return False
        except BaseException:
            self.close(server)
            raise
        return True

    async def _open(
        self, record: InstanceRecord, wanted: ServerSession, within_s: float
    ) -> WarmServer:
        """Open a new session, again and again while the server starts, stops or is full."""
        deadline = self._loop.time() + within_s
        delay = AGAIN_SECONDS_MIN
        while self._is_full(record) and self._close_oldest(record.instance_id):
            pass
        full_until = self._loop.time() + LEAVING_SECONDS_MAX
        while True:
            try:
                return await self._start(record, wanted, deadline - self._loop.time())
            except TryAgainError as error:
                now = self._loop.time()
                if self._close_all(record.instance_id) or self._counts.kept(
                    record.instance_id, self._slot_of(record)
                ):
                    full_until = now + LEAVING_SECONDS_MAX
                is_full = error.error.sqlstate == TOO_MANY_CONNECTIONS
                if now + delay > (min(deadline, full_until) if is_full else deadline):
                    raise error.error from error
            await asyncio.sleep(delay)
            delay = min(delay * 2, AGAIN_SECONDS_MAX)

    async def _start(
        self, record: InstanceRecord, wanted: ServerSession, within_s: float
    ) -> WarmServer:
        channel = await self._dial(record, within_s)
        server = WarmServer(self, record, self._slot_of(record), wanted, self._loop.time())
        server.attach(channel)
        try:
            async with asyncio.timeout(within_s):
                await server.ask(wanted.start())
        except (EOFError, TimeoutError) as error:
            self.close(server)
            gone = RequestError(Reason.BACKEND, "the instance's server does not answer")
            raise TryAgainError(gone) from error
        except BaseException:
            self.close(server)
            raise
        return server

    def _may_stay(self, server: WarmServer, record: InstanceRecord | None) -> bool:
        return (
            not self._is_closed
            and record is not None
            and record.version == server.version
            and record.status is Status.ACTIVE
            and self._loop.time() - server.opened_at < self._bounds.warm_age_s
        )

    def _is_full(self, record: InstanceRecord) -> bool:
        """Say whether clients and parked sessions fill what the server has for clients."""
        limits = record.limits
        bound = min(limits.connections, server_connections(limits) - CONNECTIONS_RESERVED)
        return self._counts.is_over(record.instance_id, self._slot_of(record), bound)

    def _close_oldest(self, instance_id: str) -> bool:
        for server in self._parked:
            if server.instance_id == instance_id:
                self.close(server)
                return True
        return False

    def _close_all(self, instance_id: str) -> int:
        """Close what is parked or being reset of an instance; return how many these were."""
        found = [s for s in (*self._parked, *self._resetting) if s.instance_id == instance_id]
        for server in found:
            self.close(server)
        return len(found)

    def _unpark(self, server: WarmServer) -> None:
        del self._parked[server]
        stack = self._stacks[server.stack_key]
        stack.remove(server)
        if not stack:
            del self._stacks[server.stack_key]
        self._counts.keep(server.slot, -1)

    def _watch(self) -> None:
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what has waited too long, and what clients of other workers have need of."""
        self._sweeping = None
        now = self._loop.time()
        for group, seconds_max in (
            (self._parked, self._bounds.warm_idle_s),
            (self._resetting, RESET_SECONDS_MAX),
        ):
            for server in [s for s in group if now - s.since >= seconds_max]:
                self.close(server)
        for server in list(self._parked):
            record = self._record_of(server.instance_id)
            if server.state is _State.PARKED and record is not None and self._is_full(record):
                self.close(server)
        if self._parked or self._resetting:
            self._watch()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

"""Sessions with instances' own servers that several clients share, a transaction each.

    request     a client's splice wants a session: one that is idle, at once (its own last one, if
                it can), else the splice waits in line and is called back
    release     the session goes to the next in line, or rests

Sessions come from the warm pool and go back there: when they have rested for long, when they need a
full reset, when another pool needs their place. Each counts as one of the plan's connections
(limits/connections.py), exact over all workers; how many pools of one worker share what there is,
says `fair_share`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Protocol, cast

from dataplane.backend.fair_share import Advice, FairShare
from dataplane.backend.warm_sessions import Dial, WarmServer, WarmSessions
from dataplane.limits.connections import ConnectionCounts
from dataplane.observe.counters import Slot
from dataplane.observe.log import get_logger
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Pooled, PooledServer, ServerSession
from engines.kit.records import InstanceRecord

SESSIONS_MAX = 1_000  # of one worker, over all instances
WAITING_MAX = 10_000  # clients in line for one pool
WAIT_SECONDS_MAX = 60.0
NOTICE_SECONDS = 5.0
SWEEP_SECONDS = 0.5
OPEN_SECONDS_MAX = 5.0
CANCEL_SECONDS_MAX = 5.0
# Many cancel requests at once are one client's trouble, not everybody's.
CANCELS_MAX = 64


class Holder(Protocol):
    """A client's splice, as the pool sees it."""

    pooled: Pooled
    # When it came into line, and whether it has been told that it takes long.
    since: float
    is_told: bool

    def attached(self, connection: PooledConnection) -> None:
        """Take the session that was waited for."""
        ...

    def told(self, seconds: float) -> None:
        """Tell the client that it waits."""
        ...

    def refused(self, error: RequestError) -> None:
        """There will be no session."""
        ...

    def from_server(self, data: bytes) -> None:
        """Take what the held session says."""
        ...

    def server_lost(self) -> None:
        """The held session has died."""
        ...

    def server_is_full(self) -> None:
        """The held session does not keep up."""
        ...

    def server_has_room(self) -> None:
        """The held session caught up."""
        ...


class PooledConnection:
    """One session's transport; what it says goes to the splice that has it."""

    def __init__(self, pool: Pool, warm: WarmServer, server: PooledServer) -> None:
        self.pool = pool
        self.warm = warm
        self.server = server
        self.transport = warm.transport
        self.holder: Holder | None = None
        self.rested_since = 0.0
        self.version = warm.version
        self.cancels = 0
        # Released while a cancel request was under way: nobody may have it before that is over.
        self.is_set_aside = False
        self.is_closed = False
        # A plain class, so that it can be compiled: the loop asks for the methods only.
        warm.detach(cast(asyncio.Protocol, self))

    def data_received(self, data: bytes) -> None:
        """Pass the bytes on; a session that nobody has says nothing that is of use."""
        if self.holder is not None:
            self.holder.from_server(data)
        else:
            self.pool.close(self)

    def eof_received(self) -> bool:
        """The server ends the session: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and tell who has it."""
        holder, self.holder = self.holder, None
        self.pool.close(self)
        if holder is not None:
            holder.server_lost()

    def pause_writing(self) -> None:
        """Let the client wait."""
        if self.holder is not None:
            self.holder.server_is_full()

    def resume_writing(self) -> None:
        """Let the client go on."""
        if self.holder is not None:
            self.holder.server_has_room()


class _Pins:
    """`ports.Pins`: all but one session of a pool may be kept."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.count = 0

    def take(self) -> bool:
        if self.count >= self.size - 1:
            return False
        self.count += 1
        return True

    def give(self) -> None:
        self.count -= 1


class Pool:
    """The sessions of one instance that were opened with the same words, and who waits for one."""

    def __init__(
        self,
        pools: PooledSessions,
        record: InstanceRecord,
        key: Hashable,
        pooled: Pooled,
        size: int,
    ) -> None:
        self.record = record
        # Sessions that were opened under another version of the record are not handed out again.
        self.version = record.version
        self.key = key
        self.pins = _Pins(size)
        self.clients = 0
        self._pools = pools
        self._new_session = pooled.new_session
        self._server_of = pooled.server_of
        self.slot: Slot = pools.slot_of(record)
        self.share = pools.shares.share(key, size)
        # Idle sessions, the one that rested longest first.
        self.idle: dict[PooledConnection, None] = {}
        self.waiting: deque[Holder] = deque()
        self._opening = 0
        self._is_serving = False
        self._freed: deque[PooledConnection] = deque()

    def take_idle(self, holder: Holder, last: PooledConnection | None) -> PooledConnection | None:
        """Return a session that is idle, if nobody is in line for it."""
        if not self.idle or self.waiting:
            return None
        if last is not None and last in self.idle:
            del self.idle[last]
            connection = last
        else:
            connection, _ = self.idle.popitem()
        self.share.idle -= 1
        connection.holder = holder
        return connection

    def request(self, holder: Holder, last: PooledConnection | None) -> PooledConnection | None:
        """Return a session that is idle; None: `holder` is in line. Raises RequestError."""
        connection = self.take_idle(holder, last)
        if connection is not None:
            return connection
        if len(self.waiting) >= WAITING_MAX:
            raise _no_session("too many clients wait for a session of the pool")
        holder.since = self._pools.now()
        holder.is_told = False
        self.waiting.append(holder)
        self.share.waiting += 1
        self.open_more()
        self._pools.watch()
        return None

    def withdraw(self, holder: Holder) -> None:
        """Take a client out of the line."""
        if holder in self.waiting:
            self.waiting.remove(holder)
            self.share.waiting -= 1

    def release(self, connection: PooledConnection) -> None:
        """Take a session back from its client, between two transactions."""
        connection.holder = None
        if not (self.waiting or self._is_serving or self._pools.shares.is_full):
            self._serve(connection)
            return
        self._freed.append(connection)
        if self._is_serving:
            return
        # What is handed out may come back at once: in turns, not deeper and deeper.
        self._is_serving = True
        try:
            while self._freed:
                self._serve(self._freed.popleft())
        finally:
            self._is_serving = False

    def _serve(self, connection: PooledConnection) -> None:
        if connection.is_closed:
            return
        if connection.cancels:
            connection.is_set_aside = True
            return
        if not self._may_stay(connection):
            self.give_back(connection)
            return
        if self._pools.shares.is_full:
            heir = self._pools.shares.next_for(self.key)
            if heir != self.key:
                self.give_back(connection)
                self._pools.pool(heir).open_more()
                return
        if self.waiting:
            holder = self.waiting.popleft()
            self.share.waiting -= 1
            connection.holder = holder
            holder.attached(connection)
            return
        connection.rested_since = self._pools.tick
        self.idle[connection] = None
        self.share.idle += 1

    def _may_stay(self, connection: PooledConnection) -> bool:
        return (
            self.version == connection.version
            and not connection.server.is_reset_due
            and not self._pools.is_closed
            and not connection.transport.is_closing()
        )

    def open_more(self) -> None:
        """Open sessions for those who wait, as far as the bounds allow."""
        while self.share.waiting > self._opening:
            advice, victim = self._pools.shares.advice(self.key)
            if advice is Advice.WAIT:
                return
            if advice is Advice.STEAL:
                self._pools.pool(victim).close_oldest()
            if not self._pools.counts.open(
                self.record.instance_id, self.slot, self.record.limits.connections
            ):
                return
            self._pools.shares.opened(self.key)
            self._opening += 1
            self._pools.spawn(self._open())

    async def _open(self) -> None:
        try:
            warm, session = await self._pools.warm.take(
                self.record, self._new_session(), within_s=OPEN_SECONDS_MAX
            )
        except RequestError as error:
            self._opening -= 1
            self._uncount()
            # Without a session nobody will be served; with one, they only wait longer.
            if not self.share.held:
                for holder in list(self.waiting):
                    self.withdraw(holder)
                    holder.refused(error)
            return
        except BaseException:
            self._opening -= 1
            self._uncount()
            raise
        self._opening -= 1
        self.release(PooledConnection(self, warm, self._server_of(session)))

    def close(self, connection: PooledConnection) -> None:
        """Close a session for good. Safe to call more than once."""
        if self._forget(connection):
            self._pools.warm.close(connection.warm)
            self.open_more()

    def give_back(self, connection: PooledConnection) -> None:
        """Give an idle session to the warm pool, which resets it."""
        if self._forget(connection):
            self._pools.warm.give_back(connection.warm)
            # Once the caller is through: it may mean the room for somebody else.
            self._pools.soon(self.open_more)

    def close_oldest(self) -> None:
        """Give up the session that has rested longest."""
        for connection in self.idle:
            self.give_back(connection)
            return

    def sweep(self, now: float) -> None:
        """Tell and refuse those who have waited long; give up what has rested long."""
        while self.waiting and now - self.waiting[0].since > WAIT_SECONDS_MAX:
            holder = self.waiting.popleft()
            self.share.waiting -= 1
            holder.refused(_no_session("no session of the pool has become free in time"))
        for holder in self.waiting:
            if now - holder.since < NOTICE_SECONDS:
                break
            if not holder.is_told:
                holder.is_told = True
                holder.told(now - holder.since)
        # Where every place of the plan is taken, what rests makes room for other workers' clients.
        places = self.record.limits.connections
        is_crowded = bool(self.idle) and self._pools.counts.is_over(
            self.record.instance_id, self.slot, places - 1
        )
        resting_s = SWEEP_SECONDS if is_crowded else self._pools.resting_s
        for connection in list(self.idle):
            if now - connection.rested_since < resting_s:
                break
            self.give_back(connection)
        if self.waiting:
            self.open_more()

    async def cancel(self, connection: PooledConnection) -> None:
        """Stop the statement of a session; nobody else gets it before the request is through."""
        connection.cancels += 1
        try:
            await self._pools.send_cancel(self.record, connection.server.cancel_request)
        finally:
            connection.cancels -= 1
            if connection.is_set_aside and not connection.cancels:
                connection.is_set_aside = False
                self.release(connection)

    def abandon(self, connection: PooledConnection) -> None:
        """Close a session in the middle of something, and stop what it does."""
        connection.holder = None
        request = connection.server.cancel_request
        self.close(connection)
        self._pools.spawn(self._pools.send_cancel(self.record, request))

    def _forget(self, connection: PooledConnection) -> bool:
        if connection.is_closed:
            return False
        connection.is_closed = True
        connection.holder = None
        if connection in self.idle:
            del self.idle[connection]
            self.share.idle -= 1
        self._uncount()
        return True

    def _uncount(self) -> None:
        self._pools.shares.closed(self.key)
        self._pools.counts.close(self.slot)


class PooledSessions:
    """All pools of one worker."""

    def __init__(
        self,
        warm: WarmSessions,
        dial: Dial,
        counts: ConnectionCounts,
        *,
        workers: int,
        resting_s: float,
        record_of: Callable[[str], InstanceRecord | None],
        slot_of: Callable[[InstanceRecord], Slot],
    ) -> None:
        self.warm = warm
        self.counts = counts
        self.record_of = record_of
        self.slot_of = slot_of
        self.shares = FairShare(SESSIONS_MAX)
        self.is_closed = False
        self._dial = dial
        self._workers = workers
        # An instance without clients shall soon be without sessions.
        self.resting_s = resting_s
        self._loop = asyncio.get_running_loop()
        # The time of the last sweep: exact enough for what rests, and free.
        self.tick = self._loop.time()
        self._pools: dict[Hashable, Pool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancels = asyncio.Semaphore(CANCELS_MAX)
        self._sweeping: asyncio.TimerHandle | None = None
        self._log = get_logger("pool")

    def now(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def enter(self, record: InstanceRecord, pooled: Pooled) -> Pool:
        """Return the pool of a client that has signed in."""
        session: ServerSession = pooled.new_session()
        key = (record.instance_id, session.key)
        # Every worker has its part; one is always there, and `counts` has the last word.
        size = max(1, record.limits.connections // self._workers)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(self, record, key, pooled, size)
        pool.record = record
        pool.version = record.version
        pool.pins.size = pool.share.size_max = size
        pool.clients += 1
        pooled.multiplexer.pins = pool.pins
        return pool

    def leave(self, pool: Pool) -> None:
        """Note that a client of the pool has ended."""
        pool.clients -= 1
        self.watch()

    def pool(self, key: Hashable) -> Pool:
        """Return the pool with this key."""
        return self._pools[key]

    def close_one(self, instance_id: str) -> bool:
        """Give up an idle session of an instance, if it has one, for a client that needs it."""
        for pool in self._pools.values():
            if pool.record.instance_id == instance_id and pool.idle:
                pool.close_oldest()
                return True
        return False

    def follow(self, old: InstanceRecord | None, new: InstanceRecord | None) -> None:
        """Give up what rests of an instance whose record changed; a subscriber of the table."""
        known = old or new
        if known is None or old is new:
            return
        for pool in list(self._pools.values()):
            if pool.record.instance_id != known.instance_id:
                continue
            pool.record = new or pool.record
            pool.version = new.version if new is not None else -1
            for connection in list(pool.idle):
                pool.close(connection)

    def shut(self) -> None:
        """Close what rests, and keep nothing from now on."""
        self.is_closed = True
        for pool in list(self._pools.values()):
            for connection in list(pool.idle):
                pool.close(connection)
        if self._sweeping is not None:
            self._sweeping.cancel()

    def watch(self) -> None:
        """Look at times from time to time, as long as there is a pool."""
        if self._sweeping is None and not self.is_closed:
            self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self.tick = self._loop.time()
        for key, pool in list(self._pools.items()):
            pool.sweep(now)
            if not (pool.clients or pool.share.held or pool.waiting):
                del self._pools[key]
                self.shares.leave(key)
        if self._pools:
            self.watch()

    def soon(self, work: Callable[[], None]) -> None:
        """Do something at the end of this turn of the loop."""
        self._loop.call_soon(work)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something beside; a fault is logged, and nobody else's."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("pool_failed", exc_info=error)

    async def send_cancel(self, record: InstanceRecord, request: bytes) -> None:
        """Send a cancel request, and return when the server has done with it."""
        if self._cancels.locked():
            return
        async with self._cancels:
            try:
                async with asyncio.timeout(CANCEL_SECONDS_MAX):
                    channel = await self._dial(record, CANCEL_SECONDS_MAX)
                    try:
                        channel.write(request)
                        await channel.drain()
                        # The server closes when it has sent the signal.
                        await channel.read()
                    finally:
                        channel.close()
            except (RequestError, TimeoutError, OSError) as error:
                self._log.info("cancel_failed", error=str(error))


def _no_session(message: str) -> RequestError:
    return RequestError(
        Reason.CONNECTIONS,
        message,
        hint="Use shorter transactions, fewer clients, or a plan with more connections.",
    )

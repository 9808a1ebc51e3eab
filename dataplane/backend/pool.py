"""The warm PostgreSQL sessions of one cell in one worker: lent for a statement or a transaction.

A fixed number of sessions keep their prepared statements for life and are not reset when they are
given back, which would halve throughput (research/performance.md section 1.3). They need none:
every text is an engine's own, names its instance's schema, and changes nothing of the session;
what a transaction sets is LOCAL. Who finds no free session waits in line, for a bounded time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from dataplane.backend.sqlstate import to_request_error
from engines.kit.errors import RequestError

STATEMENTS_KEPT = 512
WAITING_MAX = 2_000
# Of a data plane's workers with one cell, whose `max_connections` others need too.
SESSIONS_OF_ALL_MAX = 96
SESSIONS_MIN = 2
CONNECT_SECONDS_MAX = 5.0
ROLLBACK_SECONDS_MAX = 5.0
CLOSE_SECONDS_MAX = 1.0
# What a session may fail with.
FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
# Tables change their names when they change their form; the old one will not return.
FORGETTING = (asyncpg.UndefinedTableError, asyncpg.FeatureNotSupportedError)
# Of a cell's own configuration nothing that we promise may depend.
_SETTINGS: Mapping[str, str] = {
    "application_name": "weftkit",
    "client_connection_check_interval": "5s",  # a worker that was killed keeps no locks
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",
    "statement_timeout": "0",  # the worker counts, and cancels
    "synchronous_commit": "on",
    "timezone": "UTC",
}

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Statement: TypeAlias = "PreparedStatement[asyncpg.Record]"
# asyncpg's records, which are sequences of their values.
Rows = Sequence[Sequence[Any]]


class CellSession:
    """One session, used by one task at a time. Errors are asyncpg's own."""

    __slots__ = ("_prepared", "_statements", "connection")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._statements: dict[str, Statement] = {}
        self._prepared = 0

    async def fetch(self, text: str, params: Sequence[object], within_s: float) -> Rows:
        """Run one statement, prepared at its first use, and return its rows."""
        statement = self._statements.get(text)
        if statement is None:
            statement = await self._prepare(text, within_s)
        try:
            return await self.run(statement, params, within_s)
        except FORGETTING:
            self.forget(text)
            raise

    def prepared(self, text: str) -> Statement | None:
        """Return a statement that was prepared before."""
        return self._statements.get(text)

    def forget(self, text: str) -> None:
        """Drop a statement that failed with one of `FORGETTING`."""
        self._statements.pop(text, None)

    def run(
        self, statement: Statement, params: Sequence[object], within_s: float
    ) -> Awaitable[Rows]:
        """Run a prepared statement."""
        # What `statement.fetch` awaits behind three coroutines and two guards, at a fifth less CPU
        # a statement; asyncpg's version is pinned.
        return cast(
            Awaitable[Rows],
            cast(Any, self.connection)._protocol.bind_execute(
                cast(Any, statement)._state, params, "", 0, False, within_s
            ),
        )

    async def execute(self, text: str, params: Sequence[object], within_s: float) -> int:
        """Run one statement and return the number of rows it touched; prepare it if it has values.

        Statements without values are those of a change of form, which nobody repeats.
        """
        if params:
            statement = self._statements.get(text) or await self._prepare(text, within_s)
            await statement.fetch(*params, timeout=within_s)
            tag = statement.get_statusmsg()
        else:
            tag = await self.connection.execute(text, timeout=within_s)
        # "INSERT 0 5", "UPDATE 5"; statements without a count end in a word.
        count = (tag or "").rsplit(" ", 1)[-1]
        return int(count) if count.isdigit() else 0

    async def _prepare(self, text: str, within_s: float) -> Statement:
        self._prepared += 1
        statement = await self.connection.prepare(text, name=f"s{self._prepared}", timeout=within_s)
        if len(self._statements) >= STATEMENTS_KEPT:
            # The one that was prepared first: it is prepared again if anybody wants it.
            del self._statements[next(iter(self._statements))]
        self._statements[text] = statement
        return statement


class CellPool:
    """The sessions of one cell."""

    def __init__(self, dsn: str, *, size: int, wait_s: float) -> None:
        self._dsn = dsn
        self._size = size
        self._wait_s = wait_s
        self._loop = asyncio.get_running_loop()
        # The one that was used last is the next to be used: what is rarely needed rests.
        self._idle: list[CellSession] = []
        self._open = 0
        self._waiting: deque[asyncio.Future[CellSession | None]] = deque()
        self._rollbacks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        # How many sessions work in the background may have at a time.
        self.background = asyncio.Semaphore(max(1, size // 2))
        # Tasks with a transaction: a second session for one of them could wait for ever.
        self.in_transaction: set[asyncio.Task[object] | None] = set()

    @property
    def idle(self) -> int:
        """How many sessions nobody uses."""
        return len(self._idle)

    def take_free(self) -> CellSession | None:
        """Return a session that is free now, if there is one."""
        while self._idle:
            session = self._idle.pop()
            if not session.connection.is_closed():
                return session
            self._open -= 1
        return None

    async def take(self) -> CellSession:
        """Return a session, a new one if there is room, or wait for one.

        Raises RequestError(BACKEND): none in time, or PostgreSQL cannot be reached.
        """
        deadline = self._loop.time() + self._wait_s
        while True:
            session = self.take_free()
            if session is not None:
                return session
            if self._open < self._size and not self._is_closed:
                return await self._connect()
            session = await self._wait(deadline)
            # None: there is room now, for whoever comes first.
            if session is not None:
                return session

    def give(self, session: CellSession) -> None:
        """Take a session back."""
        if session.connection.is_closed() or self._is_closed:
            session.connection.terminate()
            self._open -= 1
            self._pass_on(None)
        elif not self._pass_on(session):
            self._idle.append(session)

    def roll_back(self, session: CellSession) -> None:
        """Take a session back whose transaction has to be undone first; nobody waits for it."""
        task = self._loop.create_task(self._roll_back(session))
        self._rollbacks.add(task)
        task.add_done_callback(self._rollbacks.discard)

    async def close(self) -> None:
        """Close what is idle now, and the rest as it comes back."""
        self._is_closed = True
        if self._rollbacks:
            await asyncio.wait(self._rollbacks)
        while self._idle:
            self._open -= 1
            connection = self._idle.pop().connection
            try:
                await connection.close(timeout=CLOSE_SECONDS_MAX)
            except FAILURES:
                connection.terminate()

    async def _connect(self) -> CellSession:
        self._open += 1
        try:
            return CellSession(
                await asyncpg.connect(
                    self._dsn,
                    timeout=CONNECT_SECONDS_MAX,
                    statement_cache_size=0,  # each session keeps its own
                    server_settings=dict(_SETTINGS),
                )
            )
        except BaseException as error:
            self._open -= 1
            self._pass_on(None)
            if isinstance(error, FAILURES):
                raise to_request_error("08006") from error
            raise

    async def _wait(self, deadline: float) -> CellSession | None:
        if len(self._waiting) >= WAITING_MAX:
            raise to_request_error("53300")
        turn: asyncio.Future[CellSession | None] = self._loop.create_future()
        self._waiting.append(turn)
        timer = self._loop.call_at(deadline, _give_up, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # It was handed over in the very turn in which we were cancelled.
                session = turn.result()
                if session is not None:
                    self.give(session)
                else:
                    self._pass_on(None)
            raise
        finally:
            timer.cancel()

    def _pass_on(self, session: CellSession | None) -> bool:
        """Hand a session, or the room for one, to whoever waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(session)
                return True
        return False

    async def _roll_back(self, session: CellSession) -> None:
        try:
            await session.connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS_MAX)
        except FAILURES:
            session.connection.terminate()
        finally:
            self.give(session)


def sessions_of_a_worker(sessions_max: int, workers: int) -> int:
    """Return how many sessions a worker may have with a cell that all workers share."""
    return max(SESSIONS_MIN, min(sessions_max, SESSIONS_OF_ALL_MAX // workers))


class CellPools:
    """The pools of all cells that this data plane reaches."""

    def __init__(self, cells: Mapping[str, str], *, size: int, wait_s: float) -> None:
        self._cells = cells
        self._size = size
        self._wait_s = wait_s
        self._pools: dict[str, CellPool] = {}

    def pool(self, name: str) -> CellPool:
        """Return the pool of a cell. Raises RequestError(BACKEND) for one that is unknown here."""
        pool = self._pools.get(name)
        if pool is None:
            dsn = self._cells.get(name)
            if dsn is None:
                raise to_request_error("08001")
            pool = self._pools[name] = CellPool(dsn, size=self._size, wait_s=self._wait_s)
        return pool

    async def close(self) -> None:
        """Close all pools."""
        for pool in self._pools.values():
            await pool.close()


def _give_up(turn: asyncio.Future[CellSession | None]) -> None:
    if not turn.done():
        turn.set_exception(_busy())


def _busy() -> RequestError:
    return to_request_error("53300")

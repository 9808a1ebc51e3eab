"""`ports.Store` over a cell's sessions: single statements, and transactions.

The plan's statement timeout bounds a statement, and a transaction as a whole. PostgreSQL's errors
become RequestErrors by SQLSTATE; a session that is lost in the middle is a BACKEND error, and what
it had been asked for may or may not have been done.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

import asyncpg

from dataplane.backend.pool import FAILURES, FORGETTING, CellPool, CellSession, Rows
from dataplane.backend.sqlstate import to_request_error
from engines.kit.errors import LocalError, Reason, RequestError

# For plans without a bound of their own.
STATEMENT_SECONDS = 30.0
_BEGIN = {
    "read_committed": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "repeatable_read": "BEGIN ISOLATION LEVEL REPEATABLE READ",
}
# Least time for what a transaction does when its own is over: it then ends in a timeout.
_LEAST_S = 0.001


class InstanceStore:
    """`ports.Store` of one instance. What is done in the background leaves sessions to requests."""

    __slots__ = ("_is_background", "_pool", "_within_s")

    def __init__(
        self, pool: CellPool, within_s: float = STATEMENT_SECONDS, *, is_background: bool = False
    ) -> None:
        self._pool = pool
        self._within_s = within_s
        self._is_background = is_background

    async def fetch(self, text: str, *params: object) -> Rows:
        """Run one statement and return its rows. Raises RequestError by SQLSTATE."""
        pool = self._pool
        session = None
        if not pool.in_transaction and not self._is_background:
            session = pool.take_free()
        if session is None:
            session = await self._take()
        statement = session.prepared(text)
        try:
            if statement is None:
                return await session.fetch(text, params, self._within_s)
            return await session.run(statement, params, self._within_s)
        except FAILURES as error:
            if isinstance(error, FORGETTING):
                session.forget(text)
            raise translated(error, session) from error
        finally:
            self._give(session)

    async def execute(self, text: str, *params: object) -> int:
        """Run one statement and return the number of rows it touched."""
        session = await self._take()
        try:
            return await session.execute(text, params, self._within_s)
        except FAILURES as error:
            raise translated(error, session) from error
        finally:
            self._give(session)

    def transaction(self, isolation: str = "read_committed") -> TransactionBlock:
        """Run a block in a transaction; see `ports.Store`."""
        return TransactionBlock(self, _BEGIN[isolation])

    @property
    def pool(self) -> CellPool:
        """The sessions."""
        return self._pool

    @property
    def within_s(self) -> float:
        """The time of a statement, and of a transaction."""
        return self._within_s

    async def take(self) -> CellSession:
        """Return a session for a task that has none."""
        return await self._take()

    def settle(self, session: CellSession, *, is_over: bool) -> None:
        """Take a session back behind its transaction, which was ended or is to be undone."""
        if self._is_background:
            self._pool.background.release()
        if is_over:
            self._pool.give(session)
        else:
            self._pool.roll_back(session)

    async def _take(self) -> CellSession:
        pool = self._pool
        if pool.in_transaction and asyncio.current_task() in pool.in_transaction:
            raise LocalError("a statement outside of the transaction that its task is in")
        if not self._is_background:
            return await pool.take()
        await pool.background.acquire()
        try:
            return await pool.take()
        except BaseException:
            pool.background.release()
            raise

    def _give(self, session: CellSession) -> None:
        if self._is_background:
            self._pool.background.release()
        self._pool.give(session)


class TransactionBlock:
    """`async with` around a transaction."""

    __slots__ = ("_begin", "_store", "_task", "_transaction")

    def __init__(self, store: InstanceStore, begin: str) -> None:
        self._store = store
        self._begin = begin
        self._task: asyncio.Task[object] | None = None
        self._transaction: Transaction | None = None

    async def __aenter__(self) -> Transaction:
        store = self._store
        session = await store.take()
        self._task = asyncio.current_task()
        store.pool.in_transaction.add(self._task)
        transaction = self._transaction = Transaction(session, store.within_s)
        try:
            await transaction.execute(self._begin)
        except BaseException:
            self._end(transaction, is_over=False)
            raise
        return transaction

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        transaction = self._transaction
        assert transaction is not None
        is_over = False
        try:
            if error is None:
                if transaction.has_failed:
                    # COMMIT would say yes to it and do nothing.
                    raise to_request_error("25P02")
                await transaction.execute("COMMIT")
                is_over = True
        finally:
            self._end(transaction, is_over=is_over)

    def _end(self, transaction: Transaction, *, is_over: bool) -> None:
        self._store.pool.in_transaction.discard(self._task)
        transaction.is_over = True
        self._store.settle(transaction.session, is_over=is_over)


class Transaction:
    """`ports.Statements` of one transaction."""

    __slots__ = ("_deadline", "_loop", "has_failed", "is_over", "session")

    def __init__(self, session: CellSession, within_s: float) -> None:
        self.session = session
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + within_s
        self.has_failed = False
        self.is_over = False

    async def fetch(self, text: str, *params: object) -> Rows:
        """Run one statement and return its rows."""
        try:
            return await self.session.fetch(text, params, self._left_s())
        except FAILURES as error:
            self.has_failed = True
            raise translated(error, self.session) from error

    async def execute(self, text: str, *params: object) -> int:
        """Run one statement and return the number of rows it touched."""
        try:
            return await self.session.execute(text, params, self._left_s())
        except FAILURES as error:
            self.has_failed = True
            raise translated(error, self.session) from error

    def _left_s(self) -> float:
        if self.is_over:
            raise LocalError("a statement after the end of its transaction")
        return max(_LEAST_S, self._deadline - self._loop.time())


def translated(error: BaseException, session: CellSession) -> RequestError:
    """Return the refusal for a failure of asyncpg."""
    if isinstance(error, asyncpg.PostgresError):
        return to_request_error(error.sqlstate or "")
    if isinstance(error, TimeoutError):
        return RequestError(Reason.TIMEOUT, "the request took too long")
    if isinstance(error, OSError) or session.connection.is_closed():
        return to_request_error("08006")
    return to_request_error("")

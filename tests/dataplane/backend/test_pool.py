"""A cell's sessions and the store over them, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from dataplane.backend.pool import CellPool, sessions_of_a_worker
from dataplane.backend.store import InstanceStore
from engines.kit.errors import LocalError, Reason, RequestError
from tests.servers import PostgresServer

PID = "SELECT pg_backend_pid()"


def cell_pool(postgres: PostgresServer, size: int) -> CellPool:
    return CellPool(postgres.dsn("cell"), size=size, wait_s=0.2)


@pytest.fixture
async def pool(postgres: PostgresServer) -> AsyncIterator[CellPool]:
    postgres.create_database("cell")
    pool = cell_pool(postgres, 2)
    yield pool
    await pool.close()


@pytest.fixture
async def single(postgres: PostgresServer) -> AsyncIterator[CellPool]:
    """A pool with one session only."""
    postgres.create_database("cell")
    pool = cell_pool(postgres, 1)
    yield pool
    await pool.close()


@pytest.fixture
async def numbers(pool: CellPool) -> InstanceStore:
    """A store with a table of the numbers from 1 to 5."""
    store = InstanceStore(pool)
    await store.execute("DROP TABLE IF EXISTS numbers")
    await store.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
    assert await store.execute("INSERT INTO numbers SELECT generate_series(1, $1::int)", 5) == 5
    return store


@pytest.fixture
async def until_asleep(postgres: PostgresServer) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Wait until the cell's server is asleep for somebody."""
    watching = cell_pool(postgres, 1)
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

    async def wait() -> None:
        async with asyncio.timeout(5):
            while not await InstanceStore(watching).fetch(sleeping):
                pass

    yield wait
    await watching.close()


async def count(store: InstanceStore) -> int:
    ((found,),) = await store.fetch("SELECT count(*) FROM numbers")
    assert isinstance(found, int)
    return found


def test_many_workers_share_what_a_cell_can_carry() -> None:
    assert [sessions_of_a_worker(16, workers) for workers in (1, 6, 8, 64)] == [16, 16, 12, 2]


async def test_one_session_serves_all_who_come_one_after_the_other(pool: CellPool) -> None:
    pids = {(await InstanceStore(pool).fetch(PID))[0][0] for _ in range(5)}
    assert len(pids) == 1


async def test_a_statement_is_prepared_once_for_all_instances(single: CellPool) -> None:
    mine = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 4711'"
    for _ in range(3):
        await InstanceStore(single).fetch("SELECT 4711")
    assert (await InstanceStore(single).fetch(mine))[0][0] == 1


async def test_statements_beyond_the_bound_make_room_and_still_run(
    single: CellPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataplane.backend.pool.STATEMENTS_KEPT", 4)
    store = InstanceStore(single)
    for _ in range(2):
        for number in range(8):
            assert (await store.fetch(f"SELECT {number}"))[0][0] == number
    ((kept,),) = await store.fetch("SELECT count(*) FROM pg_prepared_statements")
    assert kept <= 5


async def test_sessions_are_bounded_and_the_wait_too(pool: CellPool) -> None:
    held = [await pool.take(), await pool.take()]
    with pytest.raises(RequestError) as refused:
        await InstanceStore(pool).fetch(PID)
    assert refused.value.reason is Reason.BACKEND
    for session in held:
        pool.give(session)
    assert await InstanceStore(pool).fetch(PID)


async def test_who_waits_gets_the_next_free_session_in_turn(single: CellPool) -> None:
    held = await single.take()
    store, order = InstanceStore(single), []

    async def ask(number: int) -> None:
        await store.fetch(PID)
        order.append(number)

    tasks = [asyncio.create_task(ask(number)) for number in range(5)]
    await asyncio.sleep(0)
    single.give(held)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]


async def test_a_waiting_task_that_is_cancelled_loses_no_session(single: CellPool) -> None:
    held = await single.take()
    waiting = asyncio.create_task(InstanceStore(single).fetch(PID))
    await asyncio.sleep(0)
    single.give(held)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await InstanceStore(single).fetch(PID)


async def test_a_statement_that_is_cancelled_leaves_a_session_that_works(
    single: CellPool, until_asleep: Callable[[], Awaitable[None]]
) -> None:
    store = InstanceStore(single)
    await store.fetch(PID)
    sleeping = asyncio.create_task(store.fetch("SELECT pg_sleep(60)"))
    await until_asleep()
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    async with asyncio.timeout(5):
        assert await store.fetch("SELECT 1") == [(1,)]


async def test_work_in_the_background_leaves_half_of_the_sessions(
    pool: CellPool, until_asleep: Callable[[], Awaitable[None]]
) -> None:
    background = InstanceStore(pool, 60.0, is_background=True)
    sleeping = [asyncio.create_task(background.fetch("SELECT pg_sleep(60)")) for _ in range(3)]
    await until_asleep()
    assert await InstanceStore(pool).fetch("SELECT 1") == [(1,)]
    for task in sleeping:
        task.cancel()
    await asyncio.gather(*sleeping, return_exceptions=True)
    assert await background.fetch("SELECT 2") == [(2,)]


async def test_a_session_that_died_is_replaced(pool: CellPool) -> None:
    store = InstanceStore(pool)
    killer = await pool.take()
    ((pid,),) = await store.fetch(PID)
    await killer.connection.execute(f"SELECT pg_terminate_backend({pid})")
    pool.give(killer)
    failures = 0
    for _ in range(20):
        try:
            assert await store.fetch(PID) != [(pid,)]
        except RequestError as error:
            # The news of its death may come with the next use.
            assert error.reason is Reason.BACKEND
            failures += 1
    assert failures <= 1


async def test_a_statement_is_stopped_when_its_time_is_over(single: CellPool) -> None:
    store = InstanceStore(single, 0.1)
    with pytest.raises(RequestError) as refused:
        await store.fetch("SELECT pg_sleep(60)")
    assert refused.value.reason is Reason.TIMEOUT
    assert await InstanceStore(single).fetch("SELECT 1") == [(1,)]


async def test_execute_tells_how_many_rows_it_touched(numbers: InstanceStore) -> None:
    assert await numbers.execute("DELETE FROM numbers WHERE n > $1", 3) == 2
    assert await numbers.execute("DELETE FROM numbers") == 3


async def test_a_transaction_commits_what_its_block_did(numbers: InstanceStore) -> None:
    async with numbers.transaction() as transaction:
        assert await transaction.execute("DELETE FROM numbers WHERE n = $1", 1) == 1
        assert await transaction.fetch("SELECT count(*) FROM numbers") == [(4,)]
    assert await count(numbers) == 4


@pytest.mark.parametrize("error", [ValueError("x"), RequestError(Reason.CONFLICT, "x")])
async def test_a_transaction_is_rolled_back_if_its_block_raises(
    numbers: InstanceStore, error: Exception
) -> None:
    with pytest.raises(type(error)):
        async with numbers.transaction() as transaction:
            await transaction.execute("DELETE FROM numbers")
            raise error
    assert await count(numbers) == 5


async def test_a_transaction_whose_failure_was_overlooked_says_so(numbers: InstanceStore) -> None:
    with pytest.raises(RequestError) as refused:
        async with numbers.transaction() as transaction:
            await transaction.execute("DELETE FROM numbers")
            with pytest.raises(RequestError):
                await transaction.fetch("SELECT 1 / 0")
    assert refused.value.reason is Reason.CONFLICT
    assert await count(numbers) == 5


async def test_a_cancelled_transaction_keeps_no_lock(
    numbers: InstanceStore, until_asleep: Callable[[], Awaitable[None]]
) -> None:
    async def lock() -> None:
        async with numbers.transaction() as transaction:
            await transaction.execute("DELETE FROM numbers")
            await transaction.fetch("SELECT pg_sleep(60)")

    task = asyncio.create_task(lock())
    await until_asleep()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        assert await numbers.execute("UPDATE numbers SET n = n WHERE n = $1", 1) == 1
    assert await count(numbers) == 5


async def test_a_transaction_of_repeatable_reads_sees_one_moment(numbers: InstanceStore) -> None:
    async with numbers.transaction("repeatable_read") as transaction:
        assert await transaction.fetch("SELECT count(*) FROM numbers") == [(5,)]
        await asyncio.create_task(numbers.execute("DELETE FROM numbers WHERE n = $1", 1))
        assert await transaction.fetch("SELECT count(*) FROM numbers") == [(5,)]
    assert await count(numbers) == 4


async def test_what_a_transaction_sets_ends_with_it(single: CellPool) -> None:
    store = InstanceStore(single)
    async with store.transaction() as transaction:
        await transaction.execute("SET LOCAL lock_timeout = '123ms'")
        assert await transaction.fetch("SHOW lock_timeout") == [("123ms",)]
    assert await store.fetch("SHOW lock_timeout") == [("0",)]


async def test_a_lock_that_does_not_come_in_time_is_a_conflict(numbers: InstanceStore) -> None:
    async def second() -> RequestError:
        with pytest.raises(RequestError) as refused:
            async with numbers.transaction() as transaction:
                await transaction.execute("SET LOCAL lock_timeout = '50ms'")
                await transaction.execute("UPDATE numbers SET n = n WHERE n = $1", 1)
        return refused.value

    async with numbers.transaction() as transaction:
        await transaction.execute("UPDATE numbers SET n = n WHERE n = $1", 1)
        error = await asyncio.create_task(second())
    assert (error.reason, error.sqlstate) == (Reason.CONFLICT, "55P03")


async def test_the_store_may_not_be_used_inside_of_a_transaction(numbers: InstanceStore) -> None:
    async with numbers.transaction():
        with pytest.raises(LocalError):
            await numbers.fetch("SELECT 1")
        with pytest.raises(LocalError):
            async with numbers.transaction():
                pass
    with pytest.raises(LocalError):
        async with numbers.transaction() as over:
            pass
        await over.fetch("SELECT 1")


async def test_a_table_that_was_renamed_is_not_found_and_its_statement_forgotten(
    numbers: InstanceStore,
) -> None:
    old = "SELECT count(*) FROM numbers"
    assert await numbers.fetch(old) == [(5,)]
    await numbers.execute("ALTER TABLE numbers RENAME TO others")
    with pytest.raises(RequestError) as refused:
        await numbers.fetch(old)
    assert (refused.value.reason, refused.value.sqlstate) == (Reason.NOT_FOUND, "42P01")
    await numbers.execute("ALTER TABLE others RENAME TO numbers")
    assert await numbers.fetch(old) == [(5,)]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT 1 / 0", Reason.MALFORMED),
        ("SELECT * FROM missing", Reason.NOT_FOUND),
        ("INSERT INTO numbers VALUES (1)", Reason.CONFLICT),
        ("SELECT nonsense(", Reason.INTERNAL),
    ],
)
async def test_errors_become_reasons_and_show_no_sql(
    pool: CellPool, statement: str, reason: Reason
) -> None:
    store = InstanceStore(pool)
    await store.execute("CREATE TABLE IF NOT EXISTS numbers (n int PRIMARY KEY)")
    await store.execute("INSERT INTO numbers VALUES (1) ON CONFLICT DO NOTHING")
    with pytest.raises(RequestError) as refused:
        await store.fetch(statement)
    assert refused.value.reason is reason
    assert "numbers" not in refused.value.message
    assert "missing" not in refused.value.message


async def test_a_cell_that_is_away_is_a_backend_error() -> None:
    pool = CellPool("postgresql://x@/x?host=/nowhere", size=1, wait_s=1)
    with pytest.raises(RequestError) as refused:
        await InstanceStore(pool).fetch(PID)
    assert refused.value.reason is Reason.BACKEND

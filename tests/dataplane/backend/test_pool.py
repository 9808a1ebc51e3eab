"""Warm sessions on a real PostgreSQL: affinity, reset on a change of instance, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dataplane.backend.pool import CellPool, InstanceStore
from engines.kit.errors import Reason, RequestError
from tests.servers import PostgresServer

PID = "SELECT pg_backend_pid()"
SETTING = "SELECT current_setting('weftkit.mark', true)"


def cell_pool(postgres: PostgresServer, size: int) -> CellPool:
    return CellPool(postgres.dsn("cell"), size=size, wait_s=0.2, statement_s=5.0)


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


async def test_a_session_returns_to_its_instance_and_keeps_its_state(pool: CellPool) -> None:
    one = InstanceStore(pool, "one")
    ((pid,),) = await one.fetch(PID)
    await one.execute("SELECT set_config('weftkit.mark', 'mine', false)")
    assert await one.fetch(PID) == [(pid,)]
    assert await one.fetch(SETTING) == [("mine",)]


async def test_instances_have_sessions_of_their_own_while_there_is_room(pool: CellPool) -> None:
    first = await InstanceStore(pool, "one").fetch(PID)
    assert await InstanceStore(pool, "two").fetch(PID) != first
    assert await InstanceStore(pool, "one").fetch(PID) == first


async def test_a_session_is_reset_when_it_changes_instance(single: CellPool) -> None:
    ((pid,),) = await InstanceStore(single, "one").fetch(PID)
    await InstanceStore(single, "one").execute("SELECT set_config('weftkit.mark', 'mine', false)")
    two = InstanceStore(single, "two")
    assert await two.fetch(PID) == [(pid,)]
    assert await two.fetch(SETTING) in ([("",)], [(None,)])


async def test_prepared_statements_outlive_a_change_of_instance(single: CellPool) -> None:
    mine = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 4711'"
    await InstanceStore(single, "one").fetch("SELECT 4711")
    assert await InstanceStore(single, "two").fetch(mine) == [(1,)]


async def test_sessions_are_bounded_and_the_wait_too(pool: CellPool) -> None:
    async with pool.session("one"), pool.session("two"):
        with pytest.raises(RequestError) as refused:
            await InstanceStore(pool, "three").fetch(PID)
    assert refused.value.reason is Reason.BACKEND


async def test_a_session_that_died_is_replaced(pool: CellPool) -> None:
    store = InstanceStore(pool, "one")
    ((pid,),) = await store.fetch(PID)
    async with pool.session("other") as killer:
        await killer.execute("SELECT pg_terminate_backend($1)", pid)
    async with asyncio.timeout(5):
        while True:
            try:
                assert await store.fetch(PID) != [(pid,)]
                return
            except RequestError as error:
                # The news of its death may come with the first use.
                assert error.reason is Reason.BACKEND


async def test_execute_tells_how_many_rows_it_touched(pool: CellPool) -> None:
    store = InstanceStore(pool, "one")
    assert await store.execute("CREATE TABLE numbers (n int PRIMARY KEY)") == 0
    assert await store.execute("INSERT INTO numbers SELECT generate_series(1, 5)") == 5
    assert await store.execute("DELETE FROM numbers WHERE n > $1", 3) == 2


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
    store = InstanceStore(pool, "one")
    await store.execute("CREATE TABLE IF NOT EXISTS numbers (n int PRIMARY KEY)")
    await store.execute("INSERT INTO numbers VALUES (1) ON CONFLICT DO NOTHING")
    with pytest.raises(RequestError) as refused:
        await store.fetch(statement)
    assert refused.value.reason is reason
    assert "numbers" not in refused.value.message
    assert "missing" not in refused.value.message


async def test_a_cell_that_is_away_is_a_backend_error() -> None:
    pool = CellPool("postgresql://x@/x?host=/nowhere", size=1, wait_s=1, statement_s=1)
    with pytest.raises(RequestError) as refused:
        await InstanceStore(pool, "one").fetch(PID)
    assert refused.value.reason is Reason.BACKEND

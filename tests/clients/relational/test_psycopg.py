"""psycopg 3: transactions, pipelines, cursors, notifications, cancel, many connections."""

from __future__ import annotations

import asyncio
import threading

import asyncpg
import psycopg
import pytest
from psycopg import errors, sql

from tests.servers import wait_until
from tests.stack import Stack

pytestmark = pytest.mark.stack


@pytest.fixture
def uri(stack: Stack) -> str:
    """The demo tenant's relational instance."""
    return stack.connection("demo", "relational").uri


def test_prepared_statements_and_types_round_trip(uri: str) -> None:
    with psycopg.connect(uri) as connection:
        for _ in range(8):  # psycopg prepares on the fifth use
            row = connection.execute(
                "SELECT %s::int8, %s::numeric, %s::text, %s::bytea, %s::jsonb",
                (2**40, 1.5, "é", b"\0\1", '{"a": [1]}'),
            ).fetchone()
            assert row == (2**40, 1.5, "é", b"\0\1", {"a": [1]})


def test_a_pipeline_returns_every_result_in_order(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection, connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(300)]
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(300)]


def test_a_server_cursor_pages_through_a_large_result(uri: str) -> None:
    with psycopg.connect(uri) as connection, connection.cursor("pages") as cursor:
        cursor.execute("SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) AS n")
        assert sum(row[0] for row in cursor) == 20000 * 20001 // 2


def test_a_notification_reaches_a_listener(uri: str) -> None:
    with (
        psycopg.connect(uri, autocommit=True) as listener,
        psycopg.connect(uri, autocommit=True) as speaker,
    ):
        listener.execute("LISTEN news")
        speaker.execute("NOTIFY news, 'hello'")
        notified = next(listener.notifies(timeout=10, stop_after=1))
        assert (notified.channel, notified.payload) == ("news", "hello")


def test_cancel_stops_a_running_statement(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        with psycopg.connect(uri, autocommit=True) as watcher:

            def cancel_when_running() -> None:
                running = sql.SQL(
                    "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'"
                    " AND state = 'active'"
                )
                wait_until(lambda: watcher.execute(running).fetchone() is not None, "it runs")
                connection.cancel_safe(timeout=10)

            thread = threading.Thread(target=cancel_when_running)
            thread.start()
            with pytest.raises(errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(60)")
            thread.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_servers_own_errors_pass_unchanged(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        with pytest.raises(errors.UndefinedTable):
            connection.execute("SELECT * FROM nowhere")
        with pytest.raises(errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        assert connection.execute("SELECT 1").fetchone() == (1,)


async def test_asyncpg_runs_many_statements_on_many_connections(uri: str) -> None:
    async def work(number: int) -> int:
        connection = await asyncpg.connect(uri)
        try:
            values = [await connection.fetchval("SELECT $1::int", n) for n in range(50)]
            return number + sum(values)
        finally:
            await connection.close()

    totals = await asyncio.gather(*(work(number) for number in range(20)))
    assert totals == [number + 1225 for number in range(20)]


def test_vector_columns_and_nearest_neighbours_work(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("DROP TABLE IF EXISTS items")
        connection.execute("CREATE TABLE items (id int, at vector(3))")
        connection.execute("INSERT INTO items VALUES (1, '[0,0,0]'), (2, '[1,1,1]')")
        nearest = connection.execute("SELECT id FROM items ORDER BY at <-> '[1,1,0.9]' LIMIT 1")
        assert nearest.fetchone() == (2,)


@pytest.mark.parametrize(
    "route",
    [
        pytest.param("?options=-c%20weftkit.instance%3D{handle}", id="options"),
        pytest.param("", id="key id"),
    ],
)
def test_an_instance_can_be_named_in_several_ways(stack: Stack, route: str) -> None:
    connection = stack.connection("demo", "relational")
    target = connection.uri + route.format(handle=connection.instance)
    with psycopg.connect(target) as session:
        assert session.execute("SELECT current_user").fetchone() == ("owner",)


def test_an_instance_can_be_named_behind_the_user(stack: Stack) -> None:
    row = stack.connection("demo", "relational")
    with psycopg.connect(
        host=row.host, port=row.port, user=f"{row.user}.{row.instance}", password=row.password,
        dbname="weftkit",
    ) as session:  # fmt: skip
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_names_that_disagree_are_refused_like_a_wrong_password(stack: Stack) -> None:
    row, foreign = stack.connection("demo", "relational"), stack.connection("other", "relational")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(
            host=row.host, port=row.port, user=f"{row.user}.{foreign.instance}",
            password=row.password, dbname="weftkit",
        )  # fmt: skip

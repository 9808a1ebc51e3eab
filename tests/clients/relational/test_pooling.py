"""Clients that share sessions, through the real stack: drivers, faults, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa

from engines.relational.engine import POOL_PORT, PORT
from tests.admin import Admin
from tests.clients.node.programs import run_program
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack

LITE_CONNECTIONS = 20

# Three requests of a Django site whose connections stay open, and one that is rolled back.
DJANGO_PROGRAM = """
import json, sys
import django
from django.conf import settings
from urllib.parse import urlsplit, unquote

parts = urlsplit(sys.argv[1])
settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": parts.hostname, "PORT": parts.port, "NAME": parts.path[1:],
        "USER": unquote(parts.username), "PASSWORD": unquote(parts.password),
        "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True, "DISABLE_SERVER_SIDE_CURSORS": True,
    }},
    USE_TZ=True,
)
django.setup()
from django.core.signals import request_finished, request_started
from django.db import connection, transaction

rows, connections = [], set()
with connection.cursor() as cursor:
    cursor.execute("DROP TABLE IF EXISTS django_pooled")
    cursor.execute("CREATE TABLE django_pooled (n int)")
for _ in range(3):
    request_started.send(None)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_pooled")
        cursor.executemany("INSERT INTO django_pooled VALUES (%s)", [(1,), (2,), (3,)])
        cursor.execute("SELECT count(*) FROM django_pooled")
        rows.append(cursor.fetchone()[0])
    connections.add(id(connection.connection))
    request_finished.send(None)
try:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_pooled")
        raise ValueError
except ValueError:
    pass
with connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM django_pooled")
    left = cursor.fetchone()[0]
    cursor.execute("DROP TABLE django_pooled")
print(json.dumps({"rows": rows, "same connection": len(connections) == 1, "rolled back": left}))
"""


def pooled(row: Connection) -> str:
    """Return the connection string of the port where sessions are shared."""
    parts = urlsplit(row.uri)
    address = parts.netloc.removesuffix(str(parts.port)) + str(row.port - PORT + POOL_PORT)
    return urlunsplit(parts._replace(netloc=address))


@pytest.fixture(scope="module")
def row(stack: Stack) -> Connection:
    return stack.connection("demo", "relational")


@pytest.fixture(scope="module")
def uri(row: Connection) -> str:
    return pooled(row)


@pytest.fixture(scope="module")
def lite(admin: Admin) -> Connection:
    """An instance whose plan has 20 connections."""
    return admin.new_instance("relational", plan="lite")


@pytest.fixture
def table(uri: str) -> Iterator[str]:
    """An empty table of the test's own."""
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS pooled_things")
        connection.execute("CREATE TABLE pooled_things (n int PRIMARY KEY)")
    yield "pooled_things"
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("DROP TABLE pooled_things")


def backend(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def test_the_printed_string_leads_to_the_pool(row: Connection) -> None:
    assert row.uri_pooled == pooled(row)


@pytest.mark.parametrize(
    "words", ["-c weftkit.pool=transaction", "pool=transaction", "--weftkit.pool=transaction"]
)
def test_the_connection_string_chooses_transaction_mode(row: Connection, words: str) -> None:
    with psycopg.connect(row.uri, autocommit=True, options=words) as one:
        # What no process of the server has: the number that a pooled client is given.
        assert one.info.backend_pid != backend(one)
    with psycopg.connect(row.uri, autocommit=True) as one:
        assert one.info.backend_pid == backend(one)


def test_the_connection_string_is_stronger_than_the_port(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True, options="pool=session") as one:
        assert one.info.backend_pid == backend(one)


def test_a_startup_parameter_chooses_transaction_mode(row: Connection) -> None:
    async def pids() -> tuple[int, int]:
        one = await asyncpg.connect(row.uri, server_settings={"pool": "transaction"})
        try:
            return one.get_server_pid(), await one.fetchval("SELECT pg_backend_pid()")
        finally:
            await one.close()

    said, real = asyncio.run(pids())
    assert said != real


def test_a_mode_that_does_not_exist_is_refused_by_name(row: Connection) -> None:
    with pytest.raises(psycopg.OperationalError, match='parameter "pool": "statement"'):
        psycopg.connect(row.uri, options="pool=statement")


def test_a_setting_that_cannot_be_is_refused_at_the_start(uri: str) -> None:
    with pytest.raises(psycopg.OperationalError, match='"TimeZone": "Moon/Crater"'):
        psycopg.connect(uri, options="-c TimeZone=Moon/Crater")


def test_psycopg_prepares_pipelines_and_pages(uri: str, table: str) -> None:
    with psycopg.connect(uri, autocommit=True, prepare_threshold=0) as connection:
        with connection.pipeline():
            for number in range(300):
                connection.execute("INSERT INTO pooled_things VALUES (%s)", (number,))
        with connection.transaction(), connection.cursor("pages") as cursor:
            cursor.execute("SELECT n FROM pooled_things ORDER BY n")
            assert [row[0] for row in cursor] == list(range(300))
        with connection.cursor() as cursor:
            with cursor.copy("COPY pooled_things FROM STDIN") as copy:
                copy.write_row((1000,))
            with cursor.copy("COPY (SELECT max(n) FROM pooled_things) TO STDOUT") as copy:
                assert b"".join(copy) == b"1000\n"
            with (
                pytest.raises(psycopg.errors.UniqueViolation),
                cursor.copy("COPY pooled_things FROM STDIN") as copy,
            ):
                copy.write_row((1000,))
            assert cursor.execute("SELECT 'alive'").fetchone() == ("alive",)


def test_asyncpg_prepares_and_resets_between_its_own_clients(uri: str) -> None:
    async def answers() -> list[int]:
        async with asyncpg.create_pool(uri, min_size=5, max_size=5) as pool:
            return await asyncio.gather(
                *(pool.fetchval("SELECT $1::int * 2", number) for number in range(200))
            )

    assert asyncio.run(answers()) == [2 * number for number in range(200)]


def test_asyncpg_without_its_statement_cache_finds_its_unnamed_statement(uri: str) -> None:
    async def answers() -> list[int]:
        clients = [await asyncpg.connect(uri, statement_cache_size=0) for _ in range(8)]
        try:
            return await asyncio.gather(
                *(client.fetchval(f"SELECT {n} + $1::int", 100) for n, client in enumerate(clients))
            )
        finally:
            await asyncio.gather(*(client.close() for client in clients))

    assert asyncio.run(answers()) == [100 + number for number in range(8)]


def test_sqlalchemy_works_over_shared_sessions(uri: str, table: str) -> None:
    engine = sa.create_engine(uri.replace("postgresql://", "postgresql+psycopg://"), pool_size=4)
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO pooled_things VALUES (:n)"), [{"n": n} for n in range(50)]
        )
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT sum(n) FROM pooled_things")) == 49 * 50 // 2
    engine.dispose()


def test_node_postgres_works_over_shared_sessions(uri: str, stack: Stack) -> None:
    printed = run_program("pg.js", WEFTKIT_TEST_URI=uri, WEFTKIT_TEST_CA=stack.ca)
    assert printed["transaction"] == {"inserted": 2, "inside": 0, "after": 30}
    assert printed["prepared"]["answers"] == [2 * n for n in range(20)]
    assert printed["notification"] == {"channel": "node_news", "payload": "hello"}


def test_two_hundred_clients_work_over_twenty_sessions(lite: Connection) -> None:
    count = 10 * LITE_CONNECTIONS - 2
    uri = pooled(lite)

    def work(number: int) -> tuple[str, str]:
        name = f"client-{number}"
        with psycopg.connect(uri, autocommit=True, application_name=name) as one:
            start.wait()
            found = set()
            for _ in range(10):
                with one.transaction():
                    (seen,) = one.execute("SHOW application_name").fetchone() or ("",)
                    found.add(seen)
            return name, ",".join(sorted(found))

    start = threading.Barrier(count)
    with ThreadPoolExecutor(count) as threads:
        for name, seen in threads.map(work, range(count)):
            assert seen == name


def test_more_clients_than_may_share_are_refused(lite: Connection) -> None:
    uri = pooled(lite)
    held = []
    try:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            for _ in range(10 * LITE_CONNECTIONS + 1):
                held.append(psycopg.connect(uri, autocommit=True))
        assert len(held) == 10 * LITE_CONNECTIONS
    finally:
        for one in held:
            one.close()


def test_five_hundred_clients_work_over_fewer_than_ten_sessions_each(
    stack: Stack, row: Connection
) -> None:
    """What the sessions of the server were, is seen in its own list of them."""
    count = 500
    uri = pooled(row)
    seen: set[int] = set()

    def work(number: int) -> int:
        with psycopg.connect(uri, autocommit=True) as one:
            start.wait()
            for _ in range(4):
                with one.transaction():
                    seen.add(backend(one))
                    found = one.execute("SELECT %s::int", (number,)).fetchone()
                    assert found == (number,)
        return number

    start = threading.Barrier(count)
    with ThreadPoolExecutor(count) as threads:
        assert list(threads.map(work, range(count))) == list(range(count))
    assert 0 < len(seen) < count


def test_who_waits_long_is_told_and_then_served(lite: Connection) -> None:
    uri = pooled(lite)
    told: list[str] = []
    with contextlib.ExitStack() as held, ThreadPoolExecutor(1) as threads:
        # All are greeted before the first transaction keeps a session.
        clients = [
            held.enter_context(psycopg.connect(uri, autocommit=True))
            for _ in range(LITE_CONNECTIONS + 1)
        ]
        holders: list[psycopg.Connection] = []
        for client in clients:
            client.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
            asked = threads.submit(client.execute, "BEGIN")
            done, _ = wait([asked], timeout=2)
            if not done:
                break
            holders.append(client)
        else:
            pytest.fail("more transactions than the plan has connections")
        wait_until(lambda: told != [], "the client that waits is told", 15)
        assert re.fullmatch(r"waiting for a session of the pool for \d+ s", told[0])
        for holder in holders:
            holder.execute("COMMIT")
        asked.result(15)
        assert client.execute("SELECT 'served'").fetchone() == ("served",)
        assert len(told) == 1


def test_django_keeps_its_connections_in_the_pool(uri: str, row: Connection) -> None:
    """CONN_MAX_AGE leaves a connection open between requests; its session goes to others."""
    printed = subprocess.run(
        [sys.executable, "-c", DJANGO_PROGRAM, uri],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    answers = json.loads(printed)
    assert answers == {"rows": [3, 3, 3], "same connection": True, "rolled back": 3}


def test_a_killed_worker_takes_nothing_that_was_acknowledged(
    stack: Stack, uri: str, table: str
) -> None:
    acknowledged: set[int] = set()
    stop = threading.Event()

    def write(first: int) -> None:
        number = first
        while not stop.is_set():
            with (
                contextlib.suppress(psycopg.Error),
                psycopg.connect(uri, autocommit=True, connect_timeout=10) as one,
            ):
                while not stop.is_set():
                    number += 1
                    with one.transaction():
                        one.execute(f"INSERT INTO {table} VALUES (%s)", (number,))
                    acknowledged.add(number)

    with ThreadPoolExecutor(8) as threads:
        writers = [threads.submit(write, 1_000_000 * index) for index in range(8)]
        try:
            wait_until(lambda: len(acknowledged) > 200, "writes go on")
            killed = set(stack.kill("dataplane.worker"))
            wait_until(
                lambda: bool(set(stack.processes("dataplane.worker")) - killed),
                "the worker is back",
                60,
            )
            goal = len(acknowledged) + 200
            wait_until(lambda: len(acknowledged) > goal, "writes go on again", 60)
        finally:
            stop.set()
        for writer in writers:
            writer.result(30)
    with psycopg.connect(uri, autocommit=True) as one:
        stored = {n for (n,) in one.execute(f"SELECT n FROM {table}")}
    assert acknowledged <= stored


def test_resting_sessions_take_no_place_of_clients_in_session_mode(lite: Connection) -> None:
    def rest(_: int) -> None:
        with psycopg.connect(pooled(lite), autocommit=True) as one, one.transaction():
            start.wait()

    start = threading.Barrier(8)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(rest, range(8)))

    def is_room() -> bool:
        """Say whether the plan's other connections can be had all at once."""
        with contextlib.ExitStack() as held:
            try:
                for _ in range(LITE_CONNECTIONS - 8):
                    held.enter_context(psycopg.connect(lite.uri, autocommit=True))
            except psycopg.OperationalError:
                return False
            return True

    # Those of another worker rest for a sweep or two at the most.
    wait_until(is_room, "resting sessions make room", 10)


def test_a_cancel_request_stops_the_statement_of_its_own_client_only(uri: str) -> None:
    with (
        psycopg.connect(uri, autocommit=True) as victim,
        psycopg.connect(uri, autocommit=True) as other,
        ThreadPoolExecutor(2) as threads,
    ):
        # Who has nothing under way is not found by its key.
        other.cancel_safe(timeout=10)
        asleep = threads.submit(victim.execute, "SELECT pg_sleep(30)")
        wait_until(
            lambda: (
                other.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'"
                    " AND state = 'active'"
                ).fetchone()
                == (1,)
            ),
            "the statement runs",
        )
        victim.cancel_safe(timeout=10)
        with pytest.raises(psycopg.errors.QueryCanceled):
            asleep.result(20)
        assert other.execute("SELECT 'alive'").fetchone() == ("alive",)
        assert victim.execute("SELECT 'alive'").fetchone() == ("alive",)


def test_a_client_that_vanishes_in_a_transaction_leaves_nothing(uri: str, table: str) -> None:
    gone = psycopg.connect(uri)
    gone.execute("INSERT INTO pooled_things VALUES (1)")
    os.close(os.dup(gone.fileno()))
    gone.pgconn.finish()
    with psycopg.connect(uri, autocommit=True) as other:
        # Waits for the row's lock until the transaction is rolled back.
        other.execute("INSERT INTO pooled_things VALUES (1)")
        assert other.execute("SELECT count(*) FROM pooled_things").fetchone() == (1,)


def test_a_session_that_dies_between_transactions_is_not_missed(uri: str) -> None:
    with (
        psycopg.connect(uri, autocommit=True) as client,
        psycopg.connect(uri, autocommit=True) as other,
    ):
        pid = backend(client)
        with other.transaction():
            # Held in a transaction, so that `other` does not end its own session.
            if backend(other) != pid:
                other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        wait_until(
            lambda: other.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
                " AND pid <> pg_backend_pid()", (pid,)
            ).fetchone() == (0,),
            "the session is gone",
        )  # fmt: skip
        assert client.execute("SELECT 'alive'").fetchone() == ("alive",)


def test_a_session_that_dies_under_a_statement_costs_an_error_and_no_connection(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as client:
        with pytest.raises(psycopg.OperationalError) as caught:
            client.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")
        assert caught.value.sqlstate == "08006"
        assert client.execute("SELECT 'alive'").fetchone() == ("alive",)


def test_a_session_that_dies_in_a_transaction_ends_the_connection(uri: str) -> None:
    with psycopg.connect(uri) as client:
        client.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")
        assert client.closed


def test_a_killed_server_process_costs_an_error_and_no_connection(stack: Stack, uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as client:
        with pytest.raises(psycopg.OperationalError), ThreadPoolExecutor(1) as threads:
            asleep = threads.submit(client.execute, "SELECT pg_sleep(30)")
            with psycopg.connect(uri, autocommit=True) as watcher:
                pids: list[int] = []

                def runs() -> bool:
                    found = watcher.execute(
                        "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'"
                    ).fetchall()
                    pids[:] = [pid for (pid,) in found]
                    return bool(pids)

                wait_until(runs, "the statement runs")
                os.kill(pids[0], signal.SIGKILL)
            asleep.result(20)
        wait_until(lambda: _answers(client), "the server serves again")


def _answers(client: psycopg.Connection) -> bool:
    try:
        return client.execute("SELECT 'alive'").fetchone() == ("alive",)
    except psycopg.OperationalError:
        assert not client.closed
        return False


def test_a_revoked_credential_ends_its_shared_connections(admin: Admin, lite: Connection) -> None:
    row = admin.new_credential(lite)
    with psycopg.connect(pooled(row), autocommit=True) as client:
        client.execute("SHOW timezone")
        admin.revoke(row)

        def has_ended() -> bool:
            try:
                client.execute("SHOW timezone")
            except psycopg.OperationalError:
                return True
            return False

        wait_until(has_ended, "the connection has ended")


def test_a_notification_reaches_a_client_that_listens(uri: str) -> None:
    with (
        psycopg.connect(uri, autocommit=True) as listener,
        psycopg.connect(uri, autocommit=True) as speaker,
    ):
        listener.execute("LISTEN pooled_news")
        speaker.execute("NOTIFY pooled_news, 'hello'")
        notified = next(listener.notifies(timeout=10, stop_after=1))
        assert (notified.channel, notified.payload) == ("pooled_news", "hello")
        # Nobody else hears it, in whichever session.
        assert next(speaker.notifies(timeout=0, stop_after=1), None) is None

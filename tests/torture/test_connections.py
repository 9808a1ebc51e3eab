"""Connections that end in the wrong way or at the wrong moment, and connections that stay."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection
from tests.torture import raw
from tests.torture.watch import MEBIBYTE, Watch

pytestmark = pytest.mark.stack

PROBE_SECONDS_MAX = 60
ROUNDS = 200
IDLE = 2_000
IDLE_GROWTH_BYTES_MAX = 100 * MEBIBYTE
DEDICATED_CONNECTIONS = 500
UNMETERED_CONNECTIONS = 200
# What a server is in the middle of when its client goes.
LONG_QUERY = raw.message(b"Q", b"SELECT pg_sleep(600)\0")
LARGE_QUERY = raw.message(b"Q", b"SELECT repeat('x', 1000000) FROM generate_series(1, 20)\0")
BLOCKING = raw.command(b"BLPOP", b"never", b"0")


def relational_ends(row: Connection) -> Iterator[socket.socket]:
    """Yield connections, each stopped at another moment."""
    for sent in (b"", b"\0", raw.SSL_REQUEST, raw.startup(row.user)[:9], raw.startup(row.user)):
        connection = raw.connect(row)
        connection.sendall(sent)
        yield connection
    connection = raw.connect(row)
    connection.sendall(raw.startup(row.user))
    raw.read_until(connection, b"R")
    connection.sendall(raw.scram_first())
    yield connection
    for sent in (b"", LONG_QUERY[:3], LONG_QUERY[:-5], LONG_QUERY, LARGE_QUERY):
        connection = raw.sign_in(row)
        connection.sendall(sent)
        yield connection
    # In the middle of a COPY, and of a pipeline without its end.
    connection = raw.sign_in(row)
    connection.sendall(raw.message(b"Q", b"CREATE TEMP TABLE t (v text); COPY t FROM STDIN\0"))
    raw.read_until(connection, b"G")
    connection.sendall(raw.message(b"d", b"half a row"))
    yield connection
    connection = raw.sign_in(row)
    connection.sendall(raw.message(b"P", b"\0BEGIN\0\0\0") + raw.message(b"H"))
    raw.read_until(connection, b"1")
    yield connection


def inmemory_ends(row: Connection) -> Iterator[socket.socket]:
    """Yield connections, each stopped at another moment."""
    for sent in (b"", b"*", b"*3\r\n$4\r\nAUTH\r\n$900\r\nabc", b"HELLO 3"):
        connection = raw.connect(row)
        connection.sendall(sent)
        yield connection
    large = raw.command(b"SET", b"k", b"v" * 1_000_000)
    replies = raw.command(b"SET", b"page", b"v" * 1_000_000) + raw.command(b"GET", b"page") * 20
    transaction = raw.command(b"MULTI") + raw.command(b"SET", b"k", b"v")
    news = raw.command(b"SUBSCRIBE", b"news")
    for sent in (b"", b"*2", large[:-3], large[:70_000], BLOCKING, replies, transaction, news):
        connection = raw.sign_in(row)
        connection.sendall(sent)
        yield connection


def shut_and_close(connection: socket.socket) -> None:
    """Say that no more comes, and do not wait for an answer."""
    connection.shutdown(socket.SHUT_WR)
    connection.close()


ENDS = {"relational": relational_ends, "inmemory": inmemory_ends}
HANG_UPS: dict[str, Callable[[socket.socket], None]] = {
    "reset": raw.reset,
    "close": socket.socket.close,
    "shutdown": shut_and_close,
}


@pytest.fixture
def rows(relational: Connection, inmemory: Connection) -> dict[str, Connection]:
    """The instances by engine."""
    return {"relational": relational, "inmemory": inmemory}


def server_sessions(row: Connection) -> int:
    """Count the clients that the instance's own server has, the asking one aside.

    A session that was reset and waits for its next client is none.
    """
    if row.engine == "inmemory":
        with redis.Redis.from_url(row.uri) as client:
            return len(client.client_list()) - 1
    with psycopg.connect(row.uri) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            " AND NOT (state = 'idle' AND query = 'DISCARD ALL')"
        ).fetchone()
        assert found is not None
        return int(found[0])


@pytest.mark.parametrize("engine", ENDS)
def test_connections_that_break_off_leave_nothing_behind(
    rows: dict[str, Connection], watch: Watch, engine: str
) -> None:
    row = rows[engine]
    broken = 0
    hang_ups = itertools.cycle(HANG_UPS.values())
    while broken < ROUNDS * len(HANG_UPS):
        for connection in ENDS[engine](row):
            next(hang_ups)(connection)
            broken += 1
        # Each moment meets each way in turn.
        next(hang_ups)
    wait_until(lambda: server_sessions(row) == 0, "the server's sessions ended")
    watch.assert_all_given_back()


def test_a_client_that_half_closes_gets_all_its_answers(rows: dict[str, Connection]) -> None:
    with raw.sign_in(rows["relational"]) as connection:
        connection.sendall(LARGE_QUERY + raw.message(b"Q", b"SELECT 'last'\0"))
        connection.shutdown(socket.SHUT_WR)
        answer = raw.read_to_end(connection)
        assert answer.count(b"x" * 1_000_000) == 20
        assert b"last" in answer
    with raw.sign_in(rows["inmemory"]) as connection:
        connection.sendall(raw.command(b"ECHO", b"first") * 1000 + raw.command(b"ECHO", b"last"))
        connection.shutdown(socket.SHUT_WR)
        assert raw.read_to_end(connection) == b"$5\r\nfirst\r\n" * 1000 + b"$4\r\nlast\r\n"


@pytest.mark.parametrize("engine", ENDS)
def test_a_client_that_vanishes_without_a_word_is_looked_for(
    rows: dict[str, Connection], engine: str
) -> None:
    """No FIN, no RST: only the kernel's own probes find out."""
    with raw.sign_in(rows[engine]) as connection:
        ports = [f"{end[1]:04X}" for end in (connection.getpeername(), connection.getsockname())]

        def timer() -> tuple[str, int]:
            """Return the timer of the worker's side and its end in ticks, as proc(5) has them."""
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
                fields = line.split()
                if [each.rpartition(":")[2] for each in fields[1:3]] == ports:
                    kind, _, ticks = fields[5].partition(":")
                    return kind, int(ticks, 16)
            raise AssertionError("the worker's side is not there")

        # 02 is the keepalive timer; until our kernel has acknowledged all, another one runs.
        wait_until(lambda: timer()[0] == "02", "the keepalive timer runs")
        assert timer()[1] / os.sysconf("SC_CLK_TCK") <= PROBE_SECONDS_MAX


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Let this process open as many descriptors as it may at all."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_two_thousand_idle_sessions_cost_under_100_megabytes(admin: Admin, watch: Watch) -> None:
    rows = [
        admin.new_instance("inmemory", plan="dedicated")
        for _ in range(IDLE // DEDICATED_CONNECTIONS)
    ]
    with many_files(), contextlib.ExitStack() as open_connections:
        held = [
            open_connections.enter_context(raw.sign_in(row))
            for row in rows
            for _ in range(DEDICATED_CONNECTIONS)
        ]
        assert len(held) == IDLE
        assert watch.open_count() == IDLE
        assert watch.growth() < IDLE_GROWTH_BYTES_MAX
        for connection in held:
            connection.sendall(raw.command(b"PING"))
        assert {raw.read_exactly(connection, 7) for connection in held} == {b"+PONG\r\n"}
        with raw.connect(rows[0]) as refused:
            refused.sendall(raw.command(b"AUTH", rows[0].user.encode(), rows[0].password.encode()))
            assert raw.read_to_end(refused).startswith(b"-ERR max number of clients reached")
    watch.assert_all_given_back()


def test_a_relational_instance_holds_as_many_sessions_as_its_plan_allows(
    relational: Connection, watch: Watch, admin: Admin
) -> None:
    share = IDLE_GROWTH_BYTES_MAX * UNMETERED_CONNECTIONS // IDLE
    with contextlib.ExitStack() as open_connections:
        for _ in range(UNMETERED_CONNECTIONS):
            open_connections.enter_context(raw.sign_in(relational))
        assert watch.growth() < share
        with pytest.raises(psycopg.OperationalError, match="too many") as caught:
            psycopg.connect(relational.uri)
        assert caught.value.sqlstate in (None, "53300")
    wait_until(lambda: server_sessions(relational) == 0, "the server's sessions ended")
    # A new record ends the sessions that were reset and wait for their next client.
    admin.change(relational.instance, allowlist=["127.0.0.0/8", "::1/128"])
    watch.assert_all_given_back()

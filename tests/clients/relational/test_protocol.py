"""Negotiation of the protocol's version and of encryption, and who may cancel."""

from __future__ import annotations

import asyncio
import socket
import struct
from concurrent.futures import Future, ThreadPoolExecutor

import asyncpg
import psycopg
import pytest
from psycopg import errors, pq

from engines.relational import wire
from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack

SLEEPS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = %s"


@pytest.fixture
def row(stack: Stack) -> Connection:
    """The demo tenant's relational instance."""
    return stack.connection("demo", "relational")


@pytest.mark.skipif(pq.version() < 180000, reason="libpq 18 brought the option")
@pytest.mark.parametrize(("asked", "spoken"), [("3.0", 30000), ("3.2", 30002), ("latest", 30002)])
def test_libpq_speaks_the_version_that_it_asked_for(
    row: Connection, asked: str, spoken: int
) -> None:
    with psycopg.connect(row.uri, max_protocol_version=asked) as connection:
        assert connection.pgconn.full_protocol_version == spoken
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(pq.version() < 180000, reason="libpq 18 brought the option")
@pytest.mark.parametrize("asked", ["3.0", "3.2"])
def test_a_statement_is_cancelled_in_either_version(row: Connection, asked: str) -> None:
    with (
        psycopg.connect(row.uri, autocommit=True, max_protocol_version=asked) as connection,
        psycopg.connect(row.uri, autocommit=True) as watcher,
        ThreadPoolExecutor() as executor,
    ):
        running = _sleeping(connection, watcher, executor)
        connection.cancel_safe(timeout=10)
        with pytest.raises(errors.QueryCanceled):
            running.result(20)


def _sleeping(
    connection: psycopg.Connection, watcher: psycopg.Connection, executor: ThreadPoolExecutor
) -> Future[psycopg.Cursor]:
    """Have a statement sleep in the background, and return once it does."""
    pid = (connection.info.backend_pid,)
    running = executor.submit(connection.execute, "SELECT pg_sleep(60)")
    wait_until(lambda: watcher.execute(SLEEPS, pid).fetchone() == (1,), "it runs")
    return running


@pytest.mark.parametrize("request_code", [wire.GSSENC_REQUEST, wire.SSL_REQUEST])
def test_encryption_may_be_asked_for_first(row: Connection, request_code: int) -> None:
    with socket.create_connection((row.host, row.port), 10) as plain:
        plain.sendall(struct.pack("!II", 8, request_code))
        answer = plain.recv(1)
    assert answer == (b"N" if request_code == wire.GSSENC_REQUEST else b"S")


@pytest.mark.parametrize("mode", ["disable", "prefer"])
def test_gss_is_declined_and_the_client_goes_on(row: Connection, mode: str) -> None:
    with psycopg.connect(row.uri, gssencmode=mode) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


async def test_a_cancel_request_is_obeyed_from_allowed_addresses_only(admin: Admin) -> None:
    row = admin.new_instance("relational", plan="unmetered")
    here, elsewhere = "127.0.0.1", "127.0.0.5"
    for allowed, is_let_in in ((elsewhere, False), (here, True)):
        admin.change(row.instance, allowlist=[f"{allowed}/32"])
        wait_until(lambda wanted=is_let_in: _is_let_in(row) == wanted, "the list is in force")
    session = await asyncpg.connect(row.uri)
    pid, secret = session.get_server_pid(), session._protocol.backend_secret
    request = struct.pack("!IIii", 16, wire.CANCEL_REQUEST, pid, secret)
    sleeping = asyncio.create_task(session.execute("SELECT pg_sleep(60)"))
    with psycopg.connect(row.uri, autocommit=True) as watcher:

        def is_asleep() -> bool:
            return watcher.execute(SLEEPS, (pid,)).fetchone() == (1,)

        await asyncio.to_thread(wait_until, is_asleep, "it runs")
        # The connection closes once the request was passed on, or was not.
        assert await asyncio.to_thread(_say, row, elsewhere, request) == b""
        assert is_asleep()
        assert await asyncio.to_thread(_say, row, here, request) == b""
        with pytest.raises(asyncpg.QueryCanceledError):
            await sleeping
    await session.close()


def _say(row: Connection, source: str, message: bytes) -> bytes:
    """Connect from an address of this machine, say one thing, and return the whole answer."""
    with socket.create_connection(("127.0.0.1", row.port), 10, source_address=(source, 0)) as plain:
        plain.sendall(message)
        return b"".join(iter(lambda: plain.recv(4096), b""))


def _is_let_in(row: Connection) -> bool:
    try:
        psycopg.connect(row.uri).close()
    except psycopg.OperationalError:
        return False
    return True

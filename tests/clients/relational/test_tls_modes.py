"""libpq's sslmode, sslnegotiation and channel_binding, in every value; other clients beside it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path

import asyncpg
import psycopg
import pytest
from psycopg import errors, pq

from tests.dataplane.certificates import Authority
from tests.servers import wait_until
from tests.stack import Stack

pytestmark = pytest.mark.stack

ALPN = "postgresql"


def connect(stack: Stack, **options: str) -> psycopg.Connection:
    """Connect to the demo instance with exactly these options about TLS."""
    row = stack.connection("demo", "relational")
    return psycopg.connect(
        "", host=row.host, port=row.port, user=row.user, password=row.password, dbname="weftkit",
        connect_timeout=10, autocommit=True, **options,
    )  # fmt: skip


def in_tls(connection: psycopg.Connection) -> bool:
    """Say whether the connection is encrypted, and that a statement passes."""
    assert connection.execute("SELECT 1").fetchone() == (1,)
    return connection.pgconn.ssl_in_use


@pytest.fixture
def ca(stack: Stack) -> dict[str, str]:
    """The option that names the authority to trust."""
    return {"sslrootcert": stack.ca}


@pytest.mark.parametrize(
    ("sslmode", "is_encrypted"),
    [
        ("disable", False),
        ("allow", False),  # tries plain first
        ("prefer", True),
        ("require", True),
        ("verify-ca", True),
        ("verify-full", True),
    ],
)
def test_every_sslmode_connects(
    stack: Stack, ca: dict[str, str], sslmode: str, is_encrypted: bool
) -> None:
    with connect(stack, sslmode=sslmode, **ca) as connection:
        assert in_tls(connection) is is_encrypted


# libpq refuses direct negotiation with the modes that may fall back to plain.
@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_tls_at_once_connects(stack: Stack, ca: dict[str, str], sslmode: str) -> None:
    assert pq.version() >= 170000
    with connect(stack, sslmode=sslmode, sslnegotiation="direct", **ca) as connection:
        assert in_tls(connection)


@pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
def test_a_client_that_trusts_another_authority_does_not_connect(
    stack: Stack, tmp_path: Path, sslmode: str
) -> None:
    stranger = Authority(tmp_path).ca
    for negotiation in ("postgres", "direct"):
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            connect(stack, sslmode=sslmode, sslrootcert=str(stranger), sslnegotiation=negotiation)


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
@pytest.mark.parametrize("channel_binding", ["disable", "prefer", "require"])
def test_channel_binding_works_inside_tls(
    stack: Stack, ca: dict[str, str], negotiation: str, channel_binding: str
) -> None:
    with connect(
        stack, sslmode="verify-full", sslnegotiation=negotiation, channel_binding=channel_binding,
        **ca,
    ) as connection:  # fmt: skip
        assert in_tls(connection)


def test_channel_binding_cannot_be_required_of_a_plain_connection(stack: Stack) -> None:
    with pytest.raises(psycopg.OperationalError, match="channel binding required"):
        connect(stack, sslmode="disable", channel_binding="require")
    with connect(stack, sslmode="disable", channel_binding="prefer") as connection:
        assert not in_tls(connection)


def test_a_wrong_password_fails_the_same_with_and_without_channel_binding(stack: Stack) -> None:
    row = stack.connection("demo", "relational")
    for binding in ("disable", "require"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(
                host=row.host, port=row.port, user=row.user, password="wrong", dbname="weftkit",
                sslmode="require", channel_binding=binding,
            )  # fmt: skip


def test_a_statement_is_cancelled_over_tls_at_once(stack: Stack, ca: dict[str, str]) -> None:
    options = {"sslmode": "verify-full", "sslnegotiation": "direct", **ca}
    with connect(stack, **options) as connection, connect(stack, **options) as watcher:
        pid = connection.info.backend_pid

        def cancel_when_running() -> None:
            query = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s"
            wait_until(lambda: watcher.execute(query, [pid]).fetchone() == (True,), "it runs")
            connection.cancel_safe(timeout=10)

        thread = threading.Thread(target=cancel_when_running)
        thread.start()
        with pytest.raises(errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(60)")
        thread.join()


@pytest.mark.parametrize("offered", [[], ["h2", "http/1.1"]])
def test_tls_at_once_without_the_application_protocol_is_closed(
    stack: Stack, offered: list[str]
) -> None:
    row = stack.connection("demo", "relational")
    context = ssl.create_default_context(cafile=stack.ca)
    if offered:
        context.set_alpn_protocols(offered)
    with (
        socket.create_connection((row.host, row.port), 10) as plain,
        context.wrap_socket(plain, server_hostname=row.host) as client,
    ):
        assert client.selected_alpn_protocol() is None
        with contextlib.suppress(ConnectionError):
            assert client.recv(1) == b""


def test_redis_needs_no_application_protocol(stack: Stack) -> None:
    row = stack.connection("demo", "inmemory")
    context = ssl.create_default_context(cafile=stack.ca)
    context.set_alpn_protocols([ALPN])
    with (
        socket.create_connection((row.host, row.port), 10) as plain,
        context.wrap_socket(plain, server_hostname=row.host) as client,
    ):
        assert client.selected_alpn_protocol() is None
        client.sendall(f"AUTH {row.user} {row.password}\r\n".encode())
        assert client.recv(64) == b"+OK\r\n"


async def test_asyncpg_connects_over_tls_by_request(stack: Stack) -> None:
    row = stack.connection("demo", "relational")
    context = ssl.create_default_context(cafile=stack.ca)
    connection = await asyncpg.connect(
        host=row.host, port=row.port, user=row.user, password=row.password, database="weftkit",
        ssl=context,
    )  # fmt: skip
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()

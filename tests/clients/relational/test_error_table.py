"""The error table of the specification: each SQLSTATE provoked through the data plane.

psycopg keeps no SQLSTATE of a connection that failed, so those are seen with asyncpg. The errors
that are the server's own from statement to client (42P01, 23505, 23503) stand in
`test_spec_examples`.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator

import asyncpg
import psycopg
import pytest

from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack

LITE_CONNECTIONS = 20
CONNECTS_MAX = 200


@pytest.fixture(scope="module")
def own(admin: Admin) -> Connection:
    """An instance of this module's own."""
    return admin.new_instance("relational", plan="unmetered")


async def sqlstate_of(attempt: Callable[[], Awaitable[asyncpg.Connection]]) -> str:
    """Return the SQLSTATE with which a connection is refused; "" if it is made."""
    try:
        connection = await attempt()
    except asyncpg.PostgresError as refused:
        return str(refused.sqlstate)
    await connection.close()
    return ""


def comes_in(row: Connection) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(row.uri).close()
        return True
    return False


def answers(session: psycopg.Connection) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        session.execute("SELECT 1")
        return True
    return False


@pytest.mark.parametrize(
    "wrong",
    [{"password": "wrong"}, {"user": "wk_aaaaaaaaaaaa"}, {"password": ""}],
    ids=["password", "user", "none"],
)
async def test_who_is_not_proven_gets_28p01(own: Connection, wrong: dict[str, str]) -> None:
    assert await sqlstate_of(lambda: asyncpg.connect(own.uri, **wrong)) == "28P01"


async def test_who_is_proven_but_comes_from_elsewhere_gets_28000(
    admin: Admin, own: Connection
) -> None:
    row = admin.new_credential(own, cidrs=["10.9.8.0/24"])
    await _wait_for(row, "28000")


async def test_who_is_suspended_gets_57p03(admin: Admin, own: Connection) -> None:
    admin.suspend(own.instance)
    await _wait_for(own, "57P03")
    admin.resume(own.instance)
    wait_until(lambda: comes_in(own), "it serves again")


async def _wait_for(row: Connection, sqlstate: str) -> None:
    """Connect until the record that refuses is there; before that, the key is not known."""
    for _ in range(CONNECTS_MAX):
        seen = await sqlstate_of(lambda: asyncpg.connect(row.uri))
        if seen not in ("", "28P01"):
            break
    assert seen == sqlstate


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (n int)",
        "CREATE TEMP TABLE mine (n int)",
        "INSERT INTO theirs VALUES (1)",
        "UPDATE theirs SET n = 2",
        "DELETE FROM theirs",
        "TRUNCATE theirs",
        "DROP TABLE theirs",
        "COPY theirs FROM STDIN",
        "SELECT lo_create(0)",
        "SELECT nextval('counted')",
    ],
)
def test_a_reader_that_writes_gets_42501(admin: Admin, own: Connection, statement: str) -> None:
    with psycopg.connect(own.uri, autocommit=True) as owner:
        owner.execute("CREATE TABLE IF NOT EXISTS theirs (n int)")
        owner.execute("CREATE SEQUENCE IF NOT EXISTS counted")
    reader = admin.new_credential(own, role="read")
    wait_until(lambda: comes_in(reader), "the credential is published", 5)
    with (
        psycopg.connect(reader.uri, autocommit=True) as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege) as refused,
    ):
        session.execute("SET search_path = public")
        session.execute(statement)
    assert refused.value.sqlstate == "42501"


def test_a_statement_beyond_the_plans_time_gets_57014(own: Connection) -> None:
    with psycopg.connect(own.uri, autocommit=True) as session:
        session.execute("SET statement_timeout = '50ms'")
        with pytest.raises(psycopg.errors.QueryCanceled) as refused:
            session.execute("SELECT pg_sleep(60)")
        assert refused.value.sqlstate == "57014"
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_the_plans_time_is_where_a_session_begins(admin: Admin) -> None:
    row = admin.new_instance("relational", plan="lite")
    with psycopg.connect(row.uri, autocommit=True) as session:
        assert session.execute("SHOW statement_timeout").fetchone() == ("1min",)


async def test_one_connection_too_many_gets_53300_and_a_closed_one_makes_room(
    admin: Admin,
) -> None:
    row = admin.new_instance("relational", plan="lite")
    held = [await asyncpg.connect(row.uri) for _ in range(LITE_CONNECTIONS)]
    assert await sqlstate_of(lambda: asyncpg.connect(row.uri)) == "53300"
    await held.pop().close()
    wait_until(lambda: comes_in(row), "there is room again", 5)
    for connection in held:
        await connection.close()


@pytest.fixture
def stopped_host(stack: Stack) -> Iterator[None]:
    """A host that does nothing, so that nobody starts a server again."""
    stack.kill("dataplane.host", with_signal=signal.SIGSTOP)
    yield
    stack.kill("dataplane.host", with_signal=signal.SIGCONT)


async def test_a_server_that_is_down_is_08000_and_comes_back(
    stack: Stack, own: Connection, request: pytest.FixtureRequest
) -> None:
    with psycopg.connect(own.uri, autocommit=True) as session:
        pid = session.info.backend_pid
        request.getfixturevalue("stopped_host")
        stack.kill(_directory_of(pid), with_signal=signal.SIGKILL)
        wait_until(lambda: not answers(session), "the open session has ended")
    assert await sqlstate_of(lambda: asyncpg.connect(own.uri, timeout=60)) == "08000"
    stack.kill("dataplane.host", with_signal=signal.SIGCONT)
    wait_until(lambda: comes_in(own), "it is started again", 60)


def _directory_of(pid: int) -> str:
    """Return the data directory of a backend: an argument of its postmaster alone."""
    return os.readlink(f"/proc/{pid}/cwd")

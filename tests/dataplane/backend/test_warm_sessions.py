"""Server sessions that outlive their clients: what the next client finds, and when there is none.

A real data plane with one worker serves the relational engine from a PostgreSQL of its own; every
answer is compared with that of a new session at the server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import pq

from dataplane.host.paths import postgres_socket
from engines.kit import auth
from engines.kit.records import Credential, Limits, Role, Status
from engines.relational.engine import ENGINE
from tests.dataplane.plane import PEPPER, ControlDatabase, Plane, instance, key, metric
from tests.servers import PostgresServer, RedisServer, run_postgres, temporary_home, wait_until

DATABASE = "weftkit"
Connection = psycopg.Connection[Any]


class Tenant:
    """One instance, its server, and its only credential."""

    def __init__(self, plane: Plane, server: PostgresServer, **changes: Any) -> None:
        self.plane = plane
        self.server = server
        self.credential, self.password = key(Role.ADMIN)
        self.record = instance(
            self.credential, engine="relational", **{"limits": Limits(), **changes}
        )
        path = postgres_socket(plane.run_dir, self.record.instance_id)
        path.parent.mkdir(parents=True)
        path.symlink_to(server.socket_dir / ".s.PGSQL.5432")
        self.publish()
        ((count,),) = plane.database.rows("SELECT count(*) FROM publish.record")
        wait_until(
            lambda: metric(plane.admin("/metrics")[1], "weftkit_records_known") == count,
            "the record is known",
        )

    def publish(self, **changes: Any) -> None:
        """Publish the record; the worker acts on it in a moment."""
        self.record = self.plane.database.publish(dataclasses.replace(self.record, **changes))

    def conninfo(self, credential: Credential, password: str, **options: str) -> str:
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1", port=str(self.plane.port), user=credential.username,
            password=password, dbname=DATABASE, sslmode="disable", connect_timeout="60",
            **options,
        )  # fmt: skip

    def connect(self, **options: str) -> Connection:
        conninfo = self.conninfo(self.credential, self.password, **options)
        return psycopg.connect(conninfo, autocommit=True)

    def pid(self, **options: str) -> int:
        """Return the server process that a client gets, who then leaves."""
        with self.connect(**options) as client:
            return client.info.backend_pid

    def sessions(self) -> int:
        """Return how many sessions of clients the server has, in use or parked."""
        with fresh(self.server, user="weftkit") as superuser:
            row = superuser.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename IN"
                " ('owner', 'readwrite', 'readonly')"
            ).fetchone()
        assert row is not None
        return int(row[0])


def fresh(server: PostgresServer, user: str = "owner") -> Connection:
    """Return a new session at the server itself."""
    return psycopg.connect(server.dsn(DATABASE, user), autocommit=True)


def answer(connection: Connection, query: str) -> object:
    """Return the rows of a query, or the SQLSTATE of its failure."""
    try:
        return connection.execute(query).fetchall()
    except psycopg.Error as error:
        return error.sqlstate


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """An instance's own server, with its roles."""
    with temporary_home("wkw") as root, run_postgres(root) as running:
        running.create_database(DATABASE)
        with psycopg.connect(running.dsn(DATABASE), autocommit=True) as connection:
            for role in ("owner", "readwrite", "readonly"):
                connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"ALTER DATABASE {DATABASE} OWNER TO owner")
            connection.execute("ALTER SCHEMA public OWNER TO owner")
            connection.execute("GRANT readonly TO owner")
            connection.execute("GRANT pg_signal_backend TO owner")
            # As on an instance's server: what a lost client has under way does not go on.
            connection.execute("ALTER SYSTEM SET client_connection_check_interval = '100ms'")
            connection.execute("SELECT pg_reload_conf()")
        with fresh(running) as owner:
            owner.execute("CREATE TABLE t (a int)")
            owner.execute("CREATE SEQUENCE s")
        yield running


@pytest.fixture(scope="module")
def relational_plane(postgres: PostgresServer, redis: RedisServer) -> Iterator[Plane]:
    """A data plane with one worker that serves the relational engine."""
    with temporary_home("wkd") as home:
        database = ControlDatabase(postgres, "dataplane_warm")
        # Time enough for a server that recovers on a busy machine.
        bounds = {"warm_idle_s": 2.0, "backend_connect_s": 40.0, "sign_in_timeout_s": 60.0}
        plane = Plane(home, database, redis, engine=ENGINE, bounds=bounds)
        plane.start()
        yield plane
        plane.close()


@pytest.fixture
def tenant(relational_plane: Plane, server: PostgresServer) -> Tenant:
    """A new instance; sessions of another are never used for it."""
    return Tenant(relational_plane, server)


LEFT_BEHIND = {
    "a setting": ("SET work_mem = '77MB'", "SHOW work_mem"),
    "a setting of the sign-in": ("SET application_name = 'left'", "SHOW application_name"),
    "the search path": ("SET search_path = pg_temp", "SHOW search_path"),
    "a role": ("SET ROLE readonly", "SELECT current_user, session_user"),
    "an authorization": ("SET SESSION AUTHORIZATION owner", "SELECT session_user"),
    "a transaction default": (
        "SET default_transaction_read_only = on",
        "SHOW transaction_read_only",
    ),
    "a temporary table": ("CREATE TEMP TABLE left_behind ()", "SELECT 'left_behind'::regclass"),
    "a temporary view": ("CREATE TEMP VIEW seen AS SELECT 1", "TABLE seen"),
    "a statement": ("PREPARE p AS SELECT 1", "SELECT name FROM pg_prepared_statements"),
    "an advisory lock": (
        "SELECT pg_advisory_lock(1)",
        "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    "a channel": ("LISTEN news", "SELECT pg_listening_channels()"),
    "a cursor": ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT name FROM pg_cursors"),
    "a sequence": ("SELECT nextval('s')", "SELECT lastval()"),
}


@pytest.mark.parametrize("what", LEFT_BEHIND)
def test_the_next_client_finds_nothing_of(
    what: str, tenant: Tenant, server: PostgresServer
) -> None:
    leave, look = LEFT_BEHIND[what]
    with tenant.connect(application_name="same") as former:
        former.execute(leave)
        pid = former.info.backend_pid
    with tenant.connect(application_name="same") as client, fresh(server) as own:
        own.execute("SET application_name = 'same'")
        assert client.info.backend_pid == pid
        assert answer(client, look) == answer(own, look)


def test_the_next_client_is_told_what_the_first_was_told(tenant: Tenant) -> None:
    names = ("client_encoding", "DateStyle", "TimeZone", "is_superuser", "search_path")
    with tenant.connect(options="-c datestyle=German -c search_path=a") as first:
        told = [first.info.parameter_status(name) for name in names]
        pid = first.info.backend_pid
        first.execute("SET datestyle = iso")
        first.execute("SET client_encoding = latin1")
    with tenant.connect(options="-c datestyle=German -c search_path=a") as second:
        assert second.info.backend_pid == pid
        assert [second.info.parameter_status(name) for name in names] == told
        assert told[1] == "German, DMY"
        assert answer(second, "SHOW datestyle") == [("German, DMY",)]


def test_every_setting_is_as_in_a_new_session(tenant: Tenant, server: PostgresServer) -> None:
    query = "SELECT name, setting, source FROM pg_settings ORDER BY name"
    with tenant.connect(application_name="same") as former:
        former.execute("SET statement_timeout = 5; SET lock_timeout = 6; SET jit = off")
        former.execute("SET TIME ZONE 'Asia/Tokyo'; SET client_min_messages = error")
        former.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    relevant = psycopg.connect(
        server.dsn(DATABASE, "owner"), autocommit=True, application_name="same"
    )
    with relevant as own, tenant.connect(application_name="same") as client:
        assert answer(client, query) == answer(own, query)


def test_a_seed_does_not_make_the_next_clients_numbers_known(tenant: Tenant) -> None:
    drawn = []
    for _ in range(2):
        with tenant.connect() as client:
            drawn.append(answer(client, "SELECT random()"))
            client.execute("SELECT setseed(0.5)")
    with tenant.connect() as client:
        client.execute("SELECT setseed(0.5)")
        assert answer(client, "SELECT random()") not in drawn[1:]


def test_a_client_that_vanishes_between_two_requests_leaves_its_session(tenant: Tenant) -> None:
    client = tenant.connect()
    pid = client.info.backend_pid
    with socket.socket(fileno=os.dup(client.fileno())) as connection:
        connection.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: tenant.pid() == pid, "its session is handed out")
    client.close()


def in_transaction(client: Connection) -> None:
    client.execute("BEGIN")
    client.execute("INSERT INTO t VALUES (1)")


def in_failed_transaction(client: Connection) -> None:
    in_transaction(client)
    with pytest.raises(psycopg.errors.DivisionByZero):
        client.execute("SELECT 1 / 0")


def in_copy(client: Connection) -> None:
    client.pgconn.exec_(b"COPY t FROM STDIN")
    client.pgconn.put_copy_data(b"1\n")


def in_half_a_message(client: Connection) -> None:
    os.write(client.fileno(), b"Q" + struct.pack("!I", 100) + b"INSERT INTO t")


def in_a_pipeline_without_sync(client: Connection) -> None:
    client.pgconn.enter_pipeline_mode()
    client.pgconn.send_query_params(b"INSERT INTO t VALUES (1)", None)
    client.pgconn.flush()


def in_a_statement(client: Connection) -> None:
    client.pgconn.send_query(b"INSERT INTO t SELECT 1 FROM pg_sleep(5)")
    client.pgconn.flush()


@pytest.mark.parametrize(
    "leave",
    [
        in_transaction, in_failed_transaction, in_copy, in_half_a_message,
        in_a_pipeline_without_sync, in_a_statement,
    ],
)  # fmt: skip
def test_a_session_is_not_kept_that_was_left(
    leave: Callable[[Connection], None], tenant: Tenant, server: PostgresServer
) -> None:
    client = tenant.connect()
    pid = client.info.backend_pid
    leave(client)
    client.close()
    with tenant.connect() as following:
        assert following.info.backend_pid != pid
        assert following.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with fresh(server) as own:
        alive = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
        wait_until(lambda: answer(own, alive) == [(0,)], "its server process is gone")
        assert answer(own, "SELECT count(*) FROM t") == [(0,)]


def test_sessions_differ_by_everything_that_the_server_was_told(tenant: Tenant) -> None:
    plain = tenant.pid()
    assert tenant.pid() == plain
    assert tenant.pid(application_name="other") != plain
    assert tenant.pid(options="-c work_mem=1MB") != plain
    assert tenant.pid(client_encoding="latin1") != plain
    assert tenant.pid() == plain


def test_sessions_of_one_role_do_not_serve_another(tenant: Tenant) -> None:
    reader, password = key(Role.READ)
    tenant.publish(credentials=(tenant.credential, reader))

    def signs_in() -> bool:
        try:
            psycopg.connect(tenant.conninfo(reader, password)).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(signs_in, "the reader is known")
    pid = tenant.pid()
    with psycopg.connect(tenant.conninfo(reader, password)) as client:
        assert client.info.backend_pid != pid
        assert client.execute("SELECT session_user").fetchone() == ("readonly",)


def test_sessions_of_one_instance_do_not_serve_another(
    tenant: Tenant, relational_plane: Plane, server: PostgresServer
) -> None:
    other = Tenant(relational_plane, server)
    assert tenant.pid() != other.pid()


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        ("ALTER ROLE owner SET work_mem = '9MB'", "ALTER ROLE owner RESET work_mem"),
        (f"ALTER DATABASE {DATABASE} SET work_mem = '9MB'", f"ALTER DATABASE {DATABASE} RESET ALL"),
    ],
)
def test_new_defaults_reach_the_next_client(change: str, undo: str, tenant: Tenant) -> None:
    pid = tenant.pid()
    with tenant.connect() as client:
        assert client.info.backend_pid == pid
        client.execute(change)
    with tenant.connect() as client:
        assert answer(client, "SHOW work_mem") == [("9MB",)]
        client.execute(undo)
    with tenant.connect() as client:
        assert answer(client, "SHOW work_mem") == [("4MB",)]


def test_who_may_no_longer_connect_does_not_get_a_kept_session(
    tenant: Tenant, server: PostgresServer
) -> None:
    tenant.pid()
    with fresh(server, "weftkit") as superuser:
        superuser.execute(f"REVOKE CONNECT ON DATABASE {DATABASE} FROM PUBLIC, owner")
    try:
        with pytest.raises(psycopg.OperationalError) as refused:
            tenant.connect()
        assert "permission denied for database" in str(refused.value)
    finally:
        with fresh(server, "weftkit") as superuser:
            superuser.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO PUBLIC, owner")


def test_a_parked_session_that_was_terminated_is_noticed(
    tenant: Tenant, server: PostgresServer
) -> None:
    pid = tenant.pid()
    with fresh(server) as own:
        own.execute("SELECT pg_terminate_backend(%s)", [pid])
    assert tenant.pid() != pid


def test_a_killed_server_process_and_the_restart_that_follows_are_survived(
    tenant: Tenant, server: PostgresServer
) -> None:
    pids = [tenant.pid(), tenant.pid(application_name="other")]
    os.kill(pids[0], signal.SIGKILL)
    # The server ends every session, recovers, and says so to new ones meanwhile.
    assert tenant.pid(application_name="other") not in pids
    assert tenant.pid() not in pids


def test_idle_sessions_do_not_stay(tenant: Tenant) -> None:
    tenant.pid()
    wait_until(lambda: tenant.sessions() == 0, "the parked session is closed")


@pytest.mark.parametrize("change", ["status", "version"])
def test_a_changed_record_closes_what_is_parked(
    change: str, tenant: Tenant, server: PostgresServer
) -> None:
    pid = tenant.pid()
    tenant.publish(**{"status": {"status": Status.SUSPENDED}, "version": {}}[change])
    with fresh(server) as own:
        alive = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
        wait_until(lambda: answer(own, alive) == [(0,)], "the parked session is closed", 1.5)


def test_a_revoked_credential_takes_its_session_along(tenant: Tenant) -> None:
    other, password = key(Role.ADMIN)
    client = tenant.connect()
    pid = client.info.backend_pid
    tenant.publish(credentials=(other,))

    def is_ended() -> bool:
        try:
            client.execute("SELECT 1")
        except psycopg.OperationalError:
            return True
        return False

    wait_until(is_ended, "the session has ended")
    with pytest.raises(psycopg.OperationalError):
        tenant.connect()
    # The other credential has the same role, and so the same key of parked sessions.
    with psycopg.connect(tenant.conninfo(other, password)) as following:
        assert following.info.backend_pid != pid


def test_parked_sessions_open_no_door_to_an_address_that_is_shut(tenant: Tenant) -> None:
    tenant.pid()
    tenant.publish(allowlist=("10.0.0.0/8",))

    def is_refused() -> bool:
        try:
            tenant.connect().close()
        except psycopg.OperationalError as error:
            return "connections from this address are not allowed" in str(error)
        return False

    wait_until(is_refused, "the address is refused")


async def test_drivers_sign_in_with_a_single_round(
    relational_plane: Plane, server: PostgresServer
) -> None:
    tenant = Tenant(relational_plane, server)
    hurried, password = key(Role.ADMIN)
    secret = auth.make_secret(password, 1, PEPPER, auth.new_salt(), iterations=1)
    tenant.publish(credentials=(dataclasses.replace(hurried, secrets=(secret,)),))
    conninfo = tenant.conninfo(hurried, password)

    async def pid() -> int | None:
        try:
            async with await psycopg.AsyncConnection.connect(conninfo) as client:
                return client.info.backend_pid
        except psycopg.OperationalError:
            return None

    async with asyncio.timeout(10):
        while (by_libpq := await pid()) is None:
            pass  # the record is not known yet
    client = await asyncpg.connect(
        host="127.0.0.1", port=relational_plane.port, user=hurried.username,
        password=password, database=DATABASE, ssl=False,
    )  # fmt: skip
    assert await client.fetchval("SELECT pg_backend_pid()") != by_libpq, "other settings"
    await client.close()


def test_two_hundred_clients_share_twenty_connections(
    relational_plane: Plane, server: PostgresServer
) -> None:
    tenant = Tenant(relational_plane, server, limits=Limits(connections=20))
    together = Barrier(20)

    def visit(number: int) -> int:
        if number < 20:
            together.wait(20)
        with tenant.connect() as client:
            row = client.execute("SELECT pg_backend_pid(), %s", [number]).fetchone()
        assert row is not None
        assert row[1] == number
        return int(row[0])

    with ThreadPoolExecutor(20) as threads:
        pids = list(threads.map(visit, range(200)))
    assert len(set(pids)) <= 40, "sessions are handed on"


def test_no_session_has_two_clients(tenant: Tenant) -> None:
    with ThreadPoolExecutor(10) as threads, contextlib.ExitStack() as held:
        for _ in range(3):
            list(threads.map(lambda _: tenant.pid(), range(10)))
        clients = [held.enter_context(tenant.connect()) for _ in range(20)]
        pids = [client.execute("SELECT pg_backend_pid()").fetchone() for client in clients]
    assert len(set(pids)) == 20


def test_the_limit_counts_clients_and_not_parked_sessions(
    relational_plane: Plane, server: PostgresServer
) -> None:
    tenant = Tenant(relational_plane, server, limits=Limits(connections=2))
    for name in ("one", "two", "three"):
        tenant.pid(application_name=name)
    wait_until(lambda: tenant.sessions() <= 2, "no more are parked than the plan allows")
    with tenant.connect(application_name="four"), tenant.connect(application_name="five"):
        with pytest.raises(psycopg.OperationalError) as refused:
            tenant.connect(application_name="one")
        assert "too many clients" in str(refused.value)
        wait_until(lambda: tenant.sessions() == 2, "nothing is parked beside them")


def test_parked_sessions_give_way_where_the_server_is_full(
    relational_plane: Plane, server: PostgresServer
) -> None:
    # More than this server's max_connections, so only the server itself can say that it is full.
    large = Limits(connections=1000, memory_bytes=2**30)
    tenant = Tenant(relational_plane, server, limits=large)

    def hold(name: str, count: int) -> None:
        with ThreadPoolExecutor(8) as threads, contextlib.ExitStack() as held:
            opened = threads.map(lambda _: tenant.connect(application_name=name), range(count))
            for client in opened:
                held.enter_context(client)

    wait_until(lambda: tenant.sessions() == 0, "nothing is left of other tests")
    hold("first", 110)
    assert tenant.sessions() > 100
    hold("second", 110)


def test_a_late_cancel_request_meets_nobody(tenant: Tenant) -> None:
    with tenant.connect() as former:
        late = former.pgconn.get_cancel()
        pid = former.info.backend_pid
    with tenant.connect() as client:
        assert client.info.backend_pid == pid
        client.pgconn.send_query(b"SELECT 'slept' FROM pg_sleep(0.5)")
        late.cancel()
        result = client.pgconn.get_result()
        assert result is not None
        assert result.status == pq.ExecStatus.TUPLES_OK
        assert client.pgconn.get_result() is None


def test_a_session_that_was_to_be_cancelled_is_not_handed_on(tenant: Tenant) -> None:
    with tenant.connect() as client:
        pid = client.info.backend_pid
        client.cancel()
    assert tenant.pid() != pid

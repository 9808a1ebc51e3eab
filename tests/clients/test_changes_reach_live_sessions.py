"""Revocation, rotation and plan changes act within a second, also on open connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import pytest
import redis

from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection

pytestmark = pytest.mark.stack

# "Within a second", with room for this machine's own slowness.
SECONDS_MAX = 3.0


def _works(row: Connection) -> bool:
    try:
        if row.engine == "inmemory":
            return bool(redis.Redis.from_url(row.uri).ping())
        psycopg.connect(row.uri).close()
    except (psycopg.OperationalError, redis.RedisError):
        return False
    return True


def _postgres_use(row: Connection) -> tuple[psycopg.Connection, Callable[[], object]]:
    connection = psycopg.connect(row.uri, autocommit=True)
    return connection, lambda: connection.execute("SELECT 1")


def _redis_use(row: Connection) -> tuple[redis.Connection, Callable[[], object]]:
    """Return a ping over one connection that is never opened again."""
    connection = redis.Connection(
        host=row.host, port=row.port, username=row.user, password=row.password
    )
    connection.connect()

    def ping() -> object:
        connection.send_command("PING")
        return connection.read_response()

    return connection, ping


LIVE_USES = {"relational": _postgres_use, "inmemory": _redis_use}
CLOSERS = {"relational": psycopg.Connection.close, "inmemory": redis.Connection.disconnect}


@pytest.mark.parametrize("engine", ["relational", "inmemory"])
def test_a_revoked_key_stops_working_for_new_and_live_sessions(admin: Admin, engine: str) -> None:
    owner = admin.new_instance(engine, plan="unmetered")
    row = admin.new_credential(owner)
    wait_until(lambda: _works(row), "the new key works", SECONDS_MAX)
    live, use = LIVE_USES[engine](row)
    use()

    def live_session_ended() -> bool:
        try:
            use()
        except (psycopg.OperationalError, redis.RedisError):
            return True
        return False

    admin.revoke(row)
    wait_until(lambda: not _works(row), "new sessions are refused", SECONDS_MAX)
    wait_until(live_session_ended, "the live session ended", SECONDS_MAX)
    CLOSERS[engine](live)
    assert _works(owner)


def test_rotation_leaves_no_gap(admin: Admin) -> None:
    owner = admin.new_instance("relational", plan="unmetered")
    old = admin.new_credential(owner)
    wait_until(lambda: _works(old), "the first secret works", SECONDS_MAX)
    new = admin.rotate(old)
    assert new.password != old.password
    wait_until(lambda: _works(new), "the second secret works", SECONDS_MAX)
    assert _works(old)


def test_a_smaller_and_a_larger_plan_act_on_an_open_connection(admin: Admin) -> None:
    row = admin.new_instance("relational", plan="unmetered")
    with psycopg.connect(row.uri, autocommit=True) as connection:
        for _ in range(100):
            connection.execute("SELECT 1")
        admin.change(row.instance, plan="lite")
        wait_until(lambda: _is_limited(connection), "lite is in force", SECONDS_MAX)
        admin.change(row.instance, plan="unmetered")
        started = time.monotonic()
        wait_until(lambda: not _is_limited(connection), "unmetered is in force", SECONDS_MAX)
        assert time.monotonic() - started < SECONDS_MAX


def _is_limited(connection: psycopg.Connection) -> bool:
    """Say whether a hundred reads at once meet a limit."""
    try:
        for _ in range(100):
            connection.execute("SELECT 1")
    except psycopg.errors.ConfigurationLimitExceeded:
        return True
    return False


@pytest.mark.parametrize(
    "setting",
    [
        "SELECT 1",
        # The server then looks for its client only when it has something to say.
        "SET client_connection_check_interval = 0",
    ],
)
def test_a_statement_of_a_revoked_session_does_not_commit_later(admin: Admin, setting: str) -> None:
    owner = admin.new_instance("relational", plan="unmetered")
    row = admin.new_credential(owner)
    wait_until(lambda: _works(row), "the new key works", SECONDS_MAX)
    with psycopg.connect(owner.uri, autocommit=True) as watcher:
        watcher.execute("CREATE TABLE late (n int)")
        with psycopg.connect(row.uri, autocommit=True) as session:
            session.execute(setting)

            def insert_slowly() -> None:
                with pytest.raises(psycopg.OperationalError):
                    session.execute("INSERT INTO late SELECT 1 FROM pg_sleep(8)")

            thread = threading.Thread(target=insert_slowly)
            thread.start()
            running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO late%'"
            wait_until(lambda: watcher.execute(running).fetchone() == (1,), "it runs")
            admin.revoke(row)
            thread.join()
            wait_until(lambda: watcher.execute(running).fetchone() == (0,), "it has ended")
        assert watcher.execute("SELECT count(*) FROM late").fetchone() == (0,)

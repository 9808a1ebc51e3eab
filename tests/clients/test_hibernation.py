"""Hibernation through the whole product: plans, API, drivers, operations, `down` and `up`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest
import redis

from dataplane.config import Bounds
from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack

# The plan's two seconds begin when the data plane lets go of the last warm session.
ASLEEP_SECONDS_MAX = Bounds().warm_idle_s + 60


@pytest.fixture(scope="module")
def sleepers(stack: Stack, admin: Admin) -> Iterator[dict[str, Connection]]:
    """An instance of each engine whose plan hibernates after two seconds."""
    dsn = f"postgresql://weftkit@/weftkit?host={stack.home / 'run' / 'pg'}"
    with psycopg.connect(dsn, autocommit=True) as control:
        plan = "UPDATE usage_plan SET hibernate_after_s = %s WHERE name = 'standard'"
        control.execute(plan, (2,))
        yield {
            engine: admin.new_instance(engine, plan="standard")
            for engine in ("relational", "inmemory")
        }
        with contextlib.suppress(psycopg.OperationalError):
            control.execute(plan, (3600,))


def state(admin: Admin, row: Connection) -> tuple[str, str]:
    """Return (status, server_state) as the API shows them."""
    shown = admin.call("GET", f"instances/{row.instance}")
    return shown["status"], shown["server_state"]


def wait_asleep(admin: Admin, row: Connection) -> None:
    def is_asleep() -> bool:
        return state(admin, row) == ("active", "hibernated")

    wait_until(is_asleep, f"{row.instance} sleeps", ASLEEP_SECONDS_MAX)


def test_the_api_says_hibernated_and_a_driver_finds_its_data(
    stack: Stack, admin: Admin, sleepers: dict[str, Connection]
) -> None:
    relational, inmemory = sleepers["relational"], sleepers["inmemory"]
    with psycopg.connect(relational.uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    with redis.Redis.from_url(inmemory.uri) as client:
        client.set("kept", "1", ex=3600)
    for row in sleepers.values():
        wait_asleep(admin, row)
    # Left inside a transaction, which is not kept warm.
    with contextlib.closing(psycopg.connect(relational.uri)) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
        assert connection.execute("SELECT current_user").fetchone() == ("owner",)
        wait_until(lambda: state(admin, relational) == ("active", "running"), "it runs")
    with redis.Redis.from_url(inmemory.uri) as client:
        assert client.get("kept") == b"1"
        assert 0 < client.ttl("kept") <= 3600
        wait_until(lambda: state(admin, inmemory) == ("active", "running"), "it runs")


@pytest.mark.parametrize("engine", ["relational", "inmemory"])
def test_operations_on_a_sleeping_instance_end(
    engine: str, admin: Admin, sleepers: dict[str, Connection]
) -> None:
    row = sleepers[engine]
    wait_asleep(admin, row)
    admin.suspend(row.instance)
    assert state(admin, row) == ("suspended", "stopped")
    admin.resume(row.instance)
    wait_asleep(admin, row)
    admin.change(row.instance, blocks=2)
    wait_asleep(admin, row)


def test_down_and_up_let_it_sleep(
    stack: Stack, admin: Admin, sleepers: dict[str, Connection]
) -> None:
    for row in sleepers.values():
        wait_asleep(admin, row)
    stack.down()
    stack.up()
    # Nobody has connected: it was not started for nothing.
    assert [state(admin, row) for row in sleepers.values()] == [("active", "hibernated")] * 2
    with psycopg.connect(sleepers["relational"].uri) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)

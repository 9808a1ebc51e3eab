"""SIGKILL to each process under load: all comes back, and every acknowledged write is there."""

from __future__ import annotations

import contextlib
import signal
import threading

import psycopg
import pytest
import redis

from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack

BACK_SECONDS_MAX = 60


class Writer:
    """Writes number after number, reconnects when it must, remembers what was acknowledged."""

    def __init__(self, row: Connection) -> None:
        self.row = row
        self.acknowledged: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            with contextlib.suppress(psycopg.Error, redis.RedisError, OSError):
                for write in self.session():
                    if self._stop.is_set():
                        return
                    number += 1
                    write(number)
                    self.acknowledged.append(number)
            self._stop.wait(0.05)

    def session(self):
        """Yield the function that writes one number durably, again and again."""
        raise NotImplementedError

    def stored(self) -> set[int]:
        """Return the numbers that are there."""
        raise NotImplementedError

    def __enter__(self) -> Writer:
        self._thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, count: int = 50) -> None:
        """Wait until `count` further writes were acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal, "writes go on", BACK_SECONDS_MAX)


class PostgresWriter(Writer):
    """One INSERT a number."""

    def session(self):
        with psycopg.connect(self.row.uri, autocommit=True, connect_timeout=10) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS written (n bigint)")
            while True:
                yield lambda n: connection.execute("INSERT INTO written VALUES (%s)", (n,))

    def stored(self) -> set[int]:
        with psycopg.connect(self.row.uri, autocommit=True) as connection:
            return {row[0] for row in connection.execute("SELECT n FROM written")}


class RedisWriter(Writer):
    """One SADD a number."""

    def session(self):
        client = redis.Redis.from_url(self.row.uri, socket_timeout=10)
        while True:
            yield lambda n: client.sadd("written", n)

    def stored(self) -> set[int]:
        return {int(n) for n in redis.Redis.from_url(self.row.uri).smembers("written")}


@pytest.fixture(scope="module")
def rows(admin: Admin) -> tuple[Connection, Connection]:
    """Instances of this module's own."""
    return (
        admin.new_instance("relational", plan="unmetered"),
        admin.new_instance("inmemory", plan="unmetered"),
    )


# What is killed: the words that its command line holds.
VICTIMS = {
    "data-plane worker": ("dataplane.worker",),
    "data-plane master": ("-m dataplane ",),
    "instance host": ("dataplane.host",),
    "celery worker": ("celery", "worker"),
    "celery beat": ("celery", "beat"),
    "web server": ("daphne",),
    "instance PostgreSQL": ("postgres", "/instances/"),
    "instance Redis": ("redis-server", "/instances/"),
    "system PostgreSQL": ("postgres", "-D", "/postgres"),
    "system Redis": ("redis-server", "/run/redis.sock"),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_process_comes_back_and_nothing_acknowledged_is_lost(
    stack: Stack, rows: tuple[Connection, Connection], victim: str
) -> None:
    relational, inmemory = rows
    with PostgresWriter(relational) as first, RedisWriter(inmemory) as second:
        killed = set(stack.kill(*VICTIMS[victim]))
        wait_until(
            lambda: set(stack.processes(*VICTIMS[victim])) - killed != set(),
            f"{victim} is back",
            BACK_SECONDS_MAX,
        )
        first.wait_for_more()
        second.wait_for_more()
    for writer in (first, second):
        missing = set(writer.acknowledged) - writer.stored()
        assert not missing, f"{len(missing)} acknowledged writes are lost"


def test_a_stopped_control_plane_stops_no_query(
    stack: Stack, rows: tuple[Connection, Connection]
) -> None:
    control = (("daphne",), ("celery", "worker"), ("celery", "beat"))
    try:
        for words in control:
            stack.kill(*words, with_signal=signal.SIGSTOP)
        for writer in (PostgresWriter(rows[0]), RedisWriter(rows[1])):
            with writer:
                writer.wait_for_more()
    finally:
        for words in control:
            stack.kill(*words, with_signal=signal.SIGCONT)


def test_no_operation_sticks_when_the_worker_is_killed(stack: Stack, admin: Admin) -> None:
    for engine in ("relational", "inmemory"):
        operation = admin.start_instance(engine, plan="lite")
        stack.kill("celery", "worker")
        admin.finish(operation, BACK_SECONDS_MAX * 2)


def test_a_killed_supervisor_leaves_a_stack_that_starts_again(
    stack: Stack, rows: tuple[Connection, Connection]
) -> None:
    with PostgresWriter(rows[0]) as writer:
        stack.kill("deploy.local")
        stack.up()
        writer.wait_for_more()
    assert set(writer.acknowledged) <= writer.stored()


def test_down_and_up_lose_nothing(stack: Stack, rows: tuple[Connection, Connection]) -> None:
    before = (stack.home / "connections.json").read_text()
    with PostgresWriter(rows[0]) as first, RedisWriter(rows[1]) as second:
        pass
    stack.down()
    assert stack.processes() == []
    stack.up()
    assert (stack.home / "connections.json").read_text() == before
    for writer in (first, second):
        assert set(writer.acknowledged) <= writer.stored()


def test_a_second_up_says_that_it_runs(stack: Stack) -> None:
    assert "already runs" in stack.up()

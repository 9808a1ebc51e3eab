"""The SQL console's texts over several web processes: three of a person, cancelled anywhere.

Each `Running` here is what one process has; they share a real Redis.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from redis import Redis

from tenants.console.explorer.running import RUNNING_PER_PERSON_MAX, Running
from tenants.core.errors import ConflictError, TooManyError
from tests.servers import RedisServer

ALICE, BOB = "user:alice@example.org", "user:bob@example.org"


def client_of(server: RedisServer) -> Redis:
    return Redis(unix_socket_path=str(server.socket))


@pytest.fixture
def processes(redis: RedisServer) -> tuple[Running, Running]:
    client_of(redis).flushdb()
    return Running(f"unix://{redis.socket}"), Running(f"unix://{redis.socket}")


def test_a_person_has_three_texts_in_all_processes_together(
    processes: tuple[Running, Running],
) -> None:
    first, second = processes
    with ExitStack() as running:
        for number in range(RUNNING_PER_PERSON_MAX):
            running.enter_context(processes[number % 2].entered(ALICE, f"run-{number}", 10))
        for process in processes:
            with pytest.raises(TooManyError), process.entered(ALICE, "one-more", 10):
                pass
        with second.entered(BOB, "run-0", 10):
            pass
    with second.entered(ALICE, "one-more", 10), first.entered(ALICE, "and-another", 10):
        pass


def test_a_text_runs_once_in_all_processes(processes: tuple[Running, Running]) -> None:
    with processes[0].entered(ALICE, "run", 10):
        for process in processes:
            with pytest.raises(ConflictError), process.entered(ALICE, "run", 10):
                pass


def test_what_a_process_ran_that_died_counts_no_longer_than_it_could_have_run(
    processes: tuple[Running, Running], redis: RedisServer
) -> None:
    first, second = processes
    # Entered, and never left while this is looked at: their process is gone.
    dead = [first.entered(ALICE, f"run-{number}", 10) for number in range(RUNNING_PER_PERSON_MAX)]
    for text in dead:
        text.__enter__()
    key = f"weftkit:sql:runs:{ALICE}"
    client = client_of(redis)
    assert 0 < client.ttl(key) <= 11
    with pytest.raises(TooManyError), second.entered(ALICE, "run", 10):
        pass
    client.zadd(key, {"run-0": 1})  # its time is over
    with second.entered(ALICE, "run", 10):
        assert client.zrange(key, 0, -1) == [b"run", b"run-1", b"run-2"]


def test_a_text_is_cancelled_by_whatever_process(processes: tuple[Running, Running]) -> None:
    first, second = processes
    asked: list[str] = []
    with first.entered(ALICE, "run", 10):
        first.connected(ALICE, "run", lambda: asked.append("run"))
        second.cancel(BOB, "run")
        assert not first.is_cancelled(ALICE, "run")
        second.cancel(ALICE, "run")
        assert first.is_cancelled(ALICE, "run")
        assert asked == []  # the process that runs it looks every half second
        first.cancel(ALICE, "run")
        assert asked == ["run"]
    assert not first.is_cancelled(ALICE, "run")
    # One that overtakes its text waits for it.
    second.cancel(ALICE, "next")
    with first.entered(ALICE, "next", 10):
        assert first.is_cancelled(ALICE, "next")


def test_while_redis_is_away_each_process_counts_and_cancels_for_itself() -> None:
    alone = Running("unix:///nowhere/redis.sock")
    with ExitStack() as running:
        for number in range(RUNNING_PER_PERSON_MAX):
            running.enter_context(alone.entered(ALICE, f"run-{number}", 10))
        with pytest.raises(TooManyError), alone.entered(ALICE, "one-more", 10):
            pass
        alone.cancel(ALICE, "run-1")
        assert alone.is_cancelled(ALICE, "run-1")
        assert not alone.is_cancelled(ALICE, "run-0")

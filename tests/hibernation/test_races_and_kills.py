"""Clients that come at any moment of falling asleep and waking, and processes killed at any moment.

Instances that sleep after 0 seconds are stopped as soon as nobody is connected, so that a client
who comes and goes meets every moment of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import redis

from dataplane.host import paths
from tests.hibernation.rig import ENGINES, Rig, Sleeper
from tests.servers import wait_until

SOCKETS = {"relational": paths.postgres_socket, "inmemory": paths.redis_socket}
CYCLES = 12
CLIENTS = 4
BACK_SECONDS_MAX = 30
# A server that dies more often in a minute is started later and later.
KILLS = 4


@pytest.fixture(params=ENGINES)
def restless(request: pytest.FixtureRequest, rig: Rig) -> Sleeper:
    """An instance of each engine that sleeps whenever nobody is connected."""
    return rig.sleeper(request.param, 0)


class Visitors:
    """Clients that connect, write a number of their own, and leave, again and again."""

    def __init__(self, sleeper: Sleeper, *, forgiving: bool) -> None:
        self._sleeper = sleeper
        self._forgiving = forgiving
        self._numbers = itertools.count(1)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS)
        self.acknowledged: set[int] = set()

    def _visit(self, pause: float) -> None:
        while not self._stop.wait(pause):
            number = next(self._numbers)
            try:
                with self._sleeper.client() as client:
                    client.write(number)
            except (psycopg.Error, redis.RedisError, OSError):
                if not self._forgiving:
                    raise
            else:
                self.acknowledged.add(number)

    def __enter__(self) -> Visitors:
        # The first one makes the table: creating it twice at once is PostgreSQL's own error.
        with self._sleeper.client() as client:
            client.write(0)
        # Pauses that drift against each other and against the host's looks.
        self._done = [self._pool.submit(self._visit, 0.3 + 0.07 * n) for n in range(CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for each in self._done:
            each.result()  # raises what a client met

    def wait_for_more(self, count: int = 5) -> None:
        """Wait until `count` further writes were acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal, "clients get in", BACK_SECONDS_MAX)


def test_no_client_ever_notices_that_an_instance_falls_asleep(restless: Sleeper) -> None:
    before = len(restless.events("hibernated"))
    with Visitors(restless, forgiving=False) as visitors:
        wait_until(
            lambda: len(restless.events("hibernated")) >= before + CYCLES,
            "it has slept and was woken many times",
            BACK_SECONDS_MAX * 2,
        )
    assert visitors.acknowledged | {0} == restless.use()


def kill_host(rig: Rig, sleeper: Sleeper) -> None:
    rig.host.end(signal.SIGKILL)
    rig.host.start()


def kill_worker(rig: Rig, sleeper: Sleeper) -> None:
    rig.kill_worker(0)


def kill_server(rig: Rig, sleeper: Sleeper) -> None:
    # The postmaster and its backends, or redis-server: whatever lives at this moment.
    for pid in sleeper.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_all(rig: Rig, sleeper: Sleeper) -> None:
    kill_worker(rig, sleeper)
    kill_server(rig, sleeper)
    kill_host(rig, sleeper)


@pytest.mark.parametrize("kill", [kill_host, kill_worker, kill_server, kill_all])
def test_a_process_killed_at_any_moment_loses_nothing_and_stops_nothing(
    kill: Callable[[Rig, Sleeper], None], rig: Rig, restless: Sleeper
) -> None:
    with Visitors(restless, forgiving=True) as visitors:
        for _ in range(KILLS):
            kill(rig, restless)
            visitors.wait_for_more()
    rig.wait_ready()
    missing = visitors.acknowledged - restless.use()
    assert not missing
    restless.wait("hibernated")


def test_a_host_killed_behind_a_closed_door_opens_it_again(restless: Sleeper) -> None:
    host = restless.rig.host
    with restless.client() as client:
        client.write(1)
        host.end(signal.SIGKILL)
        name = SOCKETS[restless.record.engine]
        outer = name(host.run_dir, restless.record.instance_id)
        outer.rename(outer.parent / "own" / outer.name)
        host.start()
        wait_until(outer.exists, "the door is open")
        client.write(2)
        assert restless.use() == {1, 2}

"""From the last client to the next one: who keeps an instance awake, and who wakes it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
import redis

from engines.kit.records import Desired
from tests.hibernation.rig import ENGINES, Rig, Sleeper
from tests.servers import wait_until


def settled(rig: Rig, condition: Callable[[], bool]) -> bool:
    """Say whether `condition` still holds when an instance made now has fallen asleep."""
    rig.sleeper("inmemory").wait("hibernated")
    return condition()


def test_an_idle_instance_is_stopped_and_the_next_client_finds_everything(
    sleeper: Sleeper,
) -> None:
    with sleeper.client() as client:
        for number in range(100):
            client.write(number)
    sleeper.wait("hibernated")
    assert sleeper.pids == []
    row = sleeper.rig.control.observed(sleeper.record)
    assert row["memory_bytes"] == 0
    assert row["storage_bytes"] > 0
    with sleeper.client() as client:
        assert client.numbers() == set(range(100))
        client.write(100)
        assert client.numbers() == set(range(101))
        sleeper.wait("running")
    sleeper.wait("hibernated")
    assert sleeper.use() == set(range(101))


def test_twenty_clients_at_once_wake_it_once(sleeper: Sleeper) -> None:
    with sleeper.client() as client:
        client.write(1)
    sleeper.wait("hibernated")
    starts = len(sleeper.events("server_ready"))
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda _: sleeper.use(), range(20))) == [{1}] * 20
    assert len(sleeper.events("server_ready")) == starts + 1


def test_a_connected_client_keeps_it_awake_however_idle(sleeper: Sleeper) -> None:
    with sleeper.client() as client:
        client.write(1)
        before = sleeper.events("hibernated")
        assert settled(sleeper.rig, lambda: sleeper.events("hibernated") == before)
        assert sleeper.state == "running"
        assert client.numbers() == {1}


def test_clients_that_come_and_go_between_two_looks_keep_it_awake(
    rig: Rig, sleeper: Sleeper
) -> None:
    sleeper.use()
    sleeper.wait("running")
    before = sleeper.events("hibernated")
    clock = rig.sleeper("inmemory")

    def has_fallen_asleep() -> bool:
        sleeper.use()
        return clock.state == "hibernated"

    wait_until(has_fallen_asleep, "an instance of the same age sleeps")
    assert sleeper.events("hibernated") == before


def test_an_instance_whose_plan_never_hibernates_stays(rig: Rig) -> None:
    kept = [rig.sleeper(engine, None) for engine in ENGINES]
    assert settled(rig, lambda: all(each.state == "running" for each in kept))


def test_a_newer_generation_wakes_it_and_shows_that_it_runs(sleeper: Sleeper) -> None:
    sleeper.wait("hibernated")
    sleeper.ask(limits=replace(sleeper.record.limits, connections=33))
    sleeper.wait("hibernated")


def test_a_record_without_a_wish_lets_it_sleep_and_counts_when_it_wakes(rig: Rig) -> None:
    sleeper = rig.sleeper("inmemory", memory_bytes=8 * 2**20)
    sleeper.wait("hibernated")
    starts = len(sleeper.events("server_ready"))
    sleeper.publish(limits=replace(sleeper.record.limits, memory_bytes=9 * 2**20))
    assert settled(rig, lambda: len(sleeper.events("server_ready")) == starts)
    sleeper.use()
    service = redis.Redis(**rig.host.redis_arguments(sleeper.record))
    assert service.config_get("maxmemory") == {"maxmemory": str(9 * 2**20)}
    service.close()


def test_a_plan_that_never_hibernates_wakes_it(sleeper: Sleeper) -> None:
    sleeper.wait("hibernated")
    sleeper.publish(limits=replace(sleeper.record.limits, hibernate_after_s=None))
    sleeper.wait("running")


def test_a_sleeping_instance_is_suspended_resumed_and_removed(sleeper: Sleeper) -> None:
    with sleeper.client() as client:
        client.write(7)
    sleeper.wait("hibernated")
    sleeper.ask(desired=Desired.STOPPED)
    sleeper.ask(desired=Desired.RUNNING)
    assert sleeper.use() == {7}
    sleeper.wait("hibernated")
    sleeper.ask(desired=Desired.ABSENT)


def test_a_suspended_instance_is_not_woken(rig: Rig) -> None:
    sleeper = rig.sleeper("relational")
    sleeper.wait("hibernated")
    sleeper.ask(desired=Desired.STOPPED)
    with pytest.raises(psycopg.OperationalError, match="cannot be reached"):
        sleeper.client()
    assert sleeper.pids == []


def test_a_wrong_password_wakes_nobody(rig: Rig) -> None:
    stranger, guesser = rig.sleeper("relational"), rig.sleeper("inmemory")
    for each in (stranger, guesser):
        each.wait("hibernated")
        starts = len(each.events("server_ready"))
        with pytest.raises((psycopg.OperationalError, redis.AuthenticationError)):
            replace(each, password="wk_wrong_secret").client().numbers()
        assert len(each.events("server_ready")) == starts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_a_restarted_host_lets_it_sleep_and_wakes_it_when_asked(
    number: signal.Signals, rig: Rig
) -> None:
    sleepers = [rig.sleeper(engine) for engine in ENGINES]
    for each in sleepers:
        with each.client() as client:
            client.write(5)
        each.wait("hibernated")
    before = [rig.control.observed(each.record) for each in sleepers]
    starts = [len(each.events("server_ready")) for each in sleepers]
    rig.host.end(number)
    rig.host.start()
    # It has read all records, and has done what they want, once this one runs.
    rig.sleeper("inmemory")
    assert [len(each.events("server_ready")) for each in sleepers] == starts
    assert [each.state for each in sleepers] == ["hibernated"] * 2
    after = [rig.control.observed(each.record) for each in sleepers]
    assert [row["storage_bytes"] for row in after] == [row["storage_bytes"] for row in before]
    assert [each.use() for each in sleepers] == [{5}] * 2


def test_a_client_waits_for_a_host_that_is_being_restarted(sleeper: Sleeper) -> None:
    host = sleeper.rig.host
    with sleeper.client() as client:
        client.write(3)
    sleeper.wait("hibernated")
    host.end(signal.SIGKILL)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sleeper.use)
        host.start()
        assert waiting.result() == {3}


def test_sleep_and_waking_are_counted(rig: Rig) -> None:
    sleeper = rig.sleeper("relational")
    sleeper.wait("hibernated")

    def shown() -> float:
        return rig.metric("weftkit_instances", engine="relational", state="hibernated")

    wait_until(lambda: shown() >= 1, "the page shows who sleeps")
    slept = rig.metric("weftkit_hibernations_total", engine="relational")
    woken = rig.metric("weftkit_wake_seconds_count", engine="relational")
    sleeper.use()
    sleeper.wait("hibernated")
    wait_until(
        lambda: rig.metric("weftkit_hibernations_total", engine="relational") > slept,
        "one more has gone to sleep",
    )
    assert rig.metric("weftkit_wake_seconds_count", engine="relational") == woken + 1


@pytest.mark.parametrize("engine", ENGINES)
def test_one_that_is_told_to_sleep_does_so_once_nobody_is_connected_and_only_once(
    rig: Rig, engine: str
) -> None:
    told = rig.sleeper(engine, after_s=None)
    with told.client() as client:
        client.write(1)
        told.ask(sleep_generation=told.record.generation + 1)
        assert told.record.sleep_generation == told.record.generation
        assert settled(rig, lambda: told.state == "running"), "somebody is connected"
    told.wait("hibernated")
    assert told.pids == []
    told.publish(sleep_generation=0)  # what the operation does at its end
    assert settled(rig, lambda: told.state == "hibernated")
    assert told.use() == {1}
    assert settled(rig, lambda: told.state == "running"), "its plan lets it never sleep"

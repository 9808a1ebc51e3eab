"""The gate of a connection: bounds, refusals, counts, and changes that reach it while it lives."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dataplane.limits.admission import ConnectionGate, InstanceState
from dataplane.limits.leases import CommonWindow
from dataplane.observe.counters import COUNTER_WORD, COUNTERS
from dataplane.observe.meter import Meter
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import RequestClass, UsageLine, Wait
from engines.kit.records import GrowthRefusal, InstanceRecord, Limits, Status
from tests.dataplane.plane import instance
from tests.servers import RedisServer

READ, WRITE, QUERY = RequestClass.READ, RequestClass.WRITE, RequestClass.QUERY


class SteppedTime:
    """Monotonic time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Instance:
    """One instance's state in one worker, and a gate of it."""

    def __init__(self, directory: Path, redis_url: str, limits: Limits, workers: int = 1) -> None:
        self.time = SteppedTime()
        self.common = CommonWindow(redis_url, self.time)
        self.record = instance(limits=limits)
        meter = Meter(directory, "test", 1.0)
        self.slot = meter.slot(self.record.instance_id, "line", 1.0)
        self.state = InstanceState(
            self.record, self.slot, self.common, workers=workers, monotonic=self.time
        )
        self.gate = ConnectionGate(self.state)

    def follow(self, record: InstanceRecord | None, storage_bytes: int = 0) -> None:
        self.state.follow(record, storage_bytes)

    def counts(self) -> dict[str, int]:
        start = self.slot.base + COUNTER_WORD
        cells = self.slot.cells[start : start + len(COUNTERS)]
        return {name: count for name, count in zip(COUNTERS, cells, strict=True) if count}

    async def take(self, request_class: RequestClass, units: int = 1) -> RequestError | None:
        """Admit as a splice does: wait for units as often as it is told to."""
        for _ in range(10):
            answer = self.gate.admit(request_class, units)
            if answer is not Wait.FOR_UNITS:
                return answer
            await self.gate.wait(request_class, units)
        raise AssertionError("waits for ever")

    async def admitted(self, request_class: RequestClass, tries: int) -> int:
        answers = [await self.take(request_class) for _ in range(tries)]
        return answers.count(None)


@pytest.fixture
async def lite(tmp_path: Path, redis: RedisServer) -> AsyncIterator[Instance]:
    made = Instance(tmp_path, redis.url(2), Limits(read=20, write=10, query=5, storage_bytes=1000))
    yield made
    await made.common.close()


@pytest.fixture
async def away(tmp_path: Path) -> AsyncIterator[Instance]:
    """An instance whose common window cannot be reached, in one of two workers."""
    made = Instance(tmp_path, "unix:///nowhere/redis.sock", Limits(read=20), workers=2)
    yield made
    await made.common.close()


async def test_an_unmetered_plan_counts_and_never_waits(tmp_path: Path, redis: RedisServer) -> None:
    made = Instance(tmp_path, redis.url(2), Limits())
    for request_class in RequestClass:
        assert made.gate.admit(request_class, 3) is None
    assert made.counts() == dict.fromkeys(("unlimited", "read", "write", "query"), 3)
    assert not made.state.is_bounded


async def test_a_plan_admits_its_figure_and_then_says_when_to_retry(lite: Instance) -> None:
    assert await lite.admitted(READ, 30) == 20
    refusal = await lite.take(READ)
    assert refusal is not None
    assert (refusal.reason, refusal.request_class, refusal.limit_units) == (Reason.RATE, "read", 20)
    assert refusal.retry_after_s is not None
    assert 0 < refusal.retry_after_s <= 1.05
    assert lite.counts() == {"read": 20, "refused": 11}


async def test_classes_have_windows_of_their_own(lite: Instance) -> None:
    assert await lite.admitted(QUERY, 10) == 5
    assert await lite.admitted(WRITE, 20) == 10
    assert await lite.admitted(RequestClass.UNLIMITED, 100) == 100


async def test_a_refusal_is_remembered_until_its_time(lite: Instance) -> None:
    await lite.admitted(QUERY, 6)
    # Asked of nobody: a refusal costs no round trip.
    assert isinstance(lite.gate.admit(QUERY), RequestError)
    lite.time.now += 2.0
    assert lite.gate.admit(QUERY) is Wait.FOR_UNITS


async def test_a_costly_request_is_admitted_once_on_an_empty_window(lite: Instance) -> None:
    assert await lite.take(QUERY, 12) is None
    refusal = await lite.take(QUERY)
    assert refusal is not None
    assert refusal.reason is Reason.RATE


async def test_a_refund_takes_the_unit_out_of_the_count(lite: Instance) -> None:
    assert await lite.take(WRITE, 3) is None
    lite.gate.refund(WRITE, 2)
    assert lite.counts() == {"write": 1}


async def test_a_larger_plan_lifts_a_refusal_at_once(lite: Instance) -> None:
    assert await lite.admitted(QUERY, 10) == 5
    larger = dataclasses.replace(lite.record.limits, query=50)
    lite.follow(dataclasses.replace(lite.record, limits=larger))
    assert await lite.admitted(QUERY, 60) == 45


async def test_an_unmetered_plan_lifts_all_limits_at_once(lite: Instance) -> None:
    await lite.admitted(QUERY, 10)
    lite.follow(dataclasses.replace(lite.record, limits=Limits()))
    assert lite.gate.admit(QUERY) is None


async def test_a_plan_that_begins_to_limit_reaches_open_connections(
    tmp_path: Path, redis: RedisServer
) -> None:
    made = Instance(tmp_path, redis.url(2), Limits())
    assert made.gate.admit(READ) is None
    made.follow(dataclasses.replace(made.record, limits=Limits(read=1, statement_timeout_ms=7)))
    assert made.gate.statement_timeout_ms == 7
    assert await made.admitted(READ, 5) == 1
    await made.common.close()


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.ACTIVE])
async def test_an_instance_out_of_service_admits_nothing(lite: Instance, status: Status) -> None:
    lite.follow(dataclasses.replace(lite.record, status=status))
    refusal = await lite.take(RequestClass.UNLIMITED)
    assert refusal is not None
    assert refusal.reason is Reason.SUSPENDED
    lite.follow(lite.record)
    assert await lite.take(RequestClass.UNLIMITED) is None


async def test_over_the_quota_only_growth_is_refused(lite: Instance) -> None:
    lite.follow(lite.record, storage_bytes=1001)
    refusal = lite.gate.admit(RequestClass.UNLIMITED, grows=True)
    assert isinstance(refusal, RequestError)
    assert refusal.reason is Reason.QUOTA
    assert await lite.take(WRITE) is None
    assert await lite.take(READ) is None
    lite.follow(lite.record, storage_bytes=1000)
    assert lite.gate.admit(RequestClass.UNLIMITED, grows=True) is None


async def test_a_larger_quota_lifts_the_refusal_at_once(lite: Instance) -> None:
    lite.follow(lite.record, storage_bytes=5000)
    larger = dataclasses.replace(lite.record.limits, storage_bytes=5000)
    lite.follow(dataclasses.replace(lite.record, limits=larger), storage_bytes=5000)
    assert lite.gate.admit(RequestClass.UNLIMITED, grows=True) is None


def grows(instance: Instance) -> RequestError | Wait | None:
    return instance.gate.admit(RequestClass.UNLIMITED, grows=True)


async def test_between_quota_and_ceiling_growth_goes_on_until_the_grace_is_over(
    lite: Instance,
) -> None:
    limits = dataclasses.replace(lite.record.limits, storage_ceiling_bytes=1100)
    record = dataclasses.replace(lite.record, limits=limits)
    lite.follow(record, storage_bytes=1100)
    assert grows(lite) is None
    lite.follow(record, storage_bytes=1101)
    assert isinstance(grows(lite), RequestError)
    over = dataclasses.replace(record, growth_refused=GrowthRefusal.STORAGE)
    lite.follow(over, storage_bytes=1001)
    refusal = grows(lite)
    assert isinstance(refusal, RequestError)
    assert refusal.reason is Reason.QUOTA
    assert "storage quota" in refusal.message
    # The host saw the deletions before the control plane did.
    lite.follow(over, storage_bytes=1000)
    assert grows(lite) is None


async def test_in_arrears_only_growth_is_refused_whatever_is_stored(lite: Instance) -> None:
    free = dataclasses.replace(lite.record.limits, storage_bytes=None)
    record = dataclasses.replace(lite.record, limits=free, growth_refused=GrowthRefusal.ARREARS)
    lite.follow(record)
    refusal = grows(lite)
    assert isinstance(refusal, RequestError)
    assert refusal.reason is Reason.QUOTA
    assert "arrears" in refusal.message
    assert await lite.take(READ) is None
    assert await lite.take(WRITE) is None
    lite.follow(dataclasses.replace(record, growth_refused=None))
    assert grows(lite) is None


async def test_usage_is_of_the_connection_and_knows_the_plan(lite: Instance) -> None:
    other = ConnectionGate(lite.state)
    assert await lite.take(READ, 2) is None
    assert await lite.take(WRITE) is None
    lite.gate.refund(READ)
    lite.gate.charge(QUERY, 3)
    lite.follow(lite.record, storage_bytes=700)
    limits = lite.record.limits
    assert lite.gate.usage() == (
        UsageLine("unlimited_units", 0, None),
        UsageLine("read_units", 1, limits.read),
        UsageLine("write_units", 1, limits.write),
        UsageLine("query_units", 3, limits.query),
        UsageLine("storage_bytes", 700, limits.storage_bytes),
    )
    assert [line.used for line in other.usage()] == [0, 0, 0, 0, 700]


async def test_without_redis_a_worker_keeps_to_its_share(away: Instance) -> None:
    assert await away.admitted(READ, 30) == 10
    away.time.now += 1.1
    assert await away.admitted(READ, 30) == 10


async def test_a_watch_is_told_only_while_the_owner_wants_it(
    tmp_path: Path, redis: RedisServer
) -> None:
    made = Instance(tmp_path, redis.url(2), Limits(query=2))
    told: list[tuple[RequestClass, int, Reason | None]] = []
    made.gate.watch = lambda kind, units, error: told.append((kind, units, error and error.reason))
    made.gate.admit(READ)
    made.follow(dataclasses.replace(made.record, audit_data_events=True))
    made.gate.admit(READ, 3)
    made.gate.refund(READ)
    made.gate.charge(WRITE, 2)
    assert await made.admitted(QUERY, 3) == 2
    # One line for each request, not for each wait.
    assert told == [
        (READ, 3, None), (READ, -1, None), (WRITE, 2, None), (QUERY, 1, None), (QUERY, 1, None),
        (QUERY, 1, Reason.RATE),
    ]  # fmt: skip
    made.follow(made.record)
    made.gate.admit(READ)
    assert len(told) == 6
    await made.common.close()

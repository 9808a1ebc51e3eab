"""Leases from the common window in a real Redis: pace, sharing, absence and return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from dataplane.limits import leases
from dataplane.limits.leases import AWAY_SECONDS, REDIS_DATABASE, Bucket, CommonWindow
from engines.kit.errors import RequestError
from engines.kit.limits import lease_size
from engines.kit.ports import RequestClass, Wait
from tests.servers import RedisServer, run_redis, temporary_home


class SteppedTime:
    """Monotonic time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class CountedWindow(CommonWindow):
    """The window in Redis, and how often it was asked."""

    asked = 0

    async def lease(
        self, key: str, limit: int, *, needed: int, wanted: int
    ) -> tuple[int, float] | None:
        self.asked += 1
        return await super().lease(key, limit, needed=needed, wanted=wanted)


@pytest.fixture
async def common(redis: RedisServer) -> AsyncIterator[CountedWindow]:
    window = CountedWindow(redis.url(0), SteppedTime())
    yield window
    await window.close()


def bucket(common: CommonWindow, limit: int, key: str = "", workers: int = 2) -> Bucket:
    return Bucket(
        common, key or f"test:{uuid4()}", RequestClass.READ, limit,
        workers=workers, monotonic=common._monotonic,
    )  # fmt: skip


async def take(bucket: Bucket, units: int = 1) -> bool:
    for _ in range(20):
        answer = bucket.take(units)
        if answer is not Wait.FOR_UNITS:
            return not isinstance(answer, RequestError)
        await bucket.fetch(units)
    raise AssertionError("waits for ever")


async def test_two_workers_share_one_window(common: CountedWindow) -> None:
    first, second = (bucket(common, 100, "test:shared" + str(id(common))) for _ in range(2))
    admitted = 0
    for _ in range(150):
        admitted += await take(first)
        admitted += await take(second)
    # What one holds when the other is refused is at most one lot.
    assert 100 - lease_size(100) <= admitted <= 100


async def test_fast_traffic_asks_seldom_and_slow_traffic_takes_little(
    common: CountedWindow,
) -> None:
    fast = bucket(common, 1000)
    for _ in range(500):
        assert await take(fast)
    assert common.asked < 25
    assert isinstance(common._monotonic, SteppedTime)
    slow, twin = (bucket(common, 10, "test:slow" + str(id(common))) for _ in range(2))
    for _ in range(5):
        common._monotonic.now += 0.2
        assert await take(slow)
    # The slow one holds nothing back: the rest is there for its twin.
    assert [await take(twin) for _ in range(6)] == [True] * 5 + [False]


async def test_units_that_were_taken_unasked_are_waited_for(common: CountedWindow) -> None:
    assert isinstance(common._monotonic, SteppedTime)
    owing = bucket(common, 10)
    assert await take(owing)
    owing.owe(50)
    refusal = owing.take(1)
    assert isinstance(refusal, RequestError)
    assert refusal.retry_after_s == pytest.approx(5.0)
    common._monotonic.now += 5.1
    assert await take(owing)
    owing.owe(10**9)
    refusal = owing.take(1)
    assert isinstance(refusal, RequestError)
    assert refusal.retry_after_s == pytest.approx(leases.OWED_SECONDS_MAX)


async def test_waiting_requests_are_served_by_one_lease(common: CountedWindow) -> None:
    shared = bucket(common, 1000)
    assert all(await asyncio.gather(*(take(shared) for _ in range(200))))
    assert common.asked < 10


async def test_a_cancelled_wait_does_not_disturb_the_others(common: CountedWindow) -> None:
    shared = bucket(common, 100)
    tasks = [asyncio.create_task(shared.fetch(1)) for _ in range(3)]
    await asyncio.tasks.sleep(0)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [None, None]
    assert shared.take(1) is None


async def test_a_dead_redis_is_left_alone_for_a_while_and_then_asked_again() -> None:
    time = SteppedTime()
    with temporary_home() as root:
        with run_redis(root) as server:
            common = CountedWindow(server.url(0), time)
            shared = bucket(common, 20)
            assert await take(shared)
        # The server is gone: this worker keeps to its half, and asks no more.
        time.now += 5
        local = [await take(shared) for _ in range(15)]
        assert local == [True] * 10 + [False] * 5
        asked = common.asked
        time.now += AWAY_SECONDS / 2
        await take(shared)
        assert common.asked == asked
        with run_redis(root):
            time.now += AWAY_SECONDS + 2
            assert [await take(shared) for _ in range(15)] == [True] * 15
            assert common.asked > asked
            await common.close()


async def test_a_silent_redis_costs_a_bounded_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS_MAX", 0.05)
    with temporary_home() as root:
        hanging: list[asyncio.StreamWriter] = []

        async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hanging.append(writer)

        server = await asyncio.start_unix_server(accept, str(root / "s"))
        loop = asyncio.get_running_loop()
        common = CountedWindow(f"unix://{root}/s", loop.time)
        shared = bucket(common, 20)
        started = loop.time()
        assert await take(shared)
        assert loop.time() - started < 1.0
        await common.close()
        server.close()
        for writer in hanging:
            writer.close()


def test_the_database_is_the_limits_own() -> None:
    window = CommonWindow("unix:///x/redis.sock?db=0", SteppedTime())
    assert window._redis.connection_pool.connection_kwargs["db"] == REDIS_DATABASE

"""The sliding window against an exact model, and the Redis script against the window."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis as redis_py
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.kit.limits import CELL_MS, LEASE_SCRIPT, WINDOW_CELLS, Window, lease_size
from tests.servers import RedisServer

SECOND_MS = CELL_MS * WINDOW_CELLS

# Steps of a history: (milliseconds since the step before, units).
histories = st.lists(
    st.tuples(st.one_of(st.integers(0, 60), st.integers(0, 2500)), st.integers(1, 12)),
    max_size=60,
)


@given(histories, st.integers(12, 40), st.integers(0, 10_000))
def test_the_window_is_the_exact_one_but_for_one_cell(
    history: list[tuple[int, int]], limit: int, start_ms: int
) -> None:
    window = Window()
    granted: list[tuple[int, int]] = []
    now_ms = start_ms

    def used_since(begin_ms: int) -> int:
        return sum(units for at_ms, units in granted if at_ms > begin_ms)

    for gap_ms, units in history:
        now_ms += gap_ms
        wait_s = window.take(now_ms / 1000, units, limit)
        if wait_s == 0:
            granted.append((now_ms, units))
            assert used_since(now_ms - SECOND_MS + CELL_MS) <= limit
        else:
            # Whoever is refused is over the limit of the exact window too.
            assert used_since(now_ms - SECOND_MS) + units > limit


@given(histories, st.integers(1, 20), st.integers(1, 30))
def test_retry_after_is_the_first_moment_that_grants(
    history: list[tuple[int, int]], limit: int, units: int
) -> None:
    def replay() -> tuple[Window, int]:
        window, now_ms = Window(), 0
        for gap_ms, taken in history:
            now_ms += gap_ms
            window.take(now_ms / 1000, taken, limit)
        return window, now_ms

    window, now_ms = replay()
    wait_ms = round(window.take(now_ms / 1000, units, limit) * 1000)
    if wait_ms == 0:
        return
    assert replay()[0].take((now_ms + wait_ms) / 1000, units, limit) == 0
    assert replay()[0].take((now_ms + wait_ms - 1) / 1000, units, limit) > 0


@pytest.mark.parametrize("limit", [1, 7, 20, 100, 1000])
def test_a_greedy_client_gets_exactly_the_limit(limit: int) -> None:
    window = Window()
    granted = sum(
        window.take(now_ms / 1000, 1, limit) == 0
        for now_ms in range(10 * SECOND_MS)
        for _ in range(1 + limit // 500)
    )
    assert granted == 10 * limit


def test_a_steady_client_below_the_limit_is_never_refused() -> None:
    window = Window()
    assert all(window.take(step / 20, 1, 20) == 0 for step in range(1000))


def test_a_request_above_the_limit_is_admitted_and_paid_off() -> None:
    window = Window()
    assert window.take(0.0, 25, 10) == 0
    # 25 units at 10 a second are two seconds and a half.
    assert window.take(0.0, 1, 10) == pytest.approx(2.5)
    assert window.take(2.449, 1, 10) > 0
    assert window.take(2.5, 10, 10) == 0
    # One that costs too much waits until nothing is left in the window.
    assert window.take(2.5, 11, 10) == pytest.approx(1.0)


def test_a_greedy_client_of_costly_requests_gets_the_limit_on_average() -> None:
    window = Window()
    granted = sum(25 for now_ms in range(0, 100_000, 10) if window.take(now_ms / 1000, 25, 10) == 0)
    assert granted == 1000


def test_a_debt_is_never_longer_than_a_minute() -> None:
    window = Window()
    assert window.take(0.0, 10**9, 1) == 0
    assert window.take(0.0, 1, 1) == pytest.approx(61.0)


def test_a_changed_limit_counts_at_once() -> None:
    window = Window()
    assert window.take(0.0, 10, 10) == 0
    assert window.take(0.1, 1, 10) == pytest.approx(0.9)
    assert window.take(0.1, 1, 11) == 0
    assert window.take(0.2, 1, 0) > 0
    assert Window().take(0.0, 1, 0) == 1.0


def test_a_lease_takes_what_there_is_between_needed_and_wanted() -> None:
    window = Window()
    assert window.lease(0.0, 10, needed=1, wanted=7) == (7, 0.0)
    assert window.lease(0.0, 10, needed=1, wanted=7) == (3, 0.0)
    assert window.lease(0.0, 10, needed=1, wanted=7) == (0, 1.0)


def test_units_given_back_can_be_taken_again() -> None:
    window = Window()
    assert window.take(0.0, 6, 10) == 0
    assert window.take(0.5, 4, 10) == 0
    window.give_back(0.5, 5)
    assert window.take(0.5, 5, 10) == 0
    assert window.take(0.5, 1, 10) > 0
    # Units that have left the window cannot be returned to it.
    window.give_back(5.0, 100)
    assert window.take(5.0, 11, 10) == 0
    assert window.take(5.0, 1, 10) > 0


def test_a_clock_that_is_set_back_does_not_lock_anyone_out() -> None:
    window = Window()
    assert window.take(100_000.0, 10, 10) == 0
    assert window.take(1.0, 10, 10) == 0


def test_leases_are_a_twentieth_of_the_limit_and_at_least_one() -> None:
    assert [lease_size(limit) for limit in (1, 5, 20, 50, 100, 10_000)] == [1, 1, 1, 2, 5, 500]


@pytest.fixture
def client(redis: RedisServer) -> Iterator[redis_py.Redis]:
    with redis_py.Redis(unix_socket_path=str(redis.socket), db=5) as connection:
        connection.flushdb()
        yield connection


@pytest.fixture(scope="module")
def module_client(redis: RedisServer) -> Iterator[redis_py.Redis]:
    with redis_py.Redis(unix_socket_path=str(redis.socket), db=6) as connection:
        yield connection


@settings(deadline=None, max_examples=150)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 1500), st.integers(1, 15), st.integers(0, 10), st.integers(0, 12)),
        max_size=40,
    ),
    start_ms=st.integers(10**12, 2 * 10**12),
)
def test_the_script_grants_what_the_window_grants(
    module_client: redis_py.Redis, steps: list[tuple[int, int, int, int]], start_ms: int
) -> None:
    module_client.flushdb()
    script = module_client.register_script(LEASE_SCRIPT)
    window, now_ms = Window(), start_ms
    for gap_ms, needed, more, limit in steps:
        now_ms += gap_ms
        granted, wait_s = window.lease(now_ms / 1000, limit, needed=needed, wanted=needed + more)
        theirs = script(keys=["w"], args=[limit, needed, needed + more, now_ms])
        assert theirs == [granted, round(wait_s * 1000)]


def test_the_script_keeps_only_the_window_and_expires(client: redis_py.Redis) -> None:
    script = client.register_script(LEASE_SCRIPT)
    for now_ms in range(10**12, 10**12 + 60_000, 10):
        script(keys=["w"], args=[100, 1, 1, now_ms])
    assert client.hlen("w") <= WINDOW_CELLS
    assert SECOND_MS < client.pttl("w") <= 2 * SECOND_MS
    # What is dated forward keeps the key alive, also when a raised limit grants something else.
    client.delete("w")
    assert script(keys=["w"], args=[10, 100, 100, 10**12]) == [100, 0]
    assert script(keys=["w"], args=[200, 1, 1, 10**12]) == [1, 0]
    assert client.pttl("w") > 9 * SECOND_MS


def test_the_script_takes_the_time_from_redis(client: redis_py.Redis) -> None:
    script = client.register_script(LEASE_SCRIPT)
    assert script(keys=["w"], args=[5, 1, 5]) == [5, 0]
    granted, wait_ms = script(keys=["w"], args=[5, 1, 5])
    assert granted == 0
    assert SECOND_MS - 2 * CELL_MS <= wait_ms <= SECOND_MS


def test_concurrent_workers_share_one_window(client: redis_py.Redis, redis: RedisServer) -> None:
    def lease_all() -> int:
        with redis_py.Redis(unix_socket_path=str(redis.socket), db=5) as connection:
            script = connection.register_script(LEASE_SCRIPT)
            return sum(script(keys=["w"], args=[100, 1, 7, 10**12])[0] for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        taken = [pool.submit(lease_all) for _ in range(4)]
        assert sum(future.result() for future in taken) == 100

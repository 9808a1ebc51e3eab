"""What connections add to the metrics: nothing is lost between the adding and the writing."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dataplane.observe import tally

BOUNDS = (0.001, 0.01, 0.1)


def counter(registry: CollectorRegistry) -> Counter:
    return Counter("steps_total", "Steps.", ["outcome"], registry=registry)


async def test_what_was_added_is_written_together_soon_after() -> None:
    registry = CollectorRegistry()
    steps = counter(registry)

    def written() -> float | None:
        return registry.get_sample_value("steps_total", {"outcome": "done"})

    for _ in range(3):
        tally.tally_of(steps, "done").add()
    assert written() == 0
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    # Planned later for the same length of time: it comes after the flush.
    loop.call_later(tally.FLUSH_SECONDS * 1.5, passed.set_result, None)
    await passed
    assert written() == 3


async def test_a_flush_writes_at_once_and_only_once() -> None:
    registry = CollectorRegistry()
    held = tally.Tally(Gauge("held", "Held.", registry=registry))
    held.add()
    held.add()
    held.add(-1)
    tally.flush()
    tally.flush()
    assert registry.get_sample_value("held") == 1
    held.add(-1)
    tally.flush()
    assert registry.get_sample_value("held") == 0


def test_without_a_loop_it_is_written_at_once() -> None:
    registry = CollectorRegistry()
    tally.tally_of(counter(registry), "done").add(2)
    assert registry.get_sample_value("steps_total", {"outcome": "done"}) == 2


def test_what_an_ended_loop_left_is_written_by_the_next() -> None:
    registry = CollectorRegistry()
    steps = tally.tally_of(counter(registry), "done")
    others = tally.tally_of(counter(CollectorRegistry()), "done")

    async def add() -> None:
        steps.add()

    async def add_another() -> None:
        others.add()
        await asyncio.wait_for(asyncio.Event().wait(), tally.FLUSH_SECONDS * 2)

    asyncio.run(add())
    assert registry.get_sample_value("steps_total", {"outcome": "done"}) == 0
    with pytest.raises(TimeoutError):
        asyncio.run(add_another())
    assert registry.get_sample_value("steps_total", {"outcome": "done"}) == 1


async def test_a_spread_shows_what_the_histogram_itself_would() -> None:
    values = (0.0, 0.001, 0.0011, 0.05, 0.1, 7.0)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spread = tally.Spread(Histogram("took", "Took.", buckets=BOUNDS, registry=ours), BOUNDS)
    plain = Histogram("took", "Took.", buckets=BOUNDS, registry=theirs)
    for value in values:
        spread.observe(value)
        plain.observe(value)
    tally.flush()

    def shown(registry: CollectorRegistry) -> dict[str, float]:
        return {
            sample.name + sample.labels.get("le", ""): sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if not sample.name.endswith("_created")
        }

    assert shown(ours) == shown(theirs)
    assert shown(ours)["took_count"] == len(values)

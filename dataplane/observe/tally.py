"""Numbers that every connection adds to: counted in plain integers, written down in turns.

A metric of prometheus_client's multiprocess mode writes to its file at each step, which costs more
than many a step that it counts. A tally keeps the sum for `FLUSH_SECONDS` at most, and writes it
with the others. A page of this worker holds all of it (`flush` comes first); one of another worker
is late by that time. A worker that is killed takes its last such moment with it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

FLUSH_SECONDS: Final = 0.02

_changed: list[Tally | Spread] = []
# Where the next flush is planned: a loop may end before it.
_planned_by: asyncio.AbstractEventLoop | None = None


class Tally:
    """What is to be added to one counter or gauge."""

    def __init__(self, metric: Counter | Gauge) -> None:
        self._metric = metric
        self._change = 0
        self._is_listed = False

    def add(self, change: int = 1) -> None:
        """Add to it; only a gauge takes less than nothing."""
        self._change += change
        if not self._is_listed:
            self._is_listed = True
            _plan(self)

    def write(self) -> None:
        """Write down what was added."""
        self._is_listed = False
        change, self._change = self._change, 0
        if change:
            self._metric.inc(change)


class Spread:
    """What is to be added to one histogram."""

    def __init__(self, metric: Histogram, bounds: Sequence[float]) -> None:
        self._metric = metric
        self._bounds = list(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._is_listed = False

    def observe(self, value: float) -> None:
        """Add one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value
        if not self._is_listed:
            self._is_listed = True
            _plan(self)

    def write(self) -> None:
        """Write down what was observed."""
        self._is_listed = False
        # `observe` takes one value at a time; there is no public way to add many.
        for index, count in enumerate(self._counts):
            if count:
                self._metric._buckets[index].inc(count)
                self._counts[index] = 0
        self._metric._sum.inc(self._sum)
        self._sum = 0.0


def _tally_of(metric: Counter | Gauge, *labels: str) -> Tally:
    return Tally(metric.labels(*labels))


# Labels are engines and outcomes: there are few, and each is looked up for every connection.
tally_of = lru_cache(maxsize=1024)(_tally_of)


def flush() -> None:
    """Write down all that was counted until now."""
    global _planned_by
    _planned_by = None
    for each in _changed:
        each.write()
    _changed.clear()


def _plan(changed: Tally | Spread) -> None:
    """Write it down soon; at once where no event loop runs."""
    global _planned_by
    _changed.append(changed)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        flush()
        return
    if _planned_by is not loop:
        _planned_by = loop
        loop.call_later(FLUSH_SECONDS, flush)

"""One work over several ways to the same server, in rounds, and what comes out of it.

In each round the work goes over every way, forwards and backwards in turn, so that a machine that
slows down or speeds up slows every way alike. What is reported are medians: of a way's own figures,
and of the ratios between two ways in the same round.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks import machine

# From so many cores used by others on, a figure is marked as disturbed.
OTHERS_CORES_MAX = 0.2


class AbsentError(Exception):
    """A way that is not there; the message says why, or what to install."""


class NothingDoneError(Exception):
    """A run ended before its first request: others kept the machine busy. The round is left out."""


@dataclass(frozen=True)
class Measured:
    """What a load generator says of one run, without its own start."""

    requests: float
    per_second: float


@dataclass(frozen=True)
class Way:
    """One way to the server: what a load generator is told, and the proxy's processes."""

    name: str
    address: tuple[str, ...]
    proxy_pids: tuple[int, ...] = ()
    server_pid: int = 0
    refuses: Mapping[str, str] = field(default_factory=dict)  # a trait of a work -> why not


@dataclass(frozen=True)
class Work:
    """What is done over each of `ways`; our own begin with `weftkit`."""

    name: str
    unit: str
    run: Callable[[Way, int], Measured]
    ways: tuple[str, ...]
    trait: str = ""


@dataclass(frozen=True)
class Sample:
    """One round's figures of one way; times in microseconds of CPU a request."""

    per_second: float
    proxy_us: float
    server_us: float
    client_us: float
    others_cores: float


@dataclass
class Track:
    """All samples of one way, or why there are none."""

    name: str
    samples: dict[int, Sample] = field(default_factory=dict)  # by the number of the round
    absence: str = ""

    def median(self, figure: str) -> float:
        """Return the median of one figure over the rounds."""
        return statistics.median(getattr(sample, figure) for sample in self.samples.values())

    def ratio(self, other: Track, figure: str) -> float | None:
        """Return the median over the rounds of our figure divided by the other's."""
        ratios = [
            getattr(mine, figure) / getattr(theirs, figure)
            for number, mine in self.samples.items()
            if (theirs := other.samples.get(number)) and getattr(theirs, figure)
        ]
        return statistics.median(ratios) if ratios else None

    @property
    def is_disturbed(self) -> bool:
        """Say whether others kept the machine busy in most of the rounds."""
        return self.median("others_cores") > OTHERS_CORES_MAX


def sampled(work: Work, way: Way, seconds: int) -> Sample:
    """Run the work once over one way. Raises CalledProcessError if the generator fails."""
    before = _clocks(way)
    measured = work.run(way, seconds)
    wall, total, client, proxy, server = (
        after - then for after, then in zip(_clocks(way), before, strict=True)
    )
    each = 1e6 / measured.requests
    return Sample(
        measured.per_second, proxy * each, server * each, client * each,
        max(0.0, (total - client - proxy - server) / wall),
    )  # fmt: skip


def _clocks(way: Way) -> tuple[float, ...]:
    return (
        time.monotonic(),
        machine.machine_cpu_seconds(),
        machine.client_cpu_seconds(),
        machine.cpu_seconds(way.proxy_pids),
        machine.family_cpu_seconds(way.server_pid) if way.server_pid else 0.0,
    )


def contest(
    work: Work, way_of: Callable[[str], Way], *, rounds: int, seconds: int
) -> Sequence[Track]:
    """Run the work over all of its ways; a way that fails once is out."""
    tracks = [Track(name) for name in work.ways]
    ways: list[tuple[Track, Way]] = []
    for track in tracks:
        try:
            way = way_of(track.name)
        except AbsentError as absence:
            track.absence = _why(absence)
            continue
        if work.trait in way.refuses:
            track.absence = f"skipped: {way.refuses[work.trait]}"
            continue
        ways.append((track, way))
    for number in range(rounds):
        for track, way in ways if number % 2 == 0 else reversed(ways):
            if track.absence:
                continue
            try:
                track.samples[number] = sampled(work, way, seconds)
            except NothingDoneError:
                continue
            except (AbsentError, subprocess.CalledProcessError) as error:
                track.absence = _why(error)
    for track in tracks:
        if not track.samples and not track.absence:
            track.absence = "nothing was done in any round: the machine is too busy"
    return tracks


def _why(error: AbsentError | subprocess.CalledProcessError) -> str:
    if isinstance(error, AbsentError):
        return f"skipped: {error}"
    lines = [line for line in (error.stderr or "").splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or "FATAL" in line]
    return f"fails: {(telling or lines or [str(error)])[0].strip()[:160]}"

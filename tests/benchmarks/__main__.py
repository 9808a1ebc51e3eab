"""Ratios of the data plane against its peers, each pair measured in one run.

    make bench

Nothing here asserts: absolute figures drift with the machine, ratios can be compared. Each line
names the path through the data plane, its peer, and the CPU that the data plane used a request.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import postgres, redis
from tests.benchmarks.measure import Pair
from tests.stack import Stack, run_stack


@dataclass(frozen=True)
class Row:
    """One measured pair."""

    name: str
    through_per_second: float
    peer: str
    peer_per_second: float
    cpu_us: float


def cpu_seconds(stack: Stack) -> float:
    """Return the CPU seconds that all data-plane workers have used."""
    ticks = 0
    for pid in stack.processes("dataplane.worker"):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(stack: Stack, pair: Pair) -> Row:
    """Measure the peer's path and the path through the data plane, one after the other."""
    other = pair.other()
    before = cpu_seconds(stack)
    through = pair.through()
    cpu_us = (cpu_seconds(stack) - before) / through.requests * 1e6
    return Row(pair.name, through.per_second, pair.peer, other.per_second, cpu_us)


def main() -> None:
    """Start a stack, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=8)
    arguments = parser.parse_args()
    with run_stack(WEFTKIT_WORKERS="1") as stack:
        for measurement in (*postgres.MEASUREMENTS, *redis.MEASUREMENTS):
            with measurement(stack, arguments.seconds) as pair:
                if pair is not None:
                    report(measured(stack, pair))


def report(row: Row) -> None:
    """Print one row."""
    sys.stdout.write(
        f"{row.name:34} {row.through_per_second:10.0f}/s   {row.peer:10} "
        f"{row.peer_per_second:10.0f}/s   ratio {row.through_per_second / row.peer_per_second:5.2f}"
        f"   {row.cpu_us:6.1f} us CPU\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()

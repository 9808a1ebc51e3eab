"""The bound on connections over several workers: exact, and free again after a death."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dataplane.limits.connections import ConnectionCounts
from dataplane.observe.meter import Meter

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"
ROOT = Path(__file__).resolve().parents[3]

# A worker that holds three connections of instance ONE and then waits to be killed.
HOLDING = f"""
import sys, pathlib
from dataplane.limits.connections import ConnectionCounts
from dataplane.observe.meter import Meter
meter = Meter(pathlib.Path(sys.argv[1]), "child", 1.0)
slot = meter.slot({ONE!r}, "line", 1.0)
for _ in range(3):
    assert ConnectionCounts(meter).open({ONE!r}, slot, 5)
print("holding", flush=True)
sys.stdin.read()
"""


def opened(meter: Meter, counts: ConnectionCounts, instance_id: str, bound: int) -> int:
    """Open connections until one is refused; return how many were admitted."""
    slot = meter.slot(instance_id, "line", 1.0)
    number = 0
    while counts.open(instance_id, slot, bound):
        number += 1
    return number


def test_one_worker_admits_exactly_the_bound(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "a", 1.0)
    counts = ConnectionCounts(meter)
    assert opened(meter, counts, ONE, 5) == 5
    counts.close(meter.slot(ONE, "line", 1.0))
    assert opened(meter, counts, ONE, 5) == 1
    assert opened(meter, counts, TWO, 2) == 2


def test_a_changed_bound_counts_at_the_next_sign_in(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "a", 1.0)
    counts = ConnectionCounts(meter)
    assert opened(meter, counts, ONE, 2) == 2
    assert opened(meter, counts, ONE, 3) == 1
    assert opened(meter, counts, ONE, 1) == 0


def test_workers_share_the_bound_and_the_dead_leave_it(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"holding\n"
        meter = Meter(tmp_path, "a", 1.0)
        counts = ConnectionCounts(meter)
        assert opened(meter, counts, ONE, 5) == 2
        assert opened(meter, counts, TWO, 5) == 5
        child.kill()
        child.wait()
    assert opened(meter, counts, ONE, 5) == 3


def test_a_worker_that_stopped_in_order_leaves_nothing(tmp_path: Path) -> None:
    first = Meter(tmp_path, "a", 1.0)
    assert opened(first, ConnectionCounts(first), ONE, 3) == 3
    second = Meter(tmp_path, "b", 1.0)
    counts = ConnectionCounts(second)
    assert opened(second, counts, ONE, 3) == 0
    ConnectionCounts(first).close(first.slot(ONE, "line", 1.0))
    assert opened(second, counts, ONE, 3) == 1
    first.close(2.0)
    assert opened(second, counts, ONE, 3) == 2

"""Counting exactly once, whatever is killed when: counter files, spool files, collection."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dataplane.observe import counters as counter_files
from dataplane.observe.counters import (
    BYTES_IN_WORD,
    CONNECTIONS_WORD,
    COUNTER_WORD,
    COUNTERS,
    CounterFile,
)
from dataplane.observe.meter import SPOOL_FILES_MAX, Meter, UsageRow
from engines.kit.ports import RequestClass
from tests.servers import wait_until

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"
ROOT = Path(__file__).resolve().parents[3]

# A worker that counts reads as fast as it can, tells how many, and spools all the time.
COUNTING = f"""
import sys, pathlib
from dataplane.observe.meter import Meter
from dataplane.observe.counters import COUNTER_WORD
meter = Meter(pathlib.Path(sys.argv[1]), "child", 1.0)
slot = meter.slot({ONE!r}, "line", 1.0)
tell = open(sys.argv[2], "r+b", buffering=0)
number = 0
while True:
    number += 1
    slot.cells[slot.base + COUNTER_WORD + 1] += 1
    if number % 7 == 0:
        meter.spool(float(number))
    # After the count: what is told has been counted, at most one more has.
    tell.seek(0)
    tell.write(number.to_bytes(8, "big"))
"""


def delivered(meter: Meter) -> Counter[str]:
    """Deliver every spool file twice, as a killed outbox would, into rows by key."""
    rows: dict[str, UsageRow] = {}
    for _ in range(2):
        for path in meter.deliverable():
            for row in meter.read(path):
                assert rows.setdefault(row.key, row) == row
    for path in meter.deliverable():
        path.unlink()
    total: Counter[str] = Counter()
    for row in rows.values():
        assert row.started_at <= row.stopped_at
        total.update(dict(zip(COUNTERS, row.counts, strict=True)))
    return total


def test_the_first_words_follow_the_request_classes() -> None:
    assert COUNTERS[:4] == tuple(
        request_class.name.lower() for request_class in sorted(RequestClass)
    )


def test_deltas_leave_once_and_add_up(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "test", 10.0)
    one, two = meter.slot(ONE, "line", 10.0), meter.slot(TWO, "line", 10.0)
    assert meter.slot(ONE, "line", 11.0) is one
    one.cells[one.base + COUNTER_WORD + RequestClass.READ] += 3
    two.cells[two.base + BYTES_IN_WORD] += 100
    meter.spool(20.0)
    meter.spool(21.0)
    one.cells[one.base + COUNTER_WORD + RequestClass.READ] += 4
    meter.spool(30.0)
    rows = [row for path in meter.deliverable() for row in meter.read(path)]
    assert [(row.instance_id, row.started_at, row.stopped_at) for row in rows] == [
        (ONE, 10.0, 20.0), (TWO, 10.0, 20.0), (ONE, 20.0, 30.0),
    ]  # fmt: skip
    assert [row.counts[RequestClass.READ] for row in rows] == [3, 0, 4]
    assert len({row.key for row in rows}) == 3
    assert {row.source for row in rows} == {"test"}


def test_a_refund_after_its_unit_was_spooled_is_held_until_outweighed(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "test", 1.0)
    slot = meter.slot(ONE, "line", 1.0)
    read = slot.base + COUNTER_WORD + RequestClass.READ
    slot.cells[read] += 1
    meter.spool(2.0)
    slot.cells[read] -= 1
    meter.spool(3.0)
    assert len(meter.deliverable()) == 1
    slot.cells[read] += 3
    meter.spool(4.0)
    assert delivered(meter)["read"] == 3


def test_a_refund_that_nothing_outweighs_leaves_with_the_worker(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "test", 1.0)
    slot = meter.slot(ONE, "line", 1.0)
    slot.cells[slot.base + COUNTER_WORD + RequestClass.READ] += 1
    meter.spool(2.0)
    slot.cells[slot.base + COUNTER_WORD + RequestClass.READ] -= 1
    meter.close(3.0)
    assert delivered(Meter(tmp_path, "next", 4.0))["read"] == 0


def test_open_connections_are_no_usage(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "test", 1.0)
    slot = meter.slot(ONE, "line", 1.0)
    slot.cells[slot.base + CONNECTIONS_WORD] += 1
    meter.spool(2.0)
    assert meter.deliverable() == []


def test_a_full_counter_file_is_followed_by_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter_files, "SLOTS_MAX", 1)
    meter = Meter(tmp_path, "test", 1.0)
    for instance_id in (ONE, TWO):
        slot = meter.slot(instance_id, "line", 1.0)
        slot.cells[slot.base + COUNTER_WORD] += 1
    assert len(meter.own_paths) == 2
    meter.spool(2.0)
    assert delivered(meter)["unlimited"] == 2


def test_undelivered_spool_files_are_bounded_and_nothing_is_lost(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "test", 1.0)
    slot = meter.slot(ONE, "line", 1.0)
    for number in range(SPOOL_FILES_MAX * 2):
        slot.cells[slot.base + COUNTER_WORD] += 1
        meter.spool(2.0 + number)
    assert len(meter.deliverable()) == SPOOL_FILES_MAX
    total = delivered(meter)
    meter.spool(1000.0)
    assert (total + delivered(meter))["unlimited"] == SPOOL_FILES_MAX * 2


def test_a_living_workers_files_are_left_alone(tmp_path: Path) -> None:
    living, other = Meter(tmp_path, "living", 1.0), Meter(tmp_path, "other", 1.0)
    slot = living.slot(ONE, "line", 1.0)
    slot.cells[slot.base + COUNTER_WORD] += 1
    living.spool(2.0)
    other.collect(3.0)
    assert other.deliverable() == []
    assert len(living.deliverable()) == 1
    assert all(path.exists() for path in living.own_paths)


def killed_worker(directory: Path, tmp_path: Path, count_min: int) -> int:
    """Run the counting worker, SIGKILL it, and return the last number that it told."""
    told = tmp_path / "told"
    told.write_bytes(bytes(8))
    child = subprocess.Popen([sys.executable, "-c", COUNTING, str(directory), str(told)], cwd=ROOT)
    try:
        wait_until(
            lambda: int.from_bytes(told.read_bytes(), "big") > count_min, "the worker counts"
        )
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    return int.from_bytes(told.read_bytes(), "big")


@pytest.mark.parametrize("count_min", [1, 50, 75])
def test_sigkill_of_a_counting_worker_loses_and_doubles_nothing(
    tmp_path: Path, count_min: int
) -> None:
    directory = tmp_path / "usage"
    told = killed_worker(directory, tmp_path, count_min)
    meter = Meter(directory, "collector", 1e9)
    meter.collect(1e9)
    meter.collect(1e9)
    assert told <= delivered(meter)["read"] <= told + 1
    assert set(directory.glob("*.counters")) == meter.own_paths


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Let the next call of a step end the process, as SIGKILL would."""
    monkeypatch.setattr(owner, name, lambda *_: os._exit(9))


@pytest.mark.parametrize("point", ["before_spool", "after_spool", "amid_watermarks", "delivered"])
def test_a_worker_that_dies_between_two_steps_is_counted_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    child = os.fork()
    if child == 0:
        _die_at(tmp_path, monkeypatch, point)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    taken = json.loads((tmp_path / "taken").read_text()) if point == "delivered" else {}
    meter = Meter(tmp_path, "collector", 1e9)
    meter.collect(1e9)
    rows = {row.key: row for path in meter.deliverable() for row in meter.read(path)}
    # ON CONFLICT DO NOTHING: the same key is the same row.
    counts = {key: row.counts[RequestClass.READ] for key, row in rows.items()} | taken
    assert sum(counts.values()) == 12


def _die_at(directory: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    from dataplane.observe import meter as meter_module

    meter = Meter(directory, "child", 1.0)
    slot = meter.slot(ONE, "line", 1.0)
    slot.cells[slot.base + COUNTER_WORD + RequestClass.READ] += 5
    meter.spool(2.0)
    slot.cells[slot.base + COUNTER_WORD + RequestClass.READ] += 7
    if point == "before_spool":
        stop_at(monkeypatch, meter_module, "write_durably")
    elif point == "after_spool":
        stop_at(monkeypatch, CounterFile, "advance")
    elif point == "amid_watermarks":
        advance = CounterFile.advance

        def torn(self: CounterFile, sequence: int, at: float, reached: dict[int, object]) -> None:
            """Write the watermarks, but not the sequence that makes them valid."""
            advance(self, self.spooled_sequence, at, reached)  # type: ignore[arg-type]
            os._exit(9)

        monkeypatch.setattr(CounterFile, "advance", torn)
    meter.spool(3.0)
    # Inserted, and killed before the spool files were removed.
    rows = [row for path in meter.deliverable() for row in meter.read(path)]
    taken = {row.key: row.counts[RequestClass.READ] for row in rows}
    (directory / "taken").write_text(json.dumps(taken))
    os._exit(9)

"""Audit events: durable before they leave, bounded in number and in rate."""

from __future__ import annotations

import json
from pathlib import Path

from dataplane.observe import audit
from dataplane.observe.audit import ALIKE_MAX, WAITING_MAX, WINDOW_SECONDS, AuditTrail
from tests.dataplane.plane import instance

RECORD = instance()


class SteppedClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def emit(trail: AuditTrail, address: str = "10.0.0.1") -> None:
    trail.emit(
        "weftkit.line.session.start",
        record=RECORD,
        initiator="wk_aaaaaaaaaaaa",
        address=address,
        outcome="failure",
        reason_code=401,
    )


def events(trail: AuditTrail) -> list[dict[str, object]]:
    return [
        json.loads(body)
        for path in sorted(trail.deliverable(), key=lambda path: path.stat().st_mtime_ns)
        for _, body in trail.read(path)
    ]


def test_an_event_says_who_what_where_and_how_it_ended(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path, SteppedClock())
    emit(trail)
    trail.spool()
    (event,) = events(trail)
    assert event["action"] == "weftkit.line.session.start"
    assert (event["outcome"], event["reason_code"]) == ("failure", 401)
    assert (event["initiator"], event["address"]) == ("wk_aaaaaaaaaaaa", "10.0.0.1")
    assert (event["instance_id"], event["tenant_id"]) == (RECORD.instance_id, RECORD.tenant_id)
    assert event["at"] == 1000.0


def test_alike_events_are_cut_and_the_next_one_tells_how_many(tmp_path: Path) -> None:
    clock = SteppedClock()
    trail = AuditTrail(tmp_path, clock)
    for _ in range(ALIKE_MAX + 7):
        emit(trail)
    emit(trail, address="10.0.0.2")
    clock.time += WINDOW_SECONDS
    emit(trail)
    emit(trail)
    trail.spool()
    told = [(event["address"], event["alike_left_out"]) for event in events(trail)]
    assert told == [
        *[("10.0.0.1", 0)] * ALIKE_MAX,
        ("10.0.0.2", 0),
        ("10.0.0.1", 7),
        ("10.0.0.1", 0),
    ]


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path, SteppedClock())
    for number in range(WAITING_MAX + 5):
        emit(trail, address=str(number))
    trail.spool()
    assert len(events(trail)) == min(WAITING_MAX, audit.ALIKE_KEYS_MAX)


def test_events_wait_in_memory_while_the_spool_is_full(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path, SteppedClock())
    for number in range(audit.SPOOL_FILES_MAX):
        (tmp_path / f"{number}.json").write_text("[]")
    emit(trail)
    trail.spool()
    assert events(trail) == []
    (tmp_path / "0.json").unlink()
    trail.spool()
    assert len(events(trail)) == 1


def test_a_spool_file_that_another_worker_removed_is_empty(tmp_path: Path) -> None:
    assert AuditTrail(tmp_path, SteppedClock()).read(tmp_path / "gone.json") == []


def test_what_the_database_cannot_store_is_replaced(tmp_path: Path) -> None:
    """A client may call itself anything before it has proven who it is."""
    trail = AuditTrail(tmp_path, SteppedClock())
    trail.emit(
        "weftkit.line.session.start", record=RECORD, initiator="a\0b\udcffc", address="10.0.0.1",
        outcome="failure", reason_code=401,
    )  # fmt: skip
    trail.spool()
    assert [event["initiator"] for event in events(trail)] == ["a?b?c"]

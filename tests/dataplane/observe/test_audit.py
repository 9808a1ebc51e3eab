"""Audit events: durable before they leave, bounded in number and in rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataplane.observe import audit
from dataplane.observe.audit import ALIKE_MAX, WAITING_MAX, WINDOW_SECONDS, AuditTrail
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import RequestClass
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


def test_what_was_done_to_different_targets_is_not_alike(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path, SteppedClock())
    for outcome, code in (("success", 200), ("failure", 404)):
        for number in range(ALIKE_MAX * 3):
            trail.emit(
                "weftkit.line.table.create", record=RECORD, initiator="wk_a", address="10.0.0.1",
                outcome=outcome, reason_code=code, target=f"tables/{number}",
            )  # fmt: skip
    trail.spool()
    outcomes = [event["outcome"] for event in events(trail)]
    # Names are a client's to choose: with those that failed it could fill the trail.
    assert outcomes == ["success"] * ALIKE_MAX * 3 + ["failure"] * ALIKE_MAX


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


def drops(trail: AuditTrail) -> list[tuple[object, object, object]]:
    return [
        (event["count"], event["why"], event["address"])
        for event in events(trail)
        if str(event["action"]).endswith(".event.drop")
    ]


def test_what_was_left_out_and_nobody_told_is_an_event_of_its_own(tmp_path: Path) -> None:
    clock = SteppedClock()
    trail = AuditTrail(tmp_path, clock)
    for _ in range(ALIKE_MAX + 7):
        emit(trail)
    for _ in range(2):
        clock.time += WINDOW_SECONDS
        trail.collect()
    trail.spool()
    assert drops(trail) == [(7, "alike", "10.0.0.1")]
    clock.time += WINDOW_SECONDS
    trail.collect()
    trail.spool()
    assert len(drops(trail)) == 1


def test_what_was_lost_for_want_of_room_is_told_once_there_is_room(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path, SteppedClock())
    for number in range(WAITING_MAX + 5):
        emit(trail, address=str(number))
    trail.collect()
    trail.spool()
    assert drops(trail) == []
    trail.collect()
    trail.spool()
    assert drops(trail) == [(5, "no room", "")]


def test_data_events_are_exact_counts_by_connection_class_and_outcome(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path, SteppedClock())
    watches = [trail.watch(RECORD, f"wk_{name}", "10.0.0.1") for name in "ab"]
    for watch in watches:
        for _ in range(3):
            watch.note(RequestClass.READ, 2)
    watches[0].note(RequestClass.WRITE, 1)
    watches[0].note(RequestClass.WRITE, -1)
    watches[1].note(RequestClass.WRITE, 4, RequestError(Reason.RATE, "too many"))
    watches[1].note(RequestClass.WRITE, 4, RequestError(Reason.QUOTA, "too much"))
    trail.collect()
    trail.spool()
    told = [
        (event["initiator"], event["action"], event["reason_code"], event["units"])
        for event in events(trail)
    ]
    read, write = "weftkit.line.statement.read", "weftkit.line.statement.write"
    assert told == [
        ("wk_a", read, 200, 6), ("wk_b", read, 200, 6), ("wk_b", write, 429, 4),
        ("wk_b", write, 402, 4),
    ]  # fmt: skip
    assert all(event["is_data_event"] for event in events(trail))
    trail.collect()
    trail.spool()
    assert len(events(trail)) == 4


def test_what_is_taken_back_after_it_was_told_is_taken_off_the_next(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path, SteppedClock())
    watch = trail.watch(RECORD, "wk_a", "10.0.0.1")
    watch.note(RequestClass.READ, 5)
    trail.collect()
    watch.note(RequestClass.READ, -2)
    trail.collect()
    watch.note(RequestClass.READ, 5)
    trail.collect()
    trail.spool()
    assert [event["units"] for event in events(trail)] == [5, 3]


def test_data_events_wait_as_counts_while_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "WAITING_DATA_MAX", 2)
    trail = AuditTrail(tmp_path, SteppedClock())
    watches = [trail.watch(RECORD, f"wk_{number}", "10.0.0.1") for number in range(5)]
    told = 0
    for _ in range(3):
        for watch in watches:
            watch.note(RequestClass.READ, 1)
            told += 1
        trail.collect()
        trail.spool()
    for _ in range(3):
        trail.collect()
        trail.spool()
    assert sum(int(str(event["units"])) for event in events(trail)) == told
    # And sign-ins are heard meanwhile.
    for watch in watches:
        watch.note(RequestClass.READ, 1)
    trail.collect()
    emit(trail)
    trail.spool()
    assert "weftkit.line.session.start" in {event["action"] for event in events(trail)}


def test_a_connection_too_many_is_told_as_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "WATCHES_MAX", 1)
    trail = AuditTrail(tmp_path, SteppedClock())
    for number in range(3):
        trail.watch(RECORD, f"wk_{number}", "10.0.0.1").note(RequestClass.READ, 1)
    trail.collect()
    trail.spool()
    assert drops(trail) == [(2, "no room", "")]

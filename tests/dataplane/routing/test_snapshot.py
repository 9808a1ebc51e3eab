"""The last known good on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataplane.routing import snapshot
from dataplane.routing.snapshot import SnapshotError
from dataplane.routing.table import Entry
from tests.dataplane.plane import instance, key


def entry() -> Entry:
    alice, _ = key(cidrs=("10.0.0.0/8",))
    record = instance(alice, allowlist=("10.0.0.0/8",))
    return Entry(record, json.dumps(record.to_json(), indent=1))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    entries = [entry(), entry()]
    snapshot.write(tmp_path / "deep", entries)
    read = snapshot.read(tmp_path / "deep")
    assert [each.record for each in read] == [each.record for each in entries]


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    snapshot.write(tmp_path, [entry()])
    assert (tmp_path / snapshot.FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [snapshot.FILE_NAME]


def test_no_snapshot_is_no_records(tmp_path: Path) -> None:
    assert snapshot.read(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["", '{"format": 99}\n', "[]\n", '{"format": 1}\n{"no": "record"}\n', "{", "x\ny\n"]
)
def test_a_damaged_snapshot_is_refused_as_a_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / snapshot.FILE_NAME).write_text(text)
    with pytest.raises(SnapshotError):
        snapshot.read(tmp_path)


def test_records_of_a_newer_control_plane_are_read() -> None:
    record = instance()
    newer = {**record.to_json(), "colour": "blue"}
    newer["limits"] = {**newer["limits"], "flops": 3}
    assert snapshot.read_record(json.dumps(newer)).record == record


@pytest.mark.parametrize("body", ["{}", "[]", "3", "null", '{"status": "active"}'])
def test_what_is_no_record_is_a_value_error(body: str) -> None:
    with pytest.raises(ValueError, match=r"record|status"):
        snapshot.read_record(body)

"""From counters to usage records, each exactly once, whatever is killed when.

    1. the deltas of a counter file go into the spool file `<uid>-<sequence>.json` (fsync, rename);
    2. the counter file's watermarks advance to what that file says, then its sequence (msync);
    3. the outbox inserts the records; their keys `<uid>-<sequence>-<slot>` make that repeatable;
    4. the spool file is removed.

Killed before 1 is complete: the counters still hold it all. Between 1 and 2: whoever collects the
counter file finds the spool file one ahead of it and first repeats step 2. Between 3 and 4: the
insert is repeated and does nothing. Only the owner of a counter file, or whoever holds the lock of
a dead one, touches its spool files, so step 4 never comes before step 2.

While nothing can be delivered, few spool files are made: the counters keep counting, in any case.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataplane.files import UNNAMED_SUFFIX, write_durably
from dataplane.observe import metrics
from dataplane.observe.counters import COUNTERS, SUFFIX, CounterFile, Delta, Slot

# Undelivered spool files of one counter file; beyond that the counters alone carry the usage.
SPOOL_FILES_MAX = 16
UNNAMED_SECONDS_MAX = 600.0
_SPOOL_NAME = re.compile(r"([0-9a-f]{32})-([0-9]+)\.json")
_CLASSES = COUNTERS[:4]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One row of `publish.usage_intake`; `counts` in the order of COUNTERS."""

    key: str
    instance_id: str
    source: str
    started_at: float
    stopped_at: float
    counts: tuple[int, ...]


class Meter:
    """Counter files and spool of one worker. Slots on the loop; the rest in a thread, one call at
    a time."""

    def __init__(self, directory: Path, source: str, now: float) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self._source = source
        self._slots: dict[str, Slot] = {}
        self._files = [CounterFile.create(directory, now)]

    @property
    def own_paths(self) -> set[Path]:
        """The counter files of this worker."""
        return {file.path for file in self._files}

    def slot(self, instance_id: str, engine: str, now: float) -> Slot:
        """Return where the instance is counted in this worker."""
        slot = self._slots.get(instance_id)
        if slot is None:
            slot = self._files[-1].allocate(instance_id, engine)
            if slot is None:
                self._files.append(CounterFile.create(self.directory, now))
                slot = self._files[-1].allocate(instance_id, engine)
                assert slot is not None
            self._slots[instance_id] = slot
        return slot

    def spool(self, now: float) -> None:
        """Move what was counted since the last call into spool files (steps 1 and 2)."""
        for file in list(self._files):
            if len(self._spool_files(file.uid)) < SPOOL_FILES_MAX:
                self._spool_file(file, now, is_final=False)

    def collect(self, now: float) -> None:
        """Spool what dead workers left and remove their counter files."""
        own = self.own_paths
        for path in self.directory.glob(f"*{SUFFIX}"):
            file = None if path in own else CounterFile.open(path)
            if file is None:
                continue
            if file.try_lock():
                self._reconcile(file)
                self._spool_file(file, now, is_final=True)
                path.unlink(missing_ok=True)
            file.close()
        for path in self.directory.glob(f"*{UNNAMED_SUFFIX}"):
            # Left by a process that was killed before the rename; no living one takes so long.
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime > UNNAMED_SECONDS_MAX:
                    path.unlink()

    def deliverable(self) -> list[Path]:
        """Return the spool files that may be delivered and removed, oldest first."""
        own = {file.uid for file in self._files}
        living = {path.stem for path in self.directory.glob(f"*{SUFFIX}")} - own
        files = [path for path in self._spool_files() if path.name[:32] not in living]
        metrics.SPOOLED.set(len(files))
        return sorted(files, key=_order)

    def read(self, path: Path) -> list[UsageRow]:
        """Return the rows of one spool file; none if another worker removed it."""
        try:
            body = json.loads(path.read_bytes())
        except FileNotFoundError:
            return []
        return [
            UsageRow(
                f"{path.stem}-{row['slot']}", row["instance_id"], body["source"],
                body["started_at"], body["stopped_at"], tuple(row["counts"]),
            )
            for row in body["rows"]
        ]  # fmt: skip

    def close(self, now: float) -> None:
        """Spool the rest; the counter files are left to `collect` only if that fails."""
        for file in self._files:
            self._spool_file(file, now, is_final=True)
            file.path.unlink(missing_ok=True)

    def _spool_files(self, uid: str = "*") -> list[Path]:
        return [
            path
            for path in self.directory.glob(f"{uid}-*.json")
            if _SPOOL_NAME.fullmatch(path.name)
        ]

    def _spool_file(self, file: CounterFile, now: float, *, is_final: bool) -> None:
        deltas = file.deltas(is_final=is_final)
        if not deltas:
            return
        sequence = file.spooled_sequence + 1
        body = {
            "source": self._source,
            "started_at": file.spooled_at,
            "stopped_at": now,
            "rows": [
                {
                    "slot": delta.index,
                    "instance_id": delta.instance_id,
                    "counts": delta.counts,
                    "reached": delta.reached,
                }
                for delta in deltas
            ],
        }
        write_durably(self.directory / f"{file.uid}-{sequence}.json", json.dumps(body).encode())
        file.advance(sequence, now, {delta.index: delta.reached for delta in deltas})
        _count(deltas)

    def _reconcile(self, file: CounterFile) -> None:
        """Repeat step 2 for a worker that was killed right after step 1."""
        sequence = file.spooled_sequence + 1
        path = self.directory / f"{file.uid}-{sequence}.json"
        try:
            body = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        reached = {row["slot"]: tuple(row["reached"]) for row in body["rows"]}
        file.advance(sequence, body["stopped_at"], reached)


def _order(path: Path) -> tuple[str, int]:
    match = _SPOOL_NAME.fullmatch(path.name)
    assert match is not None
    return match[1], int(match[2])


def _count(deltas: Sequence[Delta]) -> None:
    """Show the same figures as metrics; a late refund cannot lower a Prometheus counter."""
    for delta in deltas:
        counts = dict(zip(COUNTERS, delta.counts, strict=True))
        for name in _CLASSES:
            metrics.UNITS.labels(delta.engine, name, "admitted").inc(max(0, counts[name]))
        metrics.UNITS.labels(delta.engine, "all", "refused").inc(max(0, counts["refused"]))
        metrics.BYTES.labels(delta.engine, "in").inc(max(0, counts["bytes_in"]))
        metrics.BYTES.labels(delta.engine, "out").inc(max(0, counts["bytes_out"]))

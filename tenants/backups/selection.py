"""What a restore needs, and to which moments one is possible: chains of backups, and the log.

    full ─► incremental ─► incremental          each is a moment that can be restored
              └─ segment, segment, segment ...  and with the log after it any second

Names of WAL segments sort as the log goes on (timeline, then position); a name that is missing is
a gap, over which nothing can be replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from django.db.models import QuerySet

from tenants.backups.models import (
    Backup,
    BackupKind,
    BackupOrigin,
    BackupSchedule,
    BackupState,
    StoredFile,
    WalSegment,
)
from tenants.core.errors import ConflictError
from tenants.instances.models import Instance

SEGMENT_NAME_CHARACTERS = 24  # others are histories of timelines
# A name counts segments in two words of eight digits; the lower one goes up to 4 GiB of log.
WORD_BYTES = 2**32
# What backups say that were made before hosts told the size.
SEGMENT_BYTES_BEFORE = 4 * 1024 * 1024
SEGMENTS_MAX = 100_000
BASES_MAX = 1000
INCREMENTALS_MAX = 30  # of one full backup: a restore reads all of them


@dataclass(frozen=True, slots=True)
class Range:
    """Every second from `start` to `stop`, both included, can be restored."""

    start: datetime
    stop: datetime


@dataclass(frozen=True, slots=True)
class Window:
    """To which moments an instance can be restored, oldest first, and what is missing between."""

    ranges: Sequence[Range]
    gaps: Sequence[Range]


def chain_of(backup: Backup) -> list[Backup]:
    """Return a backup with all that it builds on, the full one first."""
    chain = [backup]
    while chain[0].parent is not None:
        chain.insert(0, chain[0].parent)
    return chain


def parent_for(instance: Instance) -> Backup | None:
    """Return the backup that an incremental one would build on; None: it must be a full one."""
    last = _bases(instance).last()
    if last is None or len(chain_of(last)) > INCREMENTALS_MAX:
        return None
    return last


def files_to_restore(*, backup: Backup, target: datetime | None) -> list[StoredFile]:
    """Return the files that are needed, in the order in which the host wants them.

    Raises ConflictError where the log does not reach from the backup to `target`.
    """
    files = [file for each in chain_of(backup) for file in each.files.filter(role="data")]
    if target is None:
        return files
    segments = _run(backup)
    needed: list[WalSegment] = []
    for segment in segments:
        needed.append(segment)
        if segment.closed_at is not None and segment.closed_at >= target:
            break
    else:
        if target > _end(backup, segments):
            raise ConflictError("the log does not reach this moment", code="not_in_window")
    return [*files, *(segment.file for segment in needed)]


def base_for(*, instance: Instance, target: datetime) -> Backup:
    """Return the newest backup from which the log reaches `target`. Raises ConflictError."""
    for base in _bases(instance).filter(covers_to__lte=target).reverse():
        if target <= _end(base, _run(base)):
            return base
    raise ConflictError("the instance cannot be restored to this moment", code="not_in_window")


def window_of(*, instance: Instance) -> Window:
    """Return to which moments an instance can be restored."""
    segments = _segments(instance)
    ranges: list[Range] = []
    for base in _bases(instance):
        assert base.covers_to is not None
        end = _end(base, _run_in(base, segments))
        if ranges and base.covers_to <= ranges[-1].stop:
            ranges[-1] = Range(ranges[-1].start, max(end, ranges[-1].stop))
        else:
            ranges.append(Range(base.covers_to, end))
    gaps = [Range(before.stop, after.start) for before, after in pairwise(ranges)]
    return Window(ranges, gaps)


def next_name(name: str, segment_bytes: int) -> str:
    """Return the name of the segment that follows, of an instance with segments of this size."""
    timeline, log, segment = name[:8], int(name[8:16], 16), int(name[16:], 16)
    segment += 1
    if segment == WORD_BYTES // segment_bytes:
        log, segment = log + 1, 0
    return f"{timeline}{log:08X}{segment:08X}"


def _bases(instance: Instance) -> QuerySet[Backup]:
    return (
        Backup.objects.filter(
            instance=instance,
            state=BackupState.READY,
            kind__in=[BackupKind.FULL, BackupKind.INCREMENTAL],
        )
        .exclude(origin=BackupOrigin.CLONE)
        .select_related("parent")
        .order_by("covers_to")
    )


def _segments(instance: Instance) -> list[WalSegment]:
    """Return the stored segments, oldest first."""
    found = WalSegment.objects.filter(instance=instance, is_stored=True).select_related("file")
    return [
        segment
        for segment in found.order_by("name")[:SEGMENTS_MAX]
        if len(segment.name) == SEGMENT_NAME_CHARACTERS
    ]


def _run(base: Backup) -> list[WalSegment]:
    return _run_in(base, _segments(base.instance))


def _run_in(base: Backup, segments: Sequence[WalSegment]) -> list[WalSegment]:
    """Return the segments that follow a backup without a gap."""
    wanted = str(base.facts.get("stop_segment", ""))
    segment_bytes = int(base.facts.get("wal_segment_bytes", SEGMENT_BYTES_BEFORE))
    run = []
    for segment in segments:
        if segment.name < wanted:
            continue
        if segment.name != wanted:
            break
        run.append(segment)
        wanted = next_name(segment.name, segment_bytes)
    return run


def _end(base: Backup, run: Sequence[WalSegment]) -> datetime:
    """Return the last moment that a backup and the log after it cover."""
    assert base.covers_to is not None
    end = base.covers_to
    if run and run[-1].closed_at is not None:
        end = max(end, run[-1].closed_at)
    newest = WalSegment.objects.filter(instance_id=base.instance_id).order_by("name").last()
    if run and newest is not None and newest.name == run[-1].name:
        schedule = BackupSchedule.objects.filter(instance_id=base.instance_id).first()
        if schedule is not None and schedule.archived_until is not None:
            end = max(end, schedule.archived_until)
    return end

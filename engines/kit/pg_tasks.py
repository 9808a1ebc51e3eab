"""What the tasks of relational instances take and answer; `parameters` and `result` of their rows.

    kind            parameters      result          commits
    pg_base_backup  BaseBackup      BaseBackupDone  no: DONE once the files are in the depot
    pg_ship_wal     ShipWal         WalShipped      yes: commit when the files are safe elsewhere
    pg_restore      Restore         Restored        yes: commit puts the data in place
    pg_verify       Restore         Verified        no
    pg_dump         {file, format}  Stored          no; format: custom (default) | plain
    pg_load         Stored          Loaded          yes; only custom format

A failed task says why by its `code`; the ones to tell apart:

    incremental_unavailable  take a full backup instead
    file_incomplete          a file is not what it was when it was written
    backup_version           a backup of another major version of PostgreSQL than the host has
    backup_invalid           PostgreSQL finds the backup or its log damaged or incomplete
    target_unreachable       the log given does not begin where the backup ends, or has a gap
    too_large, disk_full     no room in the plan, or on the host
    not_in_service, not_ready  the instance does not run; its server cannot do it now: try again
    not_dump, dump_failed    not a dump in custom format; the server refused a statement of it

Times are ISO 8601 with offset, UTC, microseconds. Names of files are names in the depot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self

# Segments and histories of timelines; whatever else PostgreSQL archives is of no use to a restore.
WAL_NAME = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
WAL_FILES_MAX = 256  # of one pg_ship_wal
CHAIN_MAX = 64  # base backups of one restore
RESTORE_WAL_FILES_MAX = 100_000
TABLES_LISTED_MAX = 1000


def lsn_number(text: str) -> int:
    """Return the position in the log that `X/Y` names. Raises ValueError."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in the depot: its name there, its size and digest (hex)."""

    file: str
    size_bytes: int
    sha256: str

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises KeyError, TypeError, ValueError."""
        return cls(str(body["file"]), int(body["size_bytes"]), str(body["sha256"]))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BaseBackup:
    """Save all data files: a gzipped tar into `file`, the list of its files into `manifest_file`.

    With the manifest of a parent only what has changed since then.
    """

    file: str
    manifest_file: str
    parent_manifest: Stored | None = None

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> BaseBackup:
        """Read parameters. Raises KeyError, TypeError, ValueError."""
        parent = body.get("parent_manifest")
        return cls(
            str(body["file"]),
            str(body["manifest_file"]),
            None if parent is None else Stored.from_json(parent),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BaseBackupDone:
    """A base backup: consistent from `finished_at` on, which is also its earliest target.

    The WAL between its two positions is in the file, so that it can be restored without an archive;
    the archive goes on with the segment `stop_segment`.
    """

    size_bytes: int  # of `file`
    sha256: str
    unpacked_bytes: int  # of the tar before compression
    manifest_size_bytes: int
    manifest_sha256: str
    mode: str  # full | incremental
    start_lsn: str
    stop_lsn: str
    start_segment: str  # names of WAL segments
    stop_segment: str
    timeline: int
    system_identifier: str
    postgres_version: str
    started_at: str
    finished_at: str
    wal_segment_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ShipWal:
    """Copy the oldest closed segments into the depot: at most as many as there are names.

    The copies and the host's own are removed at the commit; after a cancellation only the copies.
    """

    files: tuple[str, ...]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ShipWal:
        """Read parameters. Raises KeyError, TypeError, ValueError."""
        files = tuple(str(name) for name in body["files"])
        if not 0 < len(files) <= WAL_FILES_MAX:
            raise ValueError(f"1 to {WAL_FILES_MAX} names")
        return cls(files)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"files": list(self.files)}


@dataclass(frozen=True, slots=True)
class WalFile:
    """One segment or history of a timeline, gzipped, under its name in the archive."""

    name: str
    file: str
    size_bytes: int
    sha256: str
    closed_at: str = ""  # everything committed before is in this segment or an older one

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> WalFile:
        """Read one. Raises KeyError, TypeError, ValueError."""
        name = str(body["name"])
        if not WAL_NAME.fullmatch(name):
            raise ValueError("not a name of WAL")
        stored = Stored.from_json(body)
        closed_at = str(body.get("closed_at", ""))
        return cls(name, stored.file, stored.size_bytes, stored.sha256, closed_at)


@dataclass(frozen=True, slots=True)
class WalShipped:
    """What is in the depot now, oldest first, and how many segments are left for the next task.

    `covered_until` is there when nothing is left: all that was committed before that moment is in
    these and in earlier segments.
    """

    segments: tuple[WalFile, ...]
    left: int
    covered_until: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BaseFile(Stored):
    """A base backup's file; `unpacked_bytes` and `finished_at` as its BaseBackupDone said."""

    unpacked_bytes: int = 0
    finished_at: str = ""

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> BaseFile:
        """Read one. Raises KeyError, TypeError, ValueError."""
        stored = Stored.from_json(body)
        unpacked, finished = int(body["unpacked_bytes"]), str(body["finished_at"])
        if datetime.fromisoformat(finished).tzinfo is None:
            raise ValueError("finished_at has no offset")
        return cls(stored.file, stored.size_bytes, stored.sha256, unpacked, finished)


@dataclass(frozen=True, slots=True)
class Restore:
    """A full base backup, the incremental ones up to the wanted one, and the archive since then.

    `wal` begins at or before the last backup's `stop_segment`, without gaps; with `target_time`
    its last segment is closed at or after it. Without a target all of `wal` is replayed; without
    `wal` the result is the last backup at its `finished_at`.
    """

    chain: tuple[BaseFile, ...]
    wal: tuple[WalFile, ...] = ()
    target_time: str | None = None  # everything committed at or before it

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Restore:
        """Read parameters. Raises KeyError, TypeError, ValueError."""
        chain = tuple(BaseFile.from_json(each) for each in body["chain"])
        wal = tuple(WalFile.from_json(each) for each in body.get("wal", ()))
        target = body.get("target_time")
        if not 0 < len(chain) <= CHAIN_MAX or len(wal) > RESTORE_WAL_FILES_MAX:
            raise ValueError("too many files, or none")
        if target is not None and datetime.fromisoformat(target).tzinfo is None:
            raise ValueError("target_time has no offset")
        return cls(chain, wal, target)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: with the time of the last transaction in it, where the log tells it."""

    storage_bytes: int
    last_commit_at: str | None
    timeline: int
    replayed_to: str  # LSN

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TableFacts:
    """Rows of a table and the sum of their digests, in which their order does not matter."""

    schema: str
    name: str
    rows: int
    checksum: str  # 16 hex digits


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found in the restored data; the first TABLES_LISTED_MAX tables one by one."""

    restored: Restored
    tables: int
    rows: int
    checksum: str  # of all tables; equal content has equal checksums
    blocks: int  # of all tables and indexes, each held against its own checksum
    listed: tuple[TableFacts, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a dump made."""

    tables: int
    storage_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)

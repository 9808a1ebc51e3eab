"""A task: one piece of long work that the control plane gives to an instance host by a row.

    waiting ──► running ──► done                          work that changes no instance (an export)
                   │
                   └──► prepared ──► committing ──► done  work that replaces data (an import)

The host goes from `prepared` on only when the row's wish is `commit`, and `committing` is the point
of no return: until then `cancel` leaves everything as it was. `failed` and `cancelled` are ends
too. Everything but the ends is begun again by a host that was killed, so each stage can be
repeated.

What the kinds of relational instances take and answer is in `engines/kit/pg_tasks.py`; all others
take `file` (a name in the depot), imports `size_bytes` and `sha256` too.
"""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What is to be done; each has its class in `dataplane/host/tasks.py`."""

    RDB_EXPORT = "rdb_export"
    RDB_IMPORT = "rdb_import"
    PG_BASE_BACKUP = "pg_base_backup"
    PG_SHIP_WAL = "pg_ship_wal"
    PG_RESTORE = "pg_restore"
    PG_VERIFY = "pg_verify"
    PG_DUMP = "pg_dump"
    PG_LOAD = "pg_load"


class Wish(StrEnum):
    """What the control plane wants of a task now."""

    PREPARE = "prepare"
    COMMIT = "commit"
    CANCEL = "cancel"


class State(StrEnum):
    """How far the host is."""

    WAITING = "waiting"
    RUNNING = "running"
    PREPARED = "prepared"
    COMMITTING = "committing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({State.DONE, State.FAILED, State.CANCELLED})
# From here a cancellation comes too late.
COMMITTED = frozenset({State.COMMITTING, State.DONE})

# Where the planes keep the files they hand to each other, below WEFTKIT_HOME or in object storage.
# A file is a folder of parts; each part's name is its offset, so that names sort as the bytes do.
FILES_DIRECTORY = "files"
PART_DIGITS = 16


def part_name(offset: int) -> str:
    """Return the name of the part of a file that begins at `offset` (bytes)."""
    return f"{offset:0{PART_DIGITS}d}"

"""How the data of each kind of server are saved, put back and verified: one `Way` for each.

A way says which task a host gets and what its answers mean; `steps` does the rest for all alike.
The words of relational tasks are `engines/kit/pg_tasks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from engines import registry
from engines.kit import pg_tasks
from engines.kit.contract import Placement
from engines.kit.records import Limits
from engines.kit.tasks import Kind
from tenants.backups.models import Backup, BackupKind, StoredFile
from tenants.backups.shipping import stored_file_announce
from tenants.core.errors import ConflictError, ServiceError
from tenants.instances.models import Instance

Parameters = Mapping[str, Any]
Files = Mapping[str, StoredFile]  # by role
Staged = Sequence[tuple[StoredFile, str]]  # each file with its name in the depot


class MismatchError(ServiceError):
    """What was restored is not what was backed up."""

    status = 500
    code = "verification_failed"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to back up.

    `roles` are the files of one backup. `save` gets what of the parent is staged. `saved` takes the
    host's result: it fills facts and times of the backup and announces its files. `room` says how
    many bytes a restore needs, and how many of them a plan's limits have (None: no bound).
    `compare` returns what was compared, or raises MismatchError; verifying puts nothing in place.
    """

    roles: tuple[str, ...]
    kinds: tuple[BackupKind, ...]  # the first is the default
    save_task: Kind
    save: Callable[[Backup, Files, Staged], Parameters]
    saved: Callable[[Backup, Files, Parameters], None]
    load_task: Kind
    load: Callable[[Staged, Mapping[str, Backup], datetime | None], Parameters]
    verify_task: Kind
    compare: Callable[[Backup, Parameters], Parameters]
    room: Callable[[Backup, Limits], tuple[int, int | None]]


def way_of(instance: Instance) -> Way:
    """Return how an instance is backed up. Raises ConflictError for engines without a way."""
    way = WAYS.get(registry.load(instance.engine).placement)
    if way is None:
        raise ConflictError(
            f"the engine {instance.engine} has no backups", code="engine_unsupported"
        )
    return way


def _rdb_save(backup: Backup, files: Files, staged: Staged) -> Parameters:
    return {"file": files["data"].depot_name}


def _rdb_saved(backup: Backup, files: Files, result: Parameters) -> None:
    stored_file_announce(
        file=files["data"], size_bytes=int(result["size_bytes"]), sha256=str(result["sha256"])
    )
    backup.facts = {name: result[name] for name in ("keys", "expiring_keys") if name in result}
    backup.covers_from = backup.covers_to = timezone.now()


def _rdb_load(staged: Staged, backups: Mapping[str, Backup], target: datetime | None) -> Parameters:
    ((file, name),) = staged
    return {"file": name, "size_bytes": file.size_bytes, "sha256": file.sha256}


def _rdb_compare(backup: Backup, result: Parameters) -> Parameters:
    """Compare the keys in the file with those that the server had when it saved.

    A server that tells (Redis 7) has loaded them, or found their time over: exactly as many. Of an
    older one those with an expiry may be missing.
    """
    found, saved = int(result["keys"]), backup.facts.get("keys")
    compared = {"keys": found, "memory_bytes": int(result["memory_bytes"]), "keys_saved": saved}
    if saved is None:  # of a host that did not count yet
        return compared
    if "loaded_keys" in result:
        expired = int(result["expired_keys"])
        read = int(result["loaded_keys"]) + expired
        compared["keys_expired"] = expired
        is_same = read == int(saved) and expired <= int(backup.facts.get("expiring_keys", 0))
    else:
        read = found
        least = int(saved) - int(backup.facts.get("expiring_keys", 0))
        is_same = least <= found <= int(saved)
    if not is_same:
        raise MismatchError(f"the backup has {read} keys, {saved} were saved")
    return compared


def _rdb_room(backup: Backup, limits: Limits) -> tuple[int, int | None]:
    """A file is smaller than its content is in memory, so a larger one could not be loaded."""
    bounds = [limits.memory_bytes, limits.storage_bytes]
    return backup.size_bytes, min(bound for bound in bounds if bound is not None)


def _pg_save(backup: Backup, files: Files, staged: Staged) -> Parameters:
    parent = next((_stored(file, name) for file, name in staged), None)
    return pg_tasks.BaseBackup(
        files["data"].depot_name, files["manifest"].depot_name, parent
    ).to_json()


def _pg_saved(backup: Backup, files: Files, result: Parameters) -> None:
    stored_file_announce(
        file=files["data"], size_bytes=int(result["size_bytes"]), sha256=str(result["sha256"])
    )
    stored_file_announce(
        file=files["manifest"],
        size_bytes=int(result["manifest_size_bytes"]),
        sha256=str(result["manifest_sha256"]),
    )
    backup.facts = dict(result)
    backup.covers_from = backup.covers_to = parse_datetime(str(result["finished_at"]))


def _pg_load(staged: Staged, backups: Mapping[str, Backup], target: datetime | None) -> Parameters:
    chain, wal = [], []
    for file, name in staged:
        stored = _stored(file, name)
        if file.role == "wal":
            segment = file.wal_segment
            closed_at = segment.closed_at.isoformat() if segment.closed_at else ""
            wal.append(
                pg_tasks.WalFile(
                    segment.name, stored.file, stored.size_bytes, stored.sha256, closed_at
                )
            )
        else:
            facts = backups[str(file.backup_id)].facts
            chain.append(
                pg_tasks.BaseFile(
                    stored.file,
                    stored.size_bytes,
                    stored.sha256,
                    int(facts["unpacked_bytes"]),
                    str(facts["finished_at"]),
                )
            )
    # Of a moment after the last commit the host makes the end of the log.
    wanted = None if target is None else target.isoformat()
    return pg_tasks.Restore(tuple(chain), tuple(wal), wanted).to_json()


def _pg_compare(backup: Backup, result: Parameters) -> Parameters:
    """Compare with what the source said as it was backed up, and with an earlier verification.

    The host has held every file against the size and digest that the source's server listed, and
    every block against its checksum; here the log is held against the position at which that
    server ended the backup. One backup has one content, so later verifications find the same.
    """
    found = {name: result[name] for name in ("tables", "rows", "checksum", "blocks")}
    found["replayed_to"], end = result["restored"]["replayed_to"], backup.facts["stop_lsn"]
    if pg_tasks.lsn_number(found["replayed_to"]) < pg_tasks.lsn_number(end):
        raise MismatchError(f"the log ends at {found['replayed_to']}, the backup at {end}")
    before = backup.verification_facts.get("checksum")
    if before not in (None, found["checksum"]):
        raise MismatchError("the backup's tables are not what they were at the last verification")
    return found


def _pg_room(backup: Backup, limits: Limits) -> tuple[int, int | None]:
    return int(backup.facts.get("unpacked_bytes", 0)), limits.storage_bytes


def _stored(file: StoredFile, name: str) -> pg_tasks.Stored:
    return pg_tasks.Stored(name, file.size_bytes, file.sha256)


WAYS: Mapping[Placement, Way] = {
    Placement.POSTGRES_SERVER: Way(
        roles=("data", "manifest"),
        kinds=(BackupKind.FULL, BackupKind.INCREMENTAL),
        save_task=Kind.PG_BASE_BACKUP,
        save=_pg_save,
        saved=_pg_saved,
        load_task=Kind.PG_RESTORE,
        load=_pg_load,
        verify_task=Kind.PG_VERIFY,
        compare=_pg_compare,
        room=_pg_room,
    ),
    Placement.REDIS_SERVER: Way(
        roles=("data",),
        kinds=(BackupKind.RDB,),
        save_task=Kind.RDB_EXPORT,
        save=_rdb_save,
        saved=_rdb_saved,
        load_task=Kind.RDB_IMPORT,
        load=_rdb_load,
        verify_task=Kind.RDB_IMPORT,
        compare=_rdb_compare,
        room=_rdb_room,
    ),
}

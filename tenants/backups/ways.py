"""How the data of each kind of server are saved, put back and verified: one `Way` for each.

A way says which task a host gets and what its answers mean; `steps` does the rest for all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from engines import registry
from engines.kit.contract import Placement
from engines.kit.tasks import Kind
from tenants.backups.models import Backup, BackupKind, StoredFile
from tenants.backups.shipping import stored_file_announce
from tenants.core.errors import ConflictError, ServiceError
from tenants.instances.models import Instance

Parameters = Mapping[str, Any]
Staged = Sequence[tuple[StoredFile, str]]  # each file with its name in the depot


class MismatchError(ServiceError):
    """What was restored is not what was backed up."""

    status = 500
    code = "verification_failed"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to back up.

    `roles` are the files of one backup. `saved` takes the host's result: it fills facts and times
    of the backup and announces its files. `compare` returns what was compared, or raises
    MismatchError. Verifying never puts in place what it loads.
    """

    roles: tuple[str, ...]
    kinds: tuple[BackupKind, ...]  # the first is the default
    save_task: Kind
    save: Callable[[Backup, Mapping[str, StoredFile]], Parameters]
    saved: Callable[[Backup, Mapping[str, StoredFile], Parameters], None]
    load_task: Kind
    load: Callable[[Backup, Staged, datetime | None], Parameters]
    verify_task: Kind
    compare: Callable[[Backup, Parameters], Parameters]


def way_of(instance: Instance) -> Way:
    """Return how an instance is backed up. Raises ConflictError for engines without a way."""
    way = WAYS.get(registry.load(instance.engine).placement)
    if way is None:
        raise ConflictError(
            f"the engine {instance.engine} has no backups", code="engine_unsupported"
        )
    return way


def _rdb_save(backup: Backup, files: Mapping[str, StoredFile]) -> Parameters:
    return {"file": files["data"].depot_name}


def _rdb_saved(backup: Backup, files: Mapping[str, StoredFile], result: Parameters) -> None:
    stored_file_announce(
        file=files["data"], size_bytes=int(result["size_bytes"]), sha256=str(result["sha256"])
    )
    backup.facts = {name: result[name] for name in ("keys", "expiring_keys") if name in result}
    backup.covers_from = backup.covers_to = timezone.now()


def _rdb_load(backup: Backup, staged: Staged, target: datetime | None) -> Parameters:
    ((file, name),) = staged
    return {"file": name, "size_bytes": file.size_bytes, "sha256": file.sha256}


def _rdb_compare(backup: Backup, result: Parameters) -> Parameters:
    """Compare keys; those with an expiry may have expired since."""
    found, saved = int(result["keys"]), backup.facts.get("keys")
    compared = {"keys": found, "memory_bytes": int(result["memory_bytes"]), "keys_saved": saved}
    if saved is not None:
        least = int(saved) - int(backup.facts.get("expiring_keys", 0))
        if not least <= found <= int(saved):
            raise MismatchError(f"the backup has {found} keys, {saved} were saved")
    return compared


WAYS: Mapping[Placement, Way] = {
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
    ),
}

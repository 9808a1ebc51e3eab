"""The instance host's part in tasks, played by its rows and by real files in the depot.

`HostPart.play` does one stage of every open task, as the host would: what is saved is `content`,
what is loaded is read from the depot and must be what its parameters say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from engines.kit import pg_tasks
from engines.kit.exchange import OBSERVED_CHANNEL
from engines.kit.tasks import Kind
from tenants.backups.models import Backup
from tenants.backups.schedules import schedule_change
from tenants.backups.services import backup_create
from tenants.instances import depot
from tenants.instances.models import Instance
from tenants.operations.models import LIVE, Operation
from tenants.operations.runner import operation_run
from tests.tenants.cast import report

SEGMENT_BYTES = 4 * 1024 * 1024
OPEN = "SELECT task_id, instance_id, kind, parameters::text, wish, state FROM publish.task"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class HostPart:
    """What the played host knows: the data of instances by id, and what it was told to fail."""

    data: dict[UUID, bytes] = field(default_factory=dict)
    keys: int = 3
    expired_keys: int = 0  # of them those whose time is over when they are loaded
    fails: dict[str, tuple[str, str]] = field(default_factory=dict)  # kind -> code, detail
    loaded: dict[UUID, bytes] = field(default_factory=dict)
    # relational: the segment that is being written, and those that are closed, with the time of it
    segment: str = "000000010000000000000001"
    closed: list[tuple[str, str]] = field(default_factory=list)
    shipped: dict[UUID, list[str]] = field(default_factory=dict)
    replayed_to: str = "0/2"
    orders: dict[UUID, pg_tasks.Restore] = field(default_factory=dict)

    def play(self) -> int:
        """Do one stage of each open task, and report what is desired; return how many stages."""
        with connection.cursor() as cursor:
            cursor.execute(f"{OPEN} WHERE state NOT IN ('done', 'failed', 'cancelled')")
            rows = cursor.fetchall()
        return sum(
            self._stage(row[0], row[1], Kind(row[2]), json.loads(row[3]), row[4], row[5])
            for row in rows
        )

    def settle(self, operation: Operation, runs_max: int = 40) -> Operation:
        """Run an operation to its end, with this host between two runs."""
        for _ in range(runs_max):
            operation_run(operation_id=operation.pk)
            operation.refresh_from_db()
            if operation.state not in LIVE:
                return operation
            report(operation.instance)
            self.play()
        raise AssertionError(f"the operation {operation.kind} does not end")

    def _stage(
        self,
        task_id: UUID,
        instance_id: UUID,
        kind: Kind,
        parameters: Mapping[str, Any],
        wish: str,
        state: str,
    ) -> bool:
        if wish == "cancel" and state != "committing":
            return _say(task_id, instance_id, "cancelled")
        if state == "prepared":
            if wish == "commit" and kind is Kind.PG_SHIP_WAL:
                gone = self.shipped[task_id]
                self.closed = [each for each in self.closed if each[0] not in gone]
                return _say(task_id, instance_id, "done")
            if wish == "commit":
                self.data[instance_id] = self.loaded[task_id]
                return _say(task_id, instance_id, "done", self._counted())
            return False
        if kind.value in self.fails:
            code, detail = self.fails[kind.value]
            return _say(task_id, instance_id, "failed", code=code, detail=detail)
        return WORK[kind](self, task_id, instance_id, parameters)

    def _counted(self) -> dict[str, Any]:
        there = self.keys - self.expired_keys
        return {
            "keys": there,
            "memory_bytes": 1000,
            "loaded_keys": there,
            "expired_keys": self.expired_keys,
        }

    def save_rdb(self, task_id: UUID, instance_id: UUID, parameters: Mapping[str, Any]) -> bool:
        content = self.data[instance_id]
        depot.part_save(name=parameters["file"], offset=0, data=content)
        result = {
            "size_bytes": len(content),
            "sha256": digest(content),
            "keys": self.keys,
            "expiring_keys": 1,
        }
        return _say(task_id, instance_id, "done", result)

    def load_rdb(self, task_id: UUID, instance_id: UUID, parameters: Mapping[str, Any]) -> bool:
        content = b"".join(depot.Content(parameters["file"]))
        if (len(content), digest(content)) != (parameters["size_bytes"], parameters["sha256"]):
            return _say(task_id, instance_id, "failed", code="file_incomplete", detail="other")
        self.loaded[task_id] = content
        return _say(task_id, instance_id, "prepared", self._counted())

    def save_pg(self, task_id: UUID, instance_id: UUID, parameters: Mapping[str, Any]) -> bool:
        """Save `data` as of now; the log goes on with the segment that is written."""
        wanted = pg_tasks.BaseBackup.from_json(parameters)
        if wanted.parent_manifest is not None:
            manifest = b"".join(depot.Content(wanted.parent_manifest.file))
            assert digest(manifest) == wanted.parent_manifest.sha256
        content, manifest = self.data[instance_id], b"manifest of " + self.data[instance_id]
        depot.part_save(name=wanted.file, offset=0, data=content)
        depot.part_save(name=wanted.manifest_file, offset=0, data=manifest)
        now = timezone.now().isoformat()
        done = pg_tasks.BaseBackupDone(
            len(content), digest(content), len(content), len(manifest), digest(manifest),
            "incremental" if wanted.parent_manifest else "full", "0/1", "0/2", self.segment,
            self.segment, 1, "7", "18.0", now, now, SEGMENT_BYTES,
        )  # fmt: skip
        return _say(task_id, instance_id, "done", done.to_json())

    def ship_wal(self, task_id: UUID, instance_id: UUID, parameters: Mapping[str, Any]) -> bool:
        wanted = pg_tasks.ShipWal.from_json(parameters)
        sent = []
        for name, (segment, closed_at) in zip(wanted.files, self.closed, strict=False):
            content = f"log of {segment}".encode() * 10_000
            depot.part_save(name=name, offset=0, data=content)
            sent.append(pg_tasks.WalFile(segment, name, len(content), digest(content), closed_at))
        left = len(self.closed) - len(sent)
        until = None if left else timezone.now().isoformat()
        shipped = pg_tasks.WalShipped(tuple(sent), left, until)
        self.shipped[task_id] = [each.name for each in sent]
        return _say(task_id, instance_id, "prepared", shipped.to_json())

    def load_pg(self, task_id: UUID, instance_id: UUID, parameters: Mapping[str, Any]) -> bool:
        wanted = pg_tasks.Restore.from_json(parameters)
        for stored in (*wanted.chain, *wanted.wal):
            content = b"".join(depot.Content(stored.file))
            assert (len(content), digest(content)) == (stored.size_bytes, stored.sha256)
        self.orders[task_id] = wanted
        self.loaded[task_id] = b"".join(depot.Content(wanted.chain[-1].file))
        return _say(task_id, instance_id, "prepared", {"storage_bytes": 1})

    def verify_pg(self, task_id: UUID, instance_id: UUID, parameters: Mapping[str, Any]) -> bool:
        wanted = pg_tasks.Restore.from_json(parameters)
        found = {
            "tables": 1,
            "rows": self.keys,
            "checksum": digest(b"".join(depot.Content(wanted.chain[-1].file)))[:16],
            "blocks": 100,
            "restored": {"replayed_to": self.replayed_to},
        }
        return _say(task_id, instance_id, "done", found)


WORK: Mapping[Kind, Callable[[HostPart, UUID, UUID, Mapping[str, Any]], bool]] = {
    Kind.PG_BASE_BACKUP: HostPart.save_pg,
    Kind.PG_RESTORE: HostPart.load_pg,
    Kind.PG_SHIP_WAL: HostPart.ship_wal,
    Kind.PG_VERIFY: HostPart.verify_pg,
    Kind.RDB_EXPORT: HostPart.save_rdb,
    Kind.RDB_IMPORT: HostPart.load_rdb,
}


def _say(
    task_id: UUID,
    instance_id: UUID,
    state: str,
    result: Mapping[str, Any] | None = None,
    *,
    code: str = "",
    detail: str = "",
) -> bool:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE publish.task SET state = %s, result = coalesce(%s, result), code = %s, "
            "detail = %s, changed_at = now() WHERE task_id = %s",
            [state, json.dumps(result) if result is not None else None, code, detail, task_id],
        )
        cursor.execute("SELECT pg_notify(%s, %s)", [OBSERVED_CHANNEL, str(instance_id)])
    return True


def ready_backup(instance: Instance, content: bytes = b"REDIS0009") -> Backup:
    """Back up an instance that holds `content`, and give it a schedule."""
    operation = backup_create(instance=instance, actor="test")
    assert HostPart(data={instance.pk: content}).settle(operation).state == "succeeded"
    schedule_change(instance=instance)
    return Backup.objects.get(pk=operation.params["backup_id"])

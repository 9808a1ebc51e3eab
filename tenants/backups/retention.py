"""What goes, and when: backups whose time is over, what failed ones left, what was staged.

A backup that others build on goes after them. `DELETING` is decided in one transaction; its bytes
are removed afterwards, a few pieces at a time, and the row goes last. Everything here may run
beside itself and be killed anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from tenants.accounts.actors import SYSTEM
from tenants.audit.services import audit_write
from tenants.backups import vault
from tenants.backups.models import (
    Backup,
    BackupOrigin,
    BackupSchedule,
    BackupState,
    StagedFile,
    StoredFile,
)
from tenants.backups.plans import backup_limits
from tenants.backups.services import is_in_use
from tenants.instances import depot
from tenants.instances.models import InstanceStatus
from tenants.operations.models import LIVE, Operation

# A retry finds what a failed operation had; after this its host has surely let go of it.
LET_GO_AFTER = timedelta(hours=1)
# How long a failed backup is listed with its reason.
FAILED_RETENTION = timedelta(days=7)
ROWS_AT_ONCE = 200

log = structlog.get_logger(__name__)


def backups_expire() -> int:
    """Take out of sight what is kept no longer; return how many."""
    _give_an_end_to_those_of_purged_instances()
    due = set(_over().values_list("pk", flat=True)[:ROWS_AT_ONCE]) | _beyond_schedules()
    # The newest first: what builds on a backup is newer than it.
    return sum(_expire_one(backup_id) for backup_id in sorted(due, reverse=True))


def backups_sweep() -> int:
    """Remove bytes that no backup needs any more; return how many rows were done with."""
    return (
        _each(_deleting(), _remove_deleted)
        + _each(_kept(), _remove_depot_file)
        + _each(_failed(), _remove_failed)
        + _each(_staged_and_over(), _remove_staged)
    )


def _over() -> QuerySet[Backup]:
    now = timezone.now()
    ready = Backup.objects.filter(state=BackupState.READY, expires_at__lte=now)
    failed = Backup.objects.filter(
        state=BackupState.FAILED, finished_at__lte=now - FAILED_RETENTION
    )
    return (ready | failed).filter(is_held=False).order_by("-pk")


def _beyond_schedules() -> set[UUID]:
    """Return the scheduled backups that are more than their schedule keeps."""
    beyond: set[UUID] = set()
    for schedule in BackupSchedule.objects.all().iterator():
        kept = Backup.objects.filter(
            instance_id=schedule.instance_id,
            state=BackupState.READY,
            origin=BackupOrigin.SCHEDULED,
            is_held=False,
        ).order_by("-pk")
        beyond.update(kept.values_list("pk", flat=True)[schedule.keep_count :][:ROWS_AT_ONCE])
    return beyond


@transaction.atomic
def _expire_one(backup_id: UUID) -> bool:
    backup = (
        Backup.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("instance")
        .filter(pk=backup_id, is_held=False, state__in=[BackupState.READY, BackupState.FAILED])
        .first()
    )
    if backup is None or is_in_use(backup):
        return False
    if backup.children.exclude(state__in=[BackupState.DELETING, BackupState.FAILED]).exists():
        return False  # they are restored with it
    if _is_last_hope(backup):
        return False
    backup.state = BackupState.DELETING
    backup.save(update_fields=["state", "updated_at"])
    if backup.origin != BackupOrigin.CLONE:
        audit_write(
            tenant_id=backup.tenant_id,
            action="weftkit.backup.expire",
            initiator=SYSTEM,
            target=f"backups/{backup.pk}",
        )
    return True


def _is_last_hope(backup: Backup) -> bool:
    """Say whether it is the only good scheduled backup of an instance whose schedule goes on.

    Where backups have failed for a while, retention must not take the last one that did not.
    """
    if backup.origin != BackupOrigin.SCHEDULED or backup.state != BackupState.READY:
        return False
    goes_on = BackupSchedule.objects.filter(
        instance_id=backup.instance_id, is_enabled=True
    ).exists()
    others = Backup.objects.filter(instance_id=backup.instance_id, state=BackupState.READY).exclude(
        pk=backup.pk
    )
    is_alive = backup.instance.status not in (InstanceStatus.PURGING, InstanceStatus.PURGED)
    return goes_on and is_alive and not others.exclude(origin=BackupOrigin.CLONE).exists()


def _give_an_end_to_those_of_purged_instances() -> None:
    endless = Backup.objects.filter(
        instance__status=InstanceStatus.PURGED, expires_at=None, is_held=False
    ).select_related("instance__plan")
    for backup in endless[:ROWS_AT_ONCE]:
        days = backup_limits(backup.instance).days_max
        Backup.objects.filter(pk=backup.pk, expires_at=None).update(
            expires_at=timezone.now() + timedelta(days=days)
        )


def _deleting() -> QuerySet[Backup]:
    return Backup.objects.filter(state=BackupState.DELETING)


def _kept() -> QuerySet[StoredFile]:
    return StoredFile.objects.filter(backup__state=BackupState.READY).exclude(depot_name="")


def _failed() -> QuerySet[Backup]:
    return (
        Backup.objects.filter(
            state=BackupState.FAILED, finished_at__lte=timezone.now() - LET_GO_AFTER
        )
        .exclude(files__depot_name="")
        .exclude(files=None)
    )


def _staged_and_over() -> QuerySet[StagedFile]:
    since = timezone.now() - LET_GO_AFTER
    busy = Operation.objects.filter(state__in=LIVE).values("pk")
    fresh = Operation.objects.filter(state="failed", finished_at__gt=since).values("pk")
    return StagedFile.objects.exclude(operation_id__in=busy).exclude(operation_id__in=fresh)


def _remove_deleted(backup_id: UUID) -> bool:
    backup = _deleting().select_for_update(skip_locked=True).filter(pk=backup_id).first()
    if backup is None or not _remove_bytes(backup):
        return False
    if StagedFile.objects.filter(file__backup=backup).exists() or backup.children.exists():
        return False
    backup.delete()
    return True


def _remove_failed(backup_id: UUID) -> bool:
    backup = (
        _failed().select_for_update(skip_locked=True, of=("self",)).filter(pk=backup_id).first()
    )
    if backup is None or not _remove_bytes(backup):
        return False
    backup.files.update(depot_name="", size_bytes=0, shipped_bytes=0, updated_at=timezone.now())
    return True


def _remove_bytes(backup: Backup) -> bool:
    is_gone = True
    for file in backup.files.all():
        if file.depot_name:
            depot.content_remove(name=file.depot_name)
        is_gone &= vault.remove(file.storage_name)
    return is_gone


def _remove_depot_file(file_id: UUID) -> bool:
    file = _kept().select_for_update(skip_locked=True, of=("self",)).filter(pk=file_id).first()
    if file is None:
        return False
    depot.content_remove(name=file.depot_name)
    file.depot_name = ""
    file.save(update_fields=["depot_name", "updated_at"])
    return True


def _remove_staged(staged_id: UUID) -> bool:
    staged = _staged_and_over().select_for_update(skip_locked=True).filter(pk=staged_id).first()
    if staged is None:
        return False
    depot.content_remove(name=staged.depot_name)
    staged.delete()
    return True


def _each(rows: QuerySet, remove: Callable[[UUID], bool]) -> int:
    """Do `remove` for each row in a transaction of its own; what fails is tried the next time."""
    done = 0
    for row_id in list(rows.order_by("-pk").values_list("pk", flat=True)[:ROWS_AT_ONCE]):
        try:
            with transaction.atomic():
                done += remove(row_id)
        except OSError:
            log.exception("bytes of a backup cannot be removed", row=str(row_id))
    return done

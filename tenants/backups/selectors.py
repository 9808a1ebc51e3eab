"""Reads: a tenant's backups, what they cost in bytes, an instance's schedule."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet, Sum

from tenants.accounts.models import Tenant
from tenants.backups.models import (
    Backup,
    BackupOrigin,
    BackupSchedule,
    BackupState,
    WalSegment,
)
from tenants.core.errors import NotFoundError
from tenants.instances.models import Instance

# What tenants see: the backups that clones make for themselves, and what goes away, are not theirs.
HIDDEN_STATES = (BackupState.DELETING,)


def backup_list(*, tenant: Tenant) -> QuerySet[Backup]:
    """Return the tenant's backups, also those of purged instances."""
    return (
        Backup.objects.filter(tenant=tenant)
        .exclude(state__in=HIDDEN_STATES)
        .exclude(origin=BackupOrigin.CLONE)
        .select_related("instance")
    )


def backup_get(*, tenant: Tenant, backup_id: UUID) -> Backup:
    """Return one backup of `tenant`."""
    found = backup_list(tenant=tenant).filter(pk=backup_id).first()
    if found is None:
        raise NotFoundError("there is no such backup")
    return found


def backup_bytes(*, instance: Instance) -> int:
    """Return how many bytes an instance's backups and archived log take in the vault: priced."""
    backups = (
        Backup.objects.filter(instance=instance, state=BackupState.READY)
        .exclude(origin=BackupOrigin.CLONE)
        .aggregate(total=Sum("stored_bytes"))
    )
    log = WalSegment.objects.filter(instance=instance, is_stored=True).aggregate(
        total=Sum("file__size_bytes")
    )
    return int(backups["total"] or 0) + int(log["total"] or 0)


def archive_flags(*, instance: Instance) -> tuple[bool, bool]:
    """Return whether the host archives the log, and whether it notes what has changed.

    The second is what incremental backups need, from the backup on that they build on.
    """
    schedule = schedule_find(instance=instance)
    if schedule is None or not schedule.is_enabled or instance.engine != "relational":
        return False, False
    return schedule.archives_wal, True


def schedule_find(*, instance: Instance) -> BackupSchedule | None:
    """Return an instance's schedule; None if it has none."""
    return BackupSchedule.objects.filter(instance=instance).first()

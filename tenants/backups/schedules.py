"""Backups that start by themselves: when the next is due, and starting those that are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.utils import timezone

from tenants.accounts.actors import SYSTEM
from tenants.audit.services import audit_write
from tenants.backups.models import BackupKind, BackupOrigin, BackupSchedule, Cadence
from tenants.backups.plans import BackupLimits, backup_limits
from tenants.backups.selection import chain_of, parent_for
from tenants.backups.services import backup_create
from tenants.backups.ways import way_of
from tenants.core.errors import ServiceError, invalid_field
from tenants.instances.models import Instance, InstanceStatus
from tenants.publish.services import record_publish

# An instance that was busy or away is asked again so much later, until it can be backed up.
AGAIN_AFTER = timedelta(minutes=2)
ROWS_AT_ONCE = 100
# A chain is kept as long as its newest backup, and a restore reads all of it.
FULL_EVERY = timedelta(days=7)
STEPS: Mapping[str, timedelta] = {
    Cadence.HOURLY: timedelta(hours=1),
    Cadence.DAILY: timedelta(days=1),
    Cadence.WEEKLY: timedelta(days=7),
}
CHANGEABLE = (
    "is_enabled", "cadence", "minute", "hour", "weekday", "keep_count", "keep_days", "archives_wal",
)  # fmt: skip

log = structlog.get_logger(__name__)


def next_after(schedule: BackupSchedule, moment: datetime) -> datetime:
    """Return the first time of the schedule that is later than `moment`, which is in UTC."""
    due = moment.replace(minute=schedule.minute, second=0, microsecond=0)
    if schedule.cadence != Cadence.HOURLY:
        due = due.replace(hour=schedule.hour)
    if schedule.cadence == Cadence.WEEKLY:
        due += timedelta(days=schedule.weekday - due.weekday())
    while due <= moment:
        due += STEPS[schedule.cadence]
    return due


@transaction.atomic
def schedule_change(*, instance: Instance, **changes: bool | int | str) -> BackupSchedule:
    """Make or change an instance's schedule; what is not said stays, or is the plan's default."""
    instance = (
        Instance.objects.select_for_update(of=("self",)).select_related("plan").get(pk=instance.pk)
    )
    way_of(instance)
    limits = backup_limits(instance)
    schedule = BackupSchedule.objects.filter(instance=instance).first() or BackupSchedule(
        instance=instance,
        cadence=Cadence.DAILY,
        keep_count=limits.keep_count,
        keep_days=limits.keep_days,
    )
    for name in CHANGEABLE:
        if name in changes:
            setattr(schedule, name, changes[name])
    _demand_within(schedule, limits, instance)
    schedule.next_at = next_after(schedule, timezone.now())
    schedule.last_refusal = ""
    schedule.save()
    if instance.status not in (InstanceStatus.PURGING, InstanceStatus.PURGED):
        record_publish(instance=instance)  # the host archives the log, or does not any more
    return schedule


def backups_start_due() -> int:
    """Start the backups whose time has come; return how many. May run beside itself."""
    due = BackupSchedule.objects.filter(is_enabled=True, next_at__lte=timezone.now())
    return sum(
        _start_one(schedule_id)
        for schedule_id in list(due.order_by("next_at").values_list("pk", flat=True)[:ROWS_AT_ONCE])
    )


@transaction.atomic
def _start_one(schedule_id: UUID) -> bool:
    now = timezone.now()
    schedule = (
        BackupSchedule.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("instance__tenant", "instance__plan")
        .filter(pk=schedule_id, is_enabled=True, next_at__lte=now)
        .first()
    )
    if schedule is None:
        return False
    instance = schedule.instance
    if instance.status in (InstanceStatus.PURGING, InstanceStatus.PURGED):
        schedule.is_enabled = False
        schedule.save()
        return False
    try:
        with transaction.atomic():
            operation = backup_create(
                instance=instance,
                actor=SYSTEM,
                kind=_kind_now(instance),
                origin=BackupOrigin.SCHEDULED,
                expires_at=now + timedelta(days=schedule.keep_days),
            )
    except ServiceError as refusal:
        # Busy, suspended, or as many as there may be: the next time, or a little later.
        log.info("a scheduled backup cannot start", instance=instance.handle, code=refusal.code)
        schedule.last_refusal = refusal.message[:300]
        schedule.next_at = min(now + AGAIN_AFTER, next_after(schedule, now))
        schedule.save()
        return False
    audit_write(
        tenant_id=instance.tenant_id,
        action="weftkit.backup.create",
        initiator=SYSTEM,
        target=f"instances/{instance.handle}/backups/{operation.params['backup_id']}",
    )
    schedule.last_at, schedule.last_refusal = now, ""
    schedule.next_at = next_after(schedule, now)
    schedule.save()
    return True


def _kind_now(instance: Instance) -> str:
    """Return incremental where the engine has such and a full backup is not too old."""
    if BackupKind.INCREMENTAL not in way_of(instance).kinds:
        return ""
    parent = parent_for(instance)
    if parent is None:
        return BackupKind.FULL
    full = chain_of(parent)[0]
    is_old = timezone.now() - full.created_at > FULL_EVERY
    return BackupKind.FULL if is_old else BackupKind.INCREMENTAL


def _demand_within(schedule: BackupSchedule, limits: BackupLimits, instance: Instance) -> None:
    plan = instance.plan.name
    if not 1 <= schedule.keep_count <= limits.count_max:
        raise invalid_field("keep_count", f"the plan {plan} takes 1 to {limits.count_max}")
    if not 1 <= schedule.keep_days <= limits.days_max:
        raise invalid_field("keep_days", f"the plan {plan} takes 1 to {limits.days_max}")
    if schedule.archives_wal and not limits.may_archive_wal:
        raise invalid_field("archives_wal", f"the plan {plan} has no log archive")
    if schedule.archives_wal and instance.engine != "relational":
        raise invalid_field("archives_wal", f"the engine {instance.engine} has no log to archive")

"""The archive of the log: closed WAL segments go from their host into the vault, again and again.

    idle ─► task asked ─► prepared: rows and bytes of each segment ─► all stored: commit ─► idle

What is true is in the schedule's row (`wal_task_id`) and in `WalSegment.is_stored`. The host keeps
its segments until the commit, so whatever is killed on the way is done again, and a segment that is
stored already is not stored twice.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import ProtectedError, Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from engines.kit.pg_tasks import ShipWal, WalFile
from engines.kit.tasks import Kind, State, Wish
from tenants.backups import vault
from tenants.backups.models import (
    Backup,
    BackupSchedule,
    BackupState,
    StoredFile,
    WalSegment,
)
from tenants.backups.shipping import into_vault, stored_file_announce, stored_file_new
from tenants.instances import depot
from tenants.instances.models import Instance, InstanceStatus
from tenants.operations.job import Work
from tenants.publish.host_tasks import HostTask, task_get, task_request, task_wish
from tenants.publish.selectors import observed_get

# With the time after which a server closes a segment this is what a lost host can take along.
SHIP_EVERY = timedelta(seconds=30)
# A sleeping server closes no segments; what it closed before it slept has been shipped.
SLEEPING_EVERY = timedelta(minutes=10)
FILES_AT_ONCE = 16
TURN_S = 20.0
# A worker that moves segments says so; one that was killed is missed after this.
BUSY = timedelta(seconds=30)
ROWS_AT_ONCE = 200
SEGMENT_NAME = "^[0-9A-F]{24}$"  # not a history, which later backups need
UNUSED_RETENTION = timedelta(days=1)

log = structlog.get_logger(__name__)


def wal_ship() -> int:
    """Take every archive one stage further; return how many moved. May run beside itself."""
    now = timezone.now()
    wanted = Q(is_enabled=True, archives_wal=True, wal_next_at__lte=now)
    due = BackupSchedule.objects.filter(wanted | ~Q(wal_task_id=None)).filter(
        Q(wal_busy_until=None) | Q(wal_busy_until__lt=now)
    )
    until = time.monotonic() + TURN_S
    moved = 0
    for schedule_id in list(
        due.order_by("wal_next_at").values_list("pk", flat=True)[:ROWS_AT_ONCE]
    ):
        try:
            moved += _ship_one(schedule_id, until)
        except OSError:
            log.exception("a log archive cannot be written", schedule=str(schedule_id))
        if time.monotonic() > until:
            break
    return moved


def wal_expire() -> int:
    """Remove segments from which no kept backup goes on; return how many."""
    removed = 0
    for instance_id in (
        WalSegment.objects.order_by("instance_id").values_list("instance_id", flat=True).distinct()
    ):
        old = _unneeded(instance_id)
        for segment_id in list(old.order_by("name").values_list("pk", flat=True)[:ROWS_AT_ONCE]):
            try:
                with transaction.atomic():
                    removed += _remove(segment_id)
            except OSError:
                log.exception("a segment cannot be removed", segment=str(segment_id))
            except ProtectedError:  # a restore reads it
                pass
    return removed


def _ship_one(schedule_id: UUID, until: float) -> bool:
    stage = _advance(schedule_id)
    while isinstance(stage, Work):
        stage.slice()
        if time.monotonic() > until:
            BackupSchedule.objects.filter(pk=schedule_id).update(wal_busy_until=None)
            return True
        stage = _advance(schedule_id)
    return stage


@transaction.atomic
def _advance(schedule_id: UUID) -> Work | bool:
    """Do the next stage, or return bytes to move before it; True if something was done."""
    schedule = (
        BackupSchedule.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("instance")
        .filter(pk=schedule_id)
        .first()
    )
    if schedule is None:
        return False
    if schedule.wal_task_id is None:
        return _ask(schedule)
    task = task_get(task_id=schedule.wal_task_id)
    if task is None or task.state in (State.DONE, State.FAILED, State.CANCELLED):
        return _end(schedule, task)
    if task.state is not State.PREPARED:
        return False
    segments = [WalFile.from_json(each) for each in task.result["segments"]]
    work = _store(schedule.instance, segments)
    if work is not None:
        schedule.wal_busy_until = timezone.now() + BUSY
        schedule.save(update_fields=["wal_busy_until", "updated_at"])
        return work
    _all_are_stored(schedule, segments, task)
    return True


def _ask(schedule: BackupSchedule) -> bool:
    now = timezone.now()
    instance = schedule.instance
    schedule.wal_next_at = now + SHIP_EVERY
    schedule.wal_busy_until = None
    is_there = instance.status in (InstanceStatus.ACTIVE, InstanceStatus.SUSPENDED)
    if is_there and not _sleeps_on(schedule):
        schedule.wal_task_id = uuid.uuid4()
        names = tuple(depot.new_name("export") for _ in range(FILES_AT_ONCE))
        task_request(
            task_id=schedule.wal_task_id,
            instance=instance,
            kind=Kind.PG_SHIP_WAL,
            parameters=ShipWal(names).to_json(),
        )
    schedule.save()
    return schedule.wal_task_id is not None


def _sleeps_on(schedule: BackupSchedule) -> bool:
    """Say whether the server has slept since all of its log was shipped."""
    observed = observed_get(instance_id=schedule.instance_id)
    if observed is None or observed.state not in ("hibernated", "stopped"):
        return False
    shipped = schedule.archived_until
    return shipped is not None and timezone.now() - shipped < SLEEPING_EVERY


def _store(instance: Instance, segments: list[WalFile]) -> Work | None:
    """Make the rows of what is not stored yet, and return the next bytes to move."""
    known = {
        row.name: row
        for row in WalSegment.objects.filter(
            instance=instance, name__in=[each.name for each in segments]
        ).select_related("file")
    }
    files = []
    for each in segments:
        row = known.get(each.name)
        if row is None:
            row = WalSegment(instance=instance, name=each.name)
            row.file = stored_file_new(
                prefix=f"wal-{instance.pk}", role="wal", depot_name=each.file
            )
            stored_file_announce(file=row.file, size_bytes=each.size_bytes, sha256=each.sha256)
            row.closed_at = parse_datetime(each.closed_at) if each.closed_at else None
            row.save(force_insert=True)
        elif not row.is_stored and row.file.depot_name != each.file:
            # Of an attempt that was given up: begin anew, under a new name and key.
            row.file.depot_name = each.file
            stored_file_announce(file=row.file, size_bytes=each.size_bytes, sha256=each.sha256)
        if not row.is_stored:
            files.append(row.file)
    return into_vault(files)


def _all_are_stored(schedule: BackupSchedule, segments: list[WalFile], task: HostTask) -> None:
    """Every byte is in the vault: so the host may forget its own, and the archive has grown."""
    rows = WalSegment.objects.filter(
        instance_id=schedule.instance_id, name__in=[each.name for each in segments]
    )
    StoredFile.objects.filter(wal_segment__in=rows).update(depot_name="")
    rows.update(is_stored=True, updated_at=timezone.now())
    covered = task.result.get("covered_until")
    if covered:
        schedule.archived_until = parse_datetime(str(covered))
    elif segments and segments[-1].closed_at:
        schedule.archived_until = parse_datetime(segments[-1].closed_at)
    if int(task.result.get("left", 0)):
        schedule.wal_next_at = timezone.now()
    schedule.wal_busy_until = None
    schedule.save()
    assert schedule.wal_task_id is not None
    task_wish(task_id=schedule.wal_task_id, instance=schedule.instance, wish=Wish.COMMIT)


def _end(schedule: BackupSchedule, task: HostTask | None) -> bool:
    """The task is over; without success the host sends the same segments again."""
    if task is not None and task.state is State.FAILED:
        log.warning("segments were not shipped", instance=str(schedule.instance_id), code=task.code)
    schedule.wal_task_id = schedule.wal_busy_until = None
    schedule.save()
    return True


def _unneeded(instance_id: UUID) -> QuerySet[WalSegment]:
    """Return the segments before the oldest backup that is kept; all old ones if there is none."""
    segments = WalSegment.objects.filter(instance_id=instance_id, is_stored=True)
    first = (
        Backup.objects.filter(
            instance_id=instance_id,
            state=BackupState.READY,
            facts__has_key="stop_segment",
        )
        .order_by("covers_to")
        .values_list("facts__stop_segment", flat=True)
        .first()
    )
    if first is None:
        return segments.filter(created_at__lt=timezone.now() - UNUSED_RETENTION)
    return segments.filter(name__lt=str(first), name__regex=SEGMENT_NAME)


def _remove(segment_id: UUID) -> bool:
    segment = (
        WalSegment.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("file")
        .filter(pk=segment_id)
        .first()
    )
    if segment is None or not vault.remove(segment.file.storage_name):
        return False
    segment.delete()
    segment.file.delete()
    return True

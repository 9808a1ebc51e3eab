"""What operations do with backups, step by step (`operations/kinds.py` says in which order).

    backup   the parent's manifest into the depot ─► ask the host to save ─► into the vault ─► keep
    restore  pick the files ─► out of the vault into the depot ─► load ─► switch ─► let clients in
    clone    wait for a backup made for it ─► like restore ─► drop that backup
    verify   pick ─► out of the vault ─► load beside the data, never in place ─► compare

Each gets the instance with its row lock held; the host's tasks are of the operation's attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from engines.kit.tasks import COMMITTED, ENDED, State, Wish
from tenants.backups import shipping, vault
from tenants.backups.models import (
    Backup,
    BackupKind,
    BackupOrigin,
    BackupState,
    StagedFile,
    StoredFile,
    Verification,
)
from tenants.backups.selection import chain_of, files_to_restore
from tenants.backups.ways import MismatchError, way_of
from tenants.core.errors import ConflictError
from tenants.instances import depot
from tenants.instances import steps as instance_steps
from tenants.instances.transfer_steps import host_task
from tenants.operations.job import Job, StepError, Waiting, Work
from tenants.operations.models import Operation, OperationStep, StepState
from tenants.publish.host_tasks import task_get, task_request, task_wish

# Whose fault is the backup's own, so that it must not be trusted any more.
DAMAGE = frozenset(
    {vault.DamagedError.code, MismatchError.code}
    | {"file_incomplete", "not_rdb", "rdb_damaged", "rdb_truncated"}
    | {"backup_invalid"}
)
# Reasons why an incremental backup cannot be; a full one can.
MAKE_FULL = frozenset({"incremental_unavailable", "file_incomplete"})
# A clone looks so often whether the backup of its source is there.
SNAPSHOT_LOOK = timedelta(seconds=2)


def pick_parent(job: Job) -> None:
    """An incremental backup needs the manifest of its parent, which is kept for it from now on."""
    backup = _backup(job)
    if backup.parent is None:
        return
    if backup.parent.state != BackupState.READY:
        _make_full(backup, StepError("the backup to build on is gone", code="backup_gone"))
    elif not StagedFile.objects.filter(operation_id=job.own_id).exists():
        _stage(job, list(backup.parent.files.filter(role="manifest")))


def ask_save(job: Job) -> None:
    """Give the host the task."""
    backup = _backup(job)
    way = way_of(job.instance)
    task_request(
        task_id=_save_task(job, backup),
        instance=job.instance,
        kind=way.save_task,
        parameters=way.save(backup, _files(backup), _staged(job)),
    )


def is_saved(job: Job) -> Waiting | None:
    """Wait for the host's files, and note what they are."""
    backup = _backup(job)
    task_id = _save_task(job, backup)
    try:
        task = host_task(task_id)
    except StepError as error:
        if error.code not in MAKE_FULL or backup.kind != BackupKind.INCREMENTAL:
            raise
        _make_full(backup, error)
        ask_save(job)
        return Waiting(task_id=_save_task(job, backup))
    if task.state is not State.DONE:
        return Waiting(task_id=task_id)
    files = _files(backup)
    way_of(job.instance).saved(backup, files, task.result)
    backup.size_bytes = sum(file.size_bytes for file in files.values())
    backup.stored_bytes = sum(vault.stored_size(file) for file in files.values())
    backup.save()
    return None


def is_shipped(job: Job) -> Work | None:
    """Encrypt what the host saved, piece by piece, into the vault."""
    return shipping.into_vault(list(_files(_backup(job)).values()))


def keep(job: Job) -> None:
    """The backup can be restored from now on. What the host wrote goes with the next sweep."""
    backup = _backup(job)
    backup.state, backup.finished_at, backup.error = BackupState.READY, timezone.now(), ""
    backup.save()


def save_again(job: Job) -> None:
    """Retry: go on with what the host saved, if that is there still, or save anew."""
    backup = _backup(job)
    backup.state, backup.error = BackupState.WRITING, ""
    backup.save()
    files = list(_files(backup).values())
    if all(
        file.size_bytes
        and file.depot_name
        and depot.content_size(name=file.depot_name) == file.size_bytes
        for file in files
    ):
        return
    for file in files:
        # The host may still have a hand on the old one.
        file.depot_name, file.size_bytes, file.shipped_bytes = depot.new_name("export"), 0, 0
        file.save()
    _from_the_start(job)


def save_ended(job: Job, why: str) -> None:
    """Without success there is no backup; the host drops what it has of it."""
    for kind in BackupKind:
        task_wish(task_id=job.task_id(f"save {kind}"), instance=job.instance, wish=Wish.CANCEL)
    Backup.objects.filter(pk=job.params["backup_id"], state=BackupState.WRITING).update(
        state=BackupState.FAILED,
        error=why,
        finished_at=timezone.now(),
        updated_at=timezone.now(),
    )


def snapshot_is_taken(job: Job) -> Waiting | None:
    """Clone: wait for the backup of the source, which has an operation of its own."""
    backup = _backup(job)
    if backup.state == BackupState.READY:
        return None
    if backup.state == BackupState.WRITING:
        return Waiting(until=timezone.now() + SNAPSHOT_LOOK)
    raise StepError(
        "the source could not be backed up; retry that operation first: "
        f"{backup.error or backup.state}",
        code="snapshot_failed",
    )


def pick(job: Job) -> None:
    """Choose the stored files that are needed. From now on they are kept for this operation."""
    backup = _backup(job)
    if backup.state != BackupState.READY:
        raise StepError("the backup is gone", code="backup_gone")
    if StagedFile.objects.filter(operation_id=job.own_id).exists():
        return
    _stage(job, files_to_restore(backup=backup, target=_target(job)))


def is_staged(job: Job) -> Work | None:
    """Decrypt the files, piece by piece, into the depot."""
    staged = _staged(job)
    return shipping.into_depot([file for file, _ in staged], [name for _, name in staged])


def ask_load(job: Job) -> None:
    """Give the host of the new instance the task to load what is in the depot."""
    backup = _backup(job)
    way = way_of(backup.instance)
    task_request(
        task_id=job.task_id("load"),
        instance=job.instance,
        kind=way.load_task,
        parameters=way.load(_staged(job), _chain(backup), _target(job)),
    )


def is_loaded(job: Job) -> Waiting | None:
    """Wait until the host has the content beside the served one."""
    if host_task(job.task_id("load")).state in {State.PREPARED, *COMMITTED}:
        return None
    return Waiting(task_id=job.task_id("load"))


def is_in_place(job: Job) -> Waiting | None:
    """Have the host put the content in place, and wait until it is served."""
    state = host_task(job.task_id("load")).state
    if state is State.PREPARED:
        task_wish(task_id=job.task_id("load"), instance=job.instance, wish=Wish.COMMIT)
    return None if state is State.DONE else Waiting(task_id=job.task_id("load"))


def drop_snapshot(job: Job) -> None:
    """Clone: nobody needs the backup any more."""
    Backup.objects.filter(pk=job.params["backup_id"], origin=BackupOrigin.CLONE).update(
        expires_at=timezone.now(), updated_at=timezone.now()
    )


def restore_again(job: Job) -> None:
    """Retry: a new server, and what is staged already is not staged again."""
    instance_steps.request_new(job)
    _from_the_start(job)


def restore_ended(job: Job, why: str) -> None:
    """A restore that failed or was cancelled leaves an instance that says so."""
    task_wish(task_id=job.task_id("load"), instance=job.instance, wish=Wish.CANCEL)
    instance_steps.provision_ended(job, why)


def take_restore_back(job: Job) -> None:
    """Cancel, unless the host is past the point of no return. Raises ConflictError."""
    task = task_get(task_id=job.task_id("load"))
    if task is None or task.state in ENDED - COMMITTED:
        return
    if not task_wish(task_id=job.task_id("load"), instance=job.instance, wish=Wish.CANCEL):
        raise ConflictError("the data are being put in place already", code="too_late")


def ask_verify(job: Job) -> None:
    """Give the host the task to load what is in the depot beside the instance's own data."""
    backup = _backup(job)
    way = way_of(backup.instance)
    task_request(
        task_id=job.task_id("load"),
        instance=job.instance,
        kind=way.verify_task,
        parameters=way.load(_staged(job), _chain(backup), None),
    )


def is_as_saved(job: Job) -> None:
    """Compare what the host loaded with what was saved; then the host can drop it."""
    backup = _backup(job)
    task = host_task(job.task_id("load"))
    backup.verification_facts = dict(way_of(backup.instance).compare(backup, task.result))
    backup.verification, backup.verified_at = Verification.PASSED, timezone.now()
    backup.save()
    task_wish(task_id=job.task_id("load"), instance=job.instance, wish=Wish.CANCEL)


def verify_again(job: Job) -> None:
    """Retry from the start; what is staged already is not staged again."""
    Backup.objects.filter(pk=job.params["backup_id"]).update(verification=Verification.RUNNING)
    _from_the_start(job)


def verify_ended(job: Job, why: str) -> None:
    """A backup that is damaged is known as such; what else went wrong says nothing about it."""
    task_wish(task_id=job.task_id("load"), instance=job.instance, wish=Wish.CANCEL)
    code = Operation.objects.values_list("error_code", flat=True).get(pk=job.own_id)
    is_damaged = code in DAMAGE
    Backup.objects.filter(pk=job.params["backup_id"], verification=Verification.RUNNING).update(
        verification=Verification.FAILED if is_damaged else Verification.NONE,
        verified_at=timezone.now() if is_damaged else None,
        verification_facts={"error": why},
        updated_at=timezone.now(),
    )


def _backup(job: Job) -> Backup:
    found = (
        Backup.objects.select_related("instance", "parent")
        .filter(pk=job.params["backup_id"])
        .first()
    )
    if found is None:
        raise StepError("the backup is gone", code="backup_gone")
    return found


def _files(backup: Backup) -> dict[str, StoredFile]:
    return {file.role: file for file in backup.files.order_by("role")}


def _chain(backup: Backup) -> dict[str, Backup]:
    return {str(each.pk): each for each in chain_of(backup)}


def _stage(job: Job, files: Sequence[StoredFile]) -> None:
    StagedFile.objects.bulk_create(
        StagedFile(
            operation_id=job.own_id,
            index=index,
            file=file,
            depot_name=depot.new_name("upload"),
        )
        for index, file in enumerate(files)
    )


def _staged(job: Job) -> Sequence[tuple[StoredFile, str]]:
    rows = StagedFile.objects.filter(operation_id=job.own_id)
    rows = rows.select_related("file__wal_segment")
    return [(row.file, row.depot_name) for row in rows]


def _save_task(job: Job, backup: Backup) -> UUID:
    return job.task_id(f"save {backup.kind}")


def _make_full(backup: Backup, reason: StepError) -> None:
    """Make a scheduled incremental backup a full one; whoever asked for this kind is told."""
    if backup.origin != BackupOrigin.SCHEDULED:
        raise reason
    backup.kind, backup.parent = BackupKind.FULL, None
    backup.save(update_fields=["kind", "parent", "updated_at"])
    for file in backup.files.all():
        file.depot_name = depot.new_name("export")
        file.save(update_fields=["depot_name", "updated_at"])


def _target(job: Job) -> datetime | None:
    said = job.params.get("target_time")
    return parse_datetime(said) if said else None


def _from_the_start(job: Job) -> None:
    OperationStep.objects.filter(operation_id=job.own_id).update(
        state=StepState.PENDING, started_at=None, finished_at=None
    )
    Operation.objects.filter(pk=job.own_id).update(progress_done=0)

"""What the operations export and import do, step by step; the host works on `publish.task`.

The task has the operation's id. Each function gets the instance with its row lock held.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from engines import registry
from engines.kit.tasks import COMMITTED, ENDED, State, Wish
from tenants.core.errors import ConflictError
from tenants.instances.files import EXPORTS, IMPORTS
from tenants.instances.models import DataFile, FileState
from tenants.operations.job import Job, StepError, Waiting
from tenants.publish.host_tasks import HostTask, task_get, task_request, task_wish


def ask_export(job: Job) -> None:
    """Give the host the task, for the first time or again."""
    task_request(
        task_id=_task_id(job),
        instance=job.instance,
        kind=EXPORTS[registry.load(job.instance.engine).placement],
        parameters={"file": _file(job).storage_name},
    )


def export_is_written(job: Job) -> Waiting | None:
    """Wait for the host's file, and let it be downloaded."""
    task = host_task(_task_id(job))
    if task.state is not State.DONE:
        return Waiting()
    file = _file(job)
    file.size_bytes = file.received_bytes = int(task.result["size_bytes"])
    file.sha256 = str(task.result["sha256"])
    file.state = FileState.READY
    retention: timedelta = settings.EXPORT_RETENTION
    file.expires_at = timezone.now() + retention
    file.save()
    return None


def export_ended(job: Job, why: str) -> None:
    """Without success there is no file; the host drops what it has of it."""
    task_wish(task_id=_task_id(job), instance=job.instance, wish=Wish.CANCEL)
    DataFile.objects.filter(pk=job.params["file_id"]).update(
        state=FileState.WRITING, expires_at=timezone.now()
    )


def ask_import(job: Job) -> None:
    """Give the host the task, for the first time or again."""
    file = _file(job)
    task_request(
        task_id=_task_id(job),
        instance=job.instance,
        kind=IMPORTS[registry.load(job.instance.engine).placement],
        parameters={
            "file": file.storage_name,
            "size_bytes": file.size_bytes,
            "sha256": file.sha256,
        },
    )


def import_is_loaded(job: Job) -> Waiting | None:
    """Wait until the host has the content beside the served one."""
    is_loaded = host_task(_task_id(job)).state in {State.PREPARED, *COMMITTED}
    return None if is_loaded else Waiting()


def import_is_in_place(job: Job) -> Waiting | None:
    """Have the host exchange old and new, and wait until the new is served."""
    state = host_task(_task_id(job)).state
    if state is State.PREPARED:
        task_wish(task_id=_task_id(job), instance=job.instance, wish=Wish.COMMIT)
    return None if state is State.DONE else Waiting()


def take_import_back(job: Job) -> None:
    """Cancel, unless the host is past the point of no return. Raises ConflictError."""
    task = task_get(task_id=_task_id(job))
    if task is None or task.state in ENDED - COMMITTED:
        return
    if not task_wish(task_id=_task_id(job), instance=job.instance, wish=Wish.CANCEL):
        raise ConflictError("the new data are being put in place already", code="too_late")


def import_ended(job: Job, why: str) -> None:
    """Leave the old data, if the host has not begun to put the new in their place."""
    task_wish(task_id=_task_id(job), instance=job.instance, wish=Wish.CANCEL)


def _task_id(job: Job) -> UUID:
    assert job.operation_id is not None
    return job.operation_id


def host_task(task_id: UUID) -> HostTask:
    """Return a task that lives or is done. Raises StepError with what the host said, else."""
    task = task_get(task_id=task_id)
    if task is None:
        raise StepError("the host's task is gone", code="host_failed")
    if task.state in (State.FAILED, State.CANCELLED):
        raise StepError(
            task.detail or "the host's task was cancelled", code=task.code or "cancelled"
        )
    return task


def _file(job: Job) -> DataFile:
    file = DataFile.objects.filter(pk=job.params["file_id"]).first()
    if file is None:
        raise ConflictError("the file has expired", code="file_expired")
    return file

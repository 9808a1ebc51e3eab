"""Carries an operation from its first unfinished step to its end, safe against any kill.

    claim ─► advance one step in one transaction ─► ... ─► ended
                 │ not yet: wait for the host, bounded ─► park: give the lease back for now
                 │ bytes to move: a slice of them without locks, under a longer lease

Two workers never advance one operation: each transaction locks the row and checks the lease's
token. A killed worker leaves a lease that runs out; the reaper sends the operation again, and the
next worker finds every step either done or not begun.
"""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Case, F, Q, When
from django.utils import timezone

from tenants.core.errors import ServiceError
from tenants.instances.models import Instance
from tenants.operations.job import Job, Waiting, Work
from tenants.operations.kinds import KINDS
from tenants.operations.models import LIVE, Operation, OperationState, OperationStep, StepState
from tenants.operations.services import (
    REQUEUE_AFTER,
    UNFINISHED,
    operation_end,
    operation_enqueue,
    operation_fail,
)
from tenants.operations.waiting import HostReports

log = structlog.get_logger(__name__)

# A notification can be lost; then the next look comes this much later. It also renews the lease.
POLL_S = 1.0
PARK = timedelta(seconds=2)
# So long one message moves bytes; then the others that wait get their turn.
WORK_IN_TASK_S = 20.0
WORK_AGAIN = timedelta(seconds=5)


class LeaseLostError(Exception):
    """Another worker owns the operation, or an operator reset it: write nothing more."""


class Progress(Enum):
    ADVANCED = "advanced"
    ENDED = "ended"


def operation_run(*, operation_id: UUID) -> None:
    """Run it as far as it goes now. Does nothing if it has ended, or if another worker runs it."""
    token = _claim(operation_id)
    if token is None:
        return
    with structlog.contextvars.bound_contextvars(operation=str(operation_id)):
        try:
            _run_claimed(operation_id, token)
        except LeaseLostError:
            log.warning("lost the lease of an operation")


def _run_claimed(operation_id: UUID, token: UUID) -> None:
    started = time.monotonic()
    patience_until = started + settings.OPERATION_WAIT_IN_TASK_S
    with HostReports() as reports:
        while True:
            progress = _advance_or_fail(operation_id, token)
            if progress is Progress.ENDED:
                return
            if progress is Progress.ADVANCED:
                continue
            if isinstance(progress, Work):
                if time.monotonic() - started > WORK_IN_TASK_S:
                    if _park(operation_id, token, until=timezone.now()):
                        return
                elif not _work(operation_id, token, progress):
                    return
                continue
            assert isinstance(progress, Waiting)
            # Listening begins before the second look, so no report falls in between.
            if reports.open(_instance_id(operation_id)):
                continue
            remaining = patience_until - time.monotonic()
            if progress.until is None and remaining > 0:
                reports.wait(min(POLL_S, remaining))
            elif _park(operation_id, token, until=progress.until or timezone.now() + PARK):
                return


def _work(operation_id: UUID, token: UUID, work: Work) -> bool:
    """Do one slice of a step's work, without a lock; False if the operation failed over it."""
    try:
        work.slice()
    except (OperationalError, InterfaceError):
        raise
    except ServiceError as error:
        return _fail(operation_id, token, error.code, error.message)
    except OSError:
        # A storage that is away for a moment comes back; the deadline ends it if it does not.
        log.exception("an operation's bytes could not be moved")
        return not _park(operation_id, token, until=timezone.now() + WORK_AGAIN)
    except Exception:
        log.exception("an operation's work raised")
        return _fail(operation_id, token, "internal", "WeftKit failed; the log has the reason")
    return True


def _fail(operation_id: UUID, token: UUID, code: str, message: str) -> bool:
    with transaction.atomic():
        operation_fail(operation=_owned(operation_id, token), code=code, message=message)
    return False


def _claim(operation_id: UUID) -> UUID | None:
    """Take the lease by one compare-and-swap; None if there is nothing to take."""
    now = timezone.now()
    token = uuid.uuid4()
    free = Q(lease_until=None) | Q(lease_until__lt=now)
    claimed = Operation.objects.filter(free, pk=operation_id, state__in=LIVE).update(
        # A lease that is still there is a dead worker's.
        takeovers=F("takeovers") + Case(When(lease_token=None, then=0), default=1),
        lease_token=token,
        lease_until=now + timedelta(seconds=settings.OPERATION_LEASE_S),
        heartbeat_at=now,
    )
    return token if claimed else None


def _advance_or_fail(operation_id: UUID, token: UUID) -> Progress | Waiting | Work:
    try:
        return _advance(operation_id, token)
    except (LeaseLostError, OperationalError, InterfaceError):
        # The database went away, or a lock took too long: the reaper sends the operation again.
        raise
    except ServiceError as error:
        code, message = error.code, error.message
        log.info("an operation's step refused", code=code, reason=message)
    except Exception:  # whatever a step raises must not leave the operation hanging
        code, message = "internal", "WeftKit failed; the log has the reason"
        log.exception("an operation's step raised")
    _fail(operation_id, token, code, message)
    return Progress.ENDED


@transaction.atomic
def _advance(operation_id: UUID, token: UUID) -> Progress | Waiting | Work:
    """Do, or undo, one step; its marks are written in the transaction of its work."""
    operation = _owned(operation_id, token)
    now = timezone.now()
    if now >= operation.deadline_at:
        operation_fail(operation=operation, code="deadline", message="it took too long")
        return Progress.ENDED
    # `of`: the steps need no lock on tenant and plan.
    instance = Instance.objects.select_for_update(of=("self",)).get(pk=operation.instance_id)
    job = Job(instance, operation.params, operation.pk, operation.attempt)
    if operation.state == OperationState.CANCELLING:
        progress: Progress | Waiting | Work = _step_back(operation, job)
    else:
        progress = _step_on(operation, job)
    if progress is not Progress.ENDED:
        lease_s = settings.OPERATION_LEASE_S
        if isinstance(progress, Work):
            lease_s = settings.OPERATION_WORK_LEASE_S
        operation.heartbeat_at = now
        operation.lease_until = now + timedelta(seconds=lease_s)
        operation.save()
    return progress


def _step_on(operation: Operation, job: Job) -> Progress | Waiting | Work:
    if operation.started_at is None:
        operation.started_at = timezone.now()
    operation.state = OperationState.RUNNING
    step = operation.steps.filter(state__in=UNFINISHED).first()
    if step is None:
        operation_end(operation=operation, state=OperationState.SUCCEEDED)
        return Progress.ENDED
    waiting = KINDS[operation.kind].steps[step.index].do(job)
    _mark(step, StepState.RUNNING if waiting else StepState.DONE)
    if waiting:
        _note_bytes(operation, waiting)
        return waiting
    operation.progress_done = step.index + 1
    return Progress.ADVANCED


def _note_bytes(operation: Operation, waiting: Waiting | Work) -> None:
    """Write how far the step is, or which task of the host knows."""
    if isinstance(waiting, Work):
        operation.moved_bytes, operation.moved_total = waiting.bytes_done, waiting.bytes_total
    else:
        operation.host_task_id = waiting.task_id
        operation.moved_bytes = operation.moved_total = None


def _step_back(operation: Operation, job: Job) -> Progress:
    kind = KINDS[operation.kind]
    # A running step only waited: nothing of it is in the database.
    operation.steps.filter(state=StepState.RUNNING).update(state=StepState.PENDING)
    step = operation.steps.filter(state=StepState.DONE).last()
    if step is None:
        operation_end(operation=operation, state=OperationState.CANCELLED)
        if kind.ended is not None:
            kind.ended(job, f"{operation.kind} was cancelled")
        return Progress.ENDED
    undo = kind.steps[step.index].undo
    if undo is not None:
        undo(job)
    _mark(step, StepState.UNDONE)
    operation.progress_done = step.index
    return Progress.ADVANCED


def _mark(step: OperationStep, state: StepState) -> None:
    now = timezone.now()
    step.state = state
    step.started_at = step.started_at or now
    if state is not StepState.RUNNING:
        step.finished_at = now
    step.save()


@transaction.atomic
def _park(operation_id: UUID, token: UUID, *, until: datetime) -> bool:
    """Give the lease back: a worker is too good to wait long. The reaper sends it when it is due.

    False if the operation was cancelled meanwhile: then there is work to do now.
    """
    operation = _owned(operation_id, token)
    if operation.state == OperationState.CANCELLING:
        return False
    operation.run_after = until
    operation.lease_token = operation.lease_until = None
    if until <= timezone.now():
        operation.run_after = timezone.now() + REQUEUE_AFTER
        operation_enqueue(operation_id=operation.pk)
    operation.save()
    return True


def _owned(operation_id: UUID, token: UUID) -> Operation:
    operation = (
        Operation.objects.select_for_update()
        .filter(pk=operation_id, lease_token=token, state__in=LIVE)
        .first()
    )
    if operation is None:
        raise LeaseLostError(str(operation_id))
    return operation


def _instance_id(operation_id: UUID) -> UUID:
    return Operation.objects.values_list("instance_id", flat=True).get(pk=operation_id)

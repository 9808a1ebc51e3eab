"""Writes: start, cancel, retry, reset an operation, and reap those that nobody works on.

Lock order everywhere: operation row, then instance row. Whoever starts an operation holds only the
instance's; the partial unique index decides races between two that start at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from tenants.audit.services import Asked, audit_write
from tenants.core.errors import ConflictError, LockedError
from tenants.instances.models import Instance
from tenants.operations.job import Job
from tenants.operations.kinds import KINDS
from tenants.operations.models import LIVE, Operation, OperationState, OperationStep, StepState
from tenants.webhooks.services import webhook_emit

log = structlog.get_logger(__name__)

# An operation whose worker dies this often takes its workers down with it.
TAKEOVERS_MAX = 10
# How long a message may wait in the broker before it is sent once more.
REQUEUE_AFTER = timedelta(seconds=30)
# A message on its way to a worker is not lost before this.
PATIENCE = timedelta(seconds=5)
# The end of an operation as HTTP's codes say it, which CADF's reasons are.
REASONS = {
    OperationState.SUCCEEDED: 200,
    OperationState.FAILED: 500,
    OperationState.CANCELLED: 409,
}
UNFINISHED = (StepState.PENDING, StepState.RUNNING, StepState.FAILED)


def operation_start(
    *,
    kind: str,
    instance: Instance,
    actor: str,
    params: Mapping[str, Any] | None = None,
    idempotency_key: str = "",
) -> Operation:
    """Schedule an operation on a row-locked instance and hand it to a worker on commit.

    Raises LockedError with the running operation's id; ConflictError for a key used otherwise.
    """
    assert connection.in_atomic_block
    if idempotency_key and (known := _by_key(kind, instance, idempotency_key)):
        return known
    spec = KINDS[kind]
    if spec.is_exclusive:
        _refuse_if_locked(instance)
    if instance.status not in spec.starts_from:
        raise ConflictError(
            f"the instance is {instance.status}: {kind} is not possible", code="instance_status"
        )
    try:
        with transaction.atomic():
            operation = Operation.objects.create(
                tenant_id=instance.tenant_id,
                instance=instance,
                kind=kind,
                is_exclusive=spec.is_exclusive,
                params=dict(params or {}),
                actor=actor,
                idempotency_key=idempotency_key,
                progress_done=sum(step.is_done_at_start for step in spec.steps),
                progress_total=len(spec.steps),
                run_after=timezone.now() + PATIENCE,
                deadline_at=timezone.now() + spec.deadline,
            )
    except IntegrityError:
        if idempotency_key and (known := _by_key(kind, instance, idempotency_key)):
            return known
        _refuse_if_locked(instance)
        raise
    OperationStep.objects.bulk_create(
        OperationStep(
            operation=operation,
            index=index,
            name=step.name,
            title=step.title,
            **(_done_now() if step.is_done_at_start else {}),
        )
        for index, step in enumerate(spec.steps)
    )
    operation_enqueue(operation_id=operation.pk)
    return operation


def _done_now() -> dict[str, Any]:
    now = timezone.now()
    return {"state": StepState.DONE, "started_at": now, "finished_at": now}


def operation_enqueue(*, operation_id: UUID) -> None:
    """Send it to a worker once this transaction is durable. A lost message is the reaper's work."""

    def send() -> None:
        from tenants.operations.tasks import operation_run

        # No retries here: with the broker down the request still succeeds, and the reaper sends.
        # A message that waits longer is sent once more, so the first one would be one too many.
        operation_run.apply_async(
            args=(str(operation_id),), retry=False, expires=REQUEUE_AFTER.total_seconds()
        )

    transaction.on_commit(send, robust=True)


@transaction.atomic
def operation_cancel(*, operation: Operation) -> Operation:
    """Ask for the way back: what was done is undone, step by step. Asking twice is fine."""
    operation = _locked(operation.pk)
    if operation.state == OperationState.CANCELLING:
        return operation
    if not operation.is_live:
        raise ConflictError(f"the operation has {operation.state}", code="operation_ended")
    if not KINDS[operation.kind].is_cancellable:
        raise ConflictError(
            f"a {operation.kind} operation cannot be cancelled", code="not_cancellable"
        )
    if (before := KINDS[operation.kind].before_cancel) is not None:
        instance = Instance.objects.select_for_update().get(pk=operation.instance_id)
        before(Job(instance, operation.params, operation.pk, operation.attempt))
    operation.state = OperationState.CANCELLING
    operation.run_after = timezone.now() + PATIENCE
    operation.save(update_fields=["state", "run_after", "updated_at"])
    operation_enqueue(operation_id=operation.pk)
    return operation


@transaction.atomic
def operation_retry(*, operation: Operation) -> Operation:
    """Go on from the first unfinished step of a failed operation."""
    operation = _locked(operation.pk)
    if operation.state != OperationState.FAILED:
        raise ConflictError(f"the operation is {operation.state}", code="operation_not_failed")
    instance = Instance.objects.select_for_update().get(pk=operation.instance_id)
    newer = Operation.objects.filter(
        instance=instance, is_exclusive=True, created_at__gt=operation.created_at
    )
    if operation.is_exclusive and newer.exists():
        raise ConflictError("a newer operation has run on the instance", code="operation_outdated")
    spec = KINDS[operation.kind]
    operation.state = OperationState.SCHEDULED
    operation.attempt += 1
    operation.takeovers = 0
    operation.error_code = operation.error_message = ""
    operation.finished_at = None
    operation.run_after = timezone.now() + PATIENCE
    operation.deadline_at = timezone.now() + spec.deadline
    operation.save()
    operation.steps.filter(state__in=[*UNFINISHED, StepState.UNDONE]).update(
        state=StepState.PENDING, finished_at=None
    )
    if spec.reopen is not None:
        spec.reopen(Job(instance, operation.params, operation.pk, operation.attempt))
    operation_enqueue(operation_id=operation.pk)
    return operation


@transaction.atomic
def operation_reset(*, operation: Operation) -> Operation:
    """The last resort: end it now, whatever its worker does; the worker's lease is void."""
    operation = _locked(operation.pk)
    if operation.is_live:
        operation_fail(operation=operation, code="reset", message="an operator reset it")
    return operation


def operation_fail(*, operation: Operation, code: str, message: str) -> None:
    """End a row-locked operation as failed, and leave its instance in a state that says so."""
    assert connection.in_atomic_block
    instance = Instance.objects.select_for_update().get(pk=operation.instance_id)
    operation.steps.filter(state=StepState.RUNNING).update(
        state=StepState.FAILED, finished_at=timezone.now()
    )
    operation_end(
        operation=operation, state=OperationState.FAILED, code=code, message=message[:500]
    )
    ended = KINDS[operation.kind].ended
    if ended is not None:
        job = Job(instance, operation.params, operation.pk, operation.attempt)
        ended(job, f"{operation.kind} failed: {message}"[:500])


def operation_end(
    *, operation: Operation, state: OperationState, code: str = "", message: str = ""
) -> None:
    """Write the end of a row-locked operation and give its lease back."""
    operation.state = state
    operation.error_code, operation.error_message = code, message
    operation.finished_at = timezone.now()
    operation.lease_token = operation.lease_until = None
    operation.save()
    _tell(operation)
    _audit(operation)
    log.info("operation ended", operation=str(operation.pk), kind=operation.kind, state=str(state))


def _tell(operation: Operation) -> None:
    """Tell the tenant's webhooks; a backup's end has types of its own beside."""
    data = {
        "operation_id": operation.pk,
        "kind": operation.kind,
        "instance": operation.instance.handle,
        "state": str(operation.state),
        "error_code": operation.error_code,
        "error_message": operation.error_message,
    }
    types = ["operation.ended"]
    if operation.kind == "backup":
        is_there = operation.state == OperationState.SUCCEEDED
        types.append("backup.succeeded" if is_there else "backup.failed")
        data["backup_id"] = operation.params["backup_id"]
    for event_type in types:
        webhook_emit(tenant=operation.tenant_id, event_type=event_type, data=data)


def _audit(operation: Operation) -> None:
    """Write the event of the end; that of the request said only that it began (`pending`)."""
    is_done = operation.state == OperationState.SUCCEEDED
    audit_write(
        tenant_id=operation.tenant_id,
        action="weftkit.operation.end",
        initiator=operation.actor,
        target=f"operations/{operation.pk}",
        outcome="success" if is_done else "failure",
        reason_code=REASONS[OperationState(operation.state)],
        asked=Asked(
            reason=operation.error_message or f"the operation was {operation.state}",
            request_data={"kind": operation.kind, "instance": operation.instance.handle},
            response_data={"state": str(operation.state), "code": operation.error_code},
        ),
    )


def operation_keys_forget(*, before: datetime) -> int:
    """Free the idempotency keys of ended operations; a later request with one is a new request."""
    old = Operation.objects.filter(created_at__lt=before).exclude(idempotency_key="")
    return old.exclude(state__in=LIVE).update(idempotency_key="")


def operation_reap() -> int:
    """Send again what is due and has no living worker; fail what is too late. Return how many."""
    now = timezone.now()
    due = Operation.objects.filter(
        Q(lease_until=None) | Q(lease_until__lt=now),
        state__in=LIVE,
        run_after__lte=now,
    )
    late = Operation.objects.filter(
        Q(lease_until=None) | Q(lease_until__lt=now), state__in=LIVE, deadline_at__lte=now
    )
    touched = set(late.values_list("pk", flat=True)) | set(due.values_list("pk", flat=True))
    for operation_id in sorted(touched):
        try:
            _reap_one(operation_id)
        except Exception:  # one operation that cannot be reaped must not keep the others
            log.exception("could not reap an operation", operation=str(operation_id))
    return len(touched)


@transaction.atomic
def _reap_one(operation_id: UUID) -> None:
    now = timezone.now()
    operation = (
        Operation.objects.select_for_update(skip_locked=True)
        .filter(Q(lease_until=None) | Q(lease_until__lt=now), pk=operation_id, state__in=LIVE)
        .first()
    )
    if operation is None:  # someone works on it after all
        return
    if operation.deadline_at <= now:
        operation_fail(operation=operation, code="deadline", message="it took too long")
    elif operation.takeovers >= TAKEOVERS_MAX:
        operation_fail(operation=operation, code="no_heartbeat", message="its workers kept dying")
    else:
        operation.run_after = now + REQUEUE_AFTER
        operation.save(update_fields=["run_after", "updated_at"])
        operation_enqueue(operation_id=operation.pk)


def _locked(operation_id: UUID) -> Operation:
    return Operation.objects.select_for_update().get(pk=operation_id)


def _by_key(kind: str, instance: Instance, key: str) -> Operation | None:
    known = Operation.objects.filter(tenant_id=instance.tenant_id, idempotency_key=key).first()
    if known is not None and (known.kind, known.instance_id) != (kind, instance.pk):
        raise ConflictError(
            "this idempotency key belongs to another request", code="idempotency_key_reused"
        )
    return known


def _refuse_if_locked(instance: Instance) -> None:
    running = Operation.objects.filter(instance=instance, is_exclusive=True, state__in=LIVE).first()
    if running is not None:
        raise LockedError(
            f"a {running.kind} operation runs on this instance",
            retryable=True,
            extra={"operation_id": str(running.pk)},
        )

"""Operation and OperationStep.

A worker owns an operation while it holds its lease: `lease_token` is the worker's, and
`lease_until` is in the future. All it writes, it writes under that token; who lost the lease can
change nothing any more.
"""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.core.models import BaseModel
from tenants.instances.models import Instance


class OperationState(models.TextChoices):
    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class StepState(models.TextChoices):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"


# What still has work to do. A failed or cancelled operation blocks nothing, and may be retried.
LIVE = (OperationState.SCHEDULED, OperationState.RUNNING, OperationState.CANCELLING)


class Operation(BaseModel):
    """One long change of one instance."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="operations")
    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="operations")
    kind = models.CharField(max_length=32)
    state = models.CharField(
        max_length=16, choices=OperationState.choices, default=OperationState.SCHEDULED
    )
    is_exclusive = models.BooleanField(default=True)
    params = models.JSONField(default=dict)
    actor = models.CharField(max_length=300)
    idempotency_key = models.CharField(max_length=128, blank=True)
    attempt = models.PositiveIntegerField(default=1)  # raised by each retry
    takeovers = models.PositiveIntegerField(default=0)  # from workers that died, in this attempt
    progress_done = models.PositiveIntegerField(default=0)
    progress_total = models.PositiveIntegerField()
    # Of the step that moves bytes: our own count, or the host's task that counts them.
    moved_bytes = models.BigIntegerField(null=True, blank=True)
    moved_total = models.BigIntegerField(null=True, blank=True)
    host_task_id = models.UUIDField(null=True, blank=True)
    error_code = models.CharField(max_length=64, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    run_after = models.DateTimeField(default=timezone.now)  # from then on the reaper sends it
    deadline_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["instance"],
                condition=models.Q(
                    is_exclusive=True, state__in=["scheduled", "running", "cancelling"]
                ),
                name="operation_exclusive_is_one",
            ),
            models.UniqueConstraint(
                fields=["tenant", "idempotency_key"],
                condition=~models.Q(idempotency_key=""),
                name="operation_key_is_unique",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=OperationState.values),
                name="operation_state_is_known",
            ),
            models.CheckConstraint(
                condition=models.Q(lease_token=None, lease_until=None)
                | models.Q(lease_token__isnull=False, lease_until__isnull=False),
                name="operation_lease_is_whole",
            ),
        ]
        indexes = [
            models.Index(
                fields=["run_after"],
                condition=models.Q(state__in=["scheduled", "running", "cancelling"]),
                name="operation_live",
            ),
        ]

    @property
    def is_live(self) -> bool:
        return self.state in LIVE


class OperationStep(BaseModel):
    """One step; `index` starts at 0."""

    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="steps")
    index = models.PositiveIntegerField()
    name = models.CharField(max_length=32)
    title = models.CharField(max_length=120)
    state = models.CharField(max_length=16, choices=StepState.choices, default=StepState.PENDING)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["index"]
        constraints = [
            models.UniqueConstraint(fields=["operation", "index"], name="step_index_is_unique"),
            models.CheckConstraint(
                condition=models.Q(state__in=StepState.values), name="step_state_is_known"
            ),
        ]

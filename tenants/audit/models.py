"""The tables of the audit trail.

AuditEvent       what happened, written once; partitioned by the month in which it was stored
AuditUnlinked    events that are not in their chain yet (written by a trigger)
AuditLink        an event's place in its tenant's hash chain, written once
AuditHead        the newest link of each chain
AuditCheckpoint  up to where a chain was let go after its retention, written once
AuditClaim       which events of data planes are stored already
InstanceAudit    what an instance's owner wants to be audited
AuditDrain       where a tenant's events are delivered to, and how far

Migration 0004 has what Django does not know: partitions, and the triggers that refuse changes. No
foreign keys: an event outlives what it tells of.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import models
from django.db.models.expressions import RawSQL
from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.core.models import BaseModel

# The chain of events that belong to no tenant.
PLATFORM = UUID(int=0)


def _of_body(sql: str, field: models.Field[Any, Any]) -> models.GeneratedField:
    """Return a column that the database itself fills from the body, so that they never differ."""
    return models.GeneratedField(expression=RawSQL(sql, []), output_field=field, db_persist=True)


class AuditEvent(models.Model):
    """One event of a tenant (or of the platform, if it has none). Its id is of version 7."""

    event_id = models.UUIDField(primary_key=True)
    tenant_id = models.UUIDField(null=True)
    body = models.JSONField()
    occurred_at = models.DateTimeField()
    stored_at = models.DateTimeField(default=timezone.now)
    action = _of_body("body ->> 'action'", models.TextField())
    outcome = _of_body("body ->> 'outcome'", models.TextField())
    severity = _of_body("body ->> 'severity'", models.TextField())
    initiator = _of_body("body #>> '{initiator,id}'", models.TextField())
    target = _of_body("body #>> '{target,name}'", models.TextField())
    correlation_id = _of_body("body ->> 'correlationId'", models.TextField())
    is_data = _of_body("(body ->> 'dataEvent')::boolean", models.BooleanField())

    class Meta:
        indexes = [
            models.Index(fields=["tenant_id", "-event_id"], name="audit_by_tenant"),
            models.Index(
                fields=["tenant_id", "action", "-event_id"],
                name="audit_by_action",
                opclasses=["uuid_ops", "text_pattern_ops", "uuid_ops"],
            ),
            models.Index(fields=["tenant_id", "initiator", "-event_id"], name="audit_by_initiator"),
            models.Index(fields=["tenant_id", "correlation_id"], name="audit_by_correlation"),
            models.Index(
                fields=["tenant_id", "target", "-event_id"],
                name="audit_by_target",
                opclasses=["uuid_ops", "text_pattern_ops", "uuid_ops"],
            ),
            models.Index(fields=["tenant_id", "occurred_at"], name="audit_by_time"),
        ]


class AuditUnlinked(models.Model):
    """An event that waits for its place in the chain."""

    event_id = models.UUIDField(primary_key=True)
    chain_id = models.UUIDField()
    stored_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["chain_id", "stored_at", "event_id"], name="audit_unlinked_order")
        ]


class AuditLink(models.Model):
    """Place `sequence` of a chain. `digest` covers the event, the sequence and the digest before.

    `chain_id` is the tenant's id, or `PLATFORM`; digests are hexadecimal SHA-256.
    """

    event_id = models.UUIDField(primary_key=True)
    chain_id = models.UUIDField()
    sequence = models.BigIntegerField()
    stored_at = models.DateTimeField()
    previous = models.CharField(max_length=64)
    digest = models.CharField(max_length=64)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["chain_id", "sequence"], name="audit_link_is_unique")
        ]


class AuditHead(models.Model):
    """The newest link of a chain. Its row lock orders those who append."""

    chain_id = models.UUIDField(primary_key=True)
    sequence = models.BigIntegerField(default=0)
    digest = models.CharField(max_length=64, default="0" * 64)
    linked_at = models.DateTimeField(default=timezone.now)


class AuditCheckpoint(models.Model):
    """Links up to `sequence` may go: their time is over. The next one continues from `digest`."""

    id = models.BigAutoField(primary_key=True)
    chain_id = models.UUIDField()
    sequence = models.BigIntegerField()
    digest = models.CharField(max_length=64)
    stored_before = models.DateTimeField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["chain_id", "sequence"], name="audit_checkpoint_is_unique"
            )
        ]


class AuditClaim(models.Model):
    """The id that a data plane gave to an event, claimed in the transaction that stored it."""

    event_id = models.UUIDField(primary_key=True)
    claimed_at = models.DateTimeField(default=timezone.now, db_index=True)


class InstanceAudit(models.Model):
    """Whether an instance's data events (reads and writes of its data) are kept."""

    instance_id = models.UUIDField(primary_key=True)
    data_events = models.BooleanField(default=False)
    updated_at = models.DateTimeField(auto_now=True)


class DrainKind(models.TextChoices):
    WEBHOOK = "webhook"
    S3 = "s3"
    FOLDER = "folder"


class AuditDrain(BaseModel):
    """Where a tenant's events are delivered to, in the order of their chain, at least once.

    Up to `cursor` all is delivered. `sending_to` is the end of the batch that is on its way: who
    takes over from a dead worker sends the very same batch, under the same name.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="audit_drains")
    name = models.CharField(max_length=80)
    kind = models.CharField(max_length=8, choices=DrainKind.choices)
    config = models.JSONField(default=dict)
    secret_sealed = models.TextField(blank=True)
    is_enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=300, blank=True)
    cursor = models.BigIntegerField(default=0)
    sending_to = models.BigIntegerField(null=True, blank=True)
    due_at = models.DateTimeField(default=timezone.now)
    lease = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0)
    failing_since = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=300, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="audit_drain_name_is_unique"),
            models.CheckConstraint(
                condition=models.Q(kind__in=DrainKind.values), name="audit_drain_kind_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name

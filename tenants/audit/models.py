"""AuditEvent: one event, written once. A trigger refuses changes (migration 0002)."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class AuditEvent(models.Model):
    """One event: a control-plane action of a tenant, or what a data plane handed in.

    Ours have a tenant, and an id of version 7, which is their order. No foreign key: an event
    outlives what it tells of.
    """

    event_id = models.UUIDField(primary_key=True)
    tenant_id = models.UUIDField(null=True)
    body = models.JSONField()
    received_at = models.DateTimeField()
    stored_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        indexes = [models.Index(fields=["tenant_id", "-event_id"], name="audit_by_tenant")]

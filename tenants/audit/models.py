"""AuditEvent: one event, written once. A trigger refuses changes (migration 0002)."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class AuditEvent(models.Model):
    """An event as the data plane handed it in; the body is CADF JSON."""

    event_id = models.UUIDField(primary_key=True)
    body = models.JSONField()
    received_at = models.DateTimeField()
    stored_at = models.DateTimeField(default=timezone.now, db_index=True)

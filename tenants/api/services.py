"""Writes: the answers kept for repetitions are forgotten after a day."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from tenants.api.models import IdempotencyKey
from tenants.operations.services import operation_keys_forget

RETENTION = timedelta(hours=24)


def idempotency_keys_forget() -> int:
    """Delete answers that nobody will ask for again; return how many."""
    before = timezone.now() - RETENTION
    operation_keys_forget(before=before)
    return IdempotencyKey.objects.filter(created_at__lt=before).delete()[0]

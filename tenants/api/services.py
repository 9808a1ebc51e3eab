"""Writes: the answers kept for repetitions are forgotten after a day."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from tenants.api.models import IdempotencyKey

RETENTION = timedelta(hours=24)


def idempotency_keys_forget() -> int:
    """Delete answers that nobody will ask for again; return how many."""
    old = IdempotencyKey.objects.filter(created_at__lt=timezone.now() - RETENTION)
    return old.delete()[0]

"""Celery: take audit events in."""

from __future__ import annotations

from celery import shared_task

from tenants.audit import services


@shared_task(name="audit.take_in")
def audit_take_in() -> None:
    while services.audit_take_in() >= services.BATCH_ROWS:
        pass

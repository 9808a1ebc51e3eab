"""Celery: take data planes' events in, give events their places, months ahead and months gone."""

from __future__ import annotations

import time
from uuid import UUID

from celery import shared_task

from tenants.audit import chain, drains, retention, services

# How long a worker stays with one drain that has much to deliver.
DRAIN_SECONDS = 30.0


@shared_task(name="audit.take_in")
def audit_take_in() -> None:
    while services.audit_take_in() >= services.BATCH_ROWS:
        pass


@shared_task(name="audit.link")
def audit_link() -> None:
    chain.chains_link()


@shared_task(name="audit.forget_claims")
def audit_forget_claims() -> None:
    services.audit_claims_forget()


@shared_task(name="audit.retention")
def audit_retention() -> None:
    retention.months_make()
    retention.retention_apply()


@shared_task(name="audit.drain")
def audit_drain() -> None:
    """Give every drain that is due to a worker of its own: a slow receiver delays no other."""
    for drain_id in drains.drains_due():
        audit_drain_run.apply_async(args=(str(drain_id),), retry=False, expires=DRAIN_SECONDS)


@shared_task(name="audit.drain_run")
def audit_drain_run(drain_id: str) -> None:
    until = time.monotonic() + DRAIN_SECONDS
    while drains.drain_run(drain_id=UUID(drain_id)) and time.monotonic() < until:
        pass

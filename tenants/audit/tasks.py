"""Celery: take data planes' events in, give events their places, months ahead and months gone."""

from __future__ import annotations

from celery import shared_task

from tenants.audit import chain, retention, services


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

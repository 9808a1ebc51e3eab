"""Celery: roll usage up, forget old keys."""

from __future__ import annotations

from celery import shared_task

from tenants.usage import services


@shared_task(name="usage.roll_up")
def usage_roll_up() -> None:
    """Take in all that is there, batch by batch."""
    while services.usage_roll_up() >= services.BATCH_ROWS:
        pass


@shared_task(name="usage.forget_claims")
def usage_forget_claims() -> None:
    services.usage_forget_claims()

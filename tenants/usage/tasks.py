"""Celery: roll usage up, sample what is held, forget old keys and minutes."""

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


@shared_task(name="usage.sample")
def usage_sample() -> None:
    services.usage_sample()


@shared_task(name="usage.forget_minutes")
def usage_forget_minutes() -> None:
    services.usage_forget_minutes()

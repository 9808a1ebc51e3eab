"""Celery: forget old idempotency keys."""

from __future__ import annotations

from celery import shared_task

from tenants.api import services


@shared_task(name="api.forget_keys")
def api_forget_keys() -> None:
    services.idempotency_keys_forget()

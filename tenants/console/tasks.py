"""Celery: the data explorer's credentials whose time is over are revoked."""

from __future__ import annotations

from celery import shared_task

from tenants.console.explorer import access


@shared_task(name="console.sweep_access")
def console_sweep_access() -> None:
    access.access_sweep()

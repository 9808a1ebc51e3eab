"""Celery: purge what left quarantine, drop secrets whose time is over."""

from __future__ import annotations

from celery import shared_task

from tenants.instances import credentials, services


@shared_task(name="instances.purge_due")
def instances_purge_due() -> None:
    services.instance_purge_due()


@shared_task(name="instances.sweep_secrets")
def instances_sweep_secrets() -> None:
    credentials.secret_sweep()

"""Celery: purge what left quarantine, drop secrets and files whose time is over."""

from __future__ import annotations

from celery import shared_task

from tenants.instances import credentials, files, services


@shared_task(name="instances.purge_due")
def instances_purge_due() -> None:
    services.instance_purge_due()


@shared_task(name="instances.sweep_secrets")
def instances_sweep_secrets() -> None:
    credentials.secret_sweep()


@shared_task(name="instances.sweep_files")
def instances_sweep_files() -> None:
    files.files_sweep()

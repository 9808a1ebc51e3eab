"""Celery: start what is due, end what is over, remove bytes, archive logs, wrap keys anew."""

from __future__ import annotations

from celery import shared_task

from tenants.backups import keys, retention, schedules, wal


@shared_task(name="backups.start_due")
def backups_start_due() -> None:
    schedules.backups_start_due()


@shared_task(name="backups.expire")
def backups_expire() -> None:
    retention.backups_expire()


@shared_task(name="backups.sweep")
def backups_sweep() -> None:
    retention.backups_sweep()


@shared_task(name="backups.ship_wal")
def backups_ship_wal() -> None:
    wal.wal_ship()


@shared_task(name="backups.expire_wal")
def backups_expire_wal() -> None:
    wal.wal_expire()


@shared_task(name="backups.rewrap_keys")
def backups_rewrap_keys() -> None:
    while keys.rewrap() >= keys.REWRAP_ROWS:
        pass

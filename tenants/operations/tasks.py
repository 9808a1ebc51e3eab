"""Celery: run an operation, reap. A message may come twice, late, or never; the rows decide."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from tenants.operations import runner, services


@shared_task(name="operations.run")
def operation_run(operation_id: str) -> None:
    runner.operation_run(operation_id=UUID(operation_id))


@shared_task(name="operations.reap")
def operation_reap() -> None:
    services.operation_reap()

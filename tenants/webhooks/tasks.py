"""Celery: carry deliveries out, forget old ones."""

from __future__ import annotations

from celery import shared_task

from tenants.webhooks import delivery

# Well within a task's time limit, at up to 15 seconds a batch.
BATCHES_MAX = 4


@shared_task(name="webhooks.deliver")
def webhooks_deliver() -> None:
    for _ in range(BATCHES_MAX):
        if delivery.deliveries_run() == 0:
            return


@shared_task(name="webhooks.forget")
def webhooks_forget() -> None:
    delivery.webhooks_forget()

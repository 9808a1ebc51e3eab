"""Celery: carry deliveries out, forget old ones."""

from __future__ import annotations

from celery import shared_task

from tenants.webhooks import delivery
from tenants.webhooks.delivery import Lane

# Well within a task's time limit, at up to 15 seconds a batch.
BATCHES_MAX = 4


@shared_task(name="webhooks.deliver")
def webhooks_deliver() -> None:
    delivery.lane_run(Lane.WORKING, batches=BATCHES_MAX)


@shared_task(name="webhooks.deliver_to_failing")
def webhooks_deliver_to_failing() -> None:
    delivery.lane_run(Lane.FAILING, batches=BATCHES_MAX)


@shared_task(name="webhooks.forget")
def webhooks_forget() -> None:
    delivery.webhooks_forget()

"""Celery: take in when credentials were last used, forget the hosts' old tasks."""

from __future__ import annotations

from celery import shared_task

from tenants.publish import host_tasks, services


@shared_task(name="publish.take_key_seen")
def publish_take_key_seen() -> None:
    services.key_seen_take()


@shared_task(name="publish.forget_tasks")
def publish_forget_tasks() -> None:
    host_tasks.tasks_forget()

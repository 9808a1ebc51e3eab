"""Celery: take in when credentials were last used."""

from __future__ import annotations

from celery import shared_task

from tenants.publish import services


@shared_task(name="publish.take_key_seen")
def publish_take_key_seen() -> None:
    services.key_seen_take()

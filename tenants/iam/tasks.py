"""Celery: the signing keys take turns; secrets and refresh tokens whose time is over go."""

from __future__ import annotations

from celery import shared_task

from tenants.iam import expiry, services, signing, tokens


@shared_task(name="iam.rotate_signing_keys")
def iam_rotate_signing_keys() -> None:
    signing.signing_keys_rotate()


@shared_task(name="iam.sweep")
def iam_sweep() -> None:
    services.api_key_secrets_sweep()
    tokens.refresh_tokens_sweep()


@shared_task(name="iam.tell_expiring_keys")
def iam_tell_expiring_keys() -> None:
    expiry.keys_expiring_tell()

"""The header `Idempotency-Key` on requests that create: a repetition gets the first one's answer.

The key is claimed in the same transaction as the change. Two requests at once with one key: the
second waits for the first. A refused request claims nothing. Secrets are not kept: a repetition has
null there.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

from django.db import IntegrityError, transaction
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.models import IdempotencyKey
from tenants.api.service_api import TenantApi
from tenants.core.errors import ConflictError, invalid_field

HEADER = "Idempotency-Key"
KEY_CHARACTERS_MAX = 128
SECRET_FIELDS = frozenset({"password", "token", "uri", "uri_tls", "uri_pooled", "secret"})

Handler = Callable[..., Response]


def idempotency_key(request: Request) -> str:
    """Return the header's value, "" without one."""
    key = request.headers.get(HEADER, "").strip()
    if len(key) > KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        raise invalid_field(HEADER, f"up to {KEY_CHARACTERS_MAX} printable ASCII characters")
    return key


def idempotent(handler: Handler) -> Handler:
    """Make a method of a TenantApi answer a repeated request from memory."""

    @functools.wraps(handler)
    def handle(self: TenantApi, request: Request, **kwargs: Any) -> Response:
        key = idempotency_key(request)
        if not key:
            return handler(self, request, **kwargs)
        fingerprint = _fingerprint(request, self.actor.name)
        with transaction.atomic():
            claim, known = _claim(self, key, fingerprint)
            if known is not None:
                return known
            response = handler(self, request, **kwargs)
            claim.status = response.status_code
            claim.body = without_secrets(response.data)
            claim.save(update_fields=["status", "body", "updated_at"])
        return response

    return handle


def without_secrets(body: Any) -> Any:
    """Return a copy in which every secret is null."""
    if isinstance(body, dict):
        return {
            name: None if name in SECRET_FIELDS else without_secrets(value)
            for name, value in body.items()
        }
    if isinstance(body, list):
        return [without_secrets(value) for value in body]
    return body


def _claim(api: TenantApi, key: str, fingerprint: str) -> tuple[IdempotencyKey, Response | None]:
    try:
        with transaction.atomic():
            claim = IdempotencyKey.objects.create(
                tenant=api.actor.tenant, key=key, fingerprint=fingerprint
            )
        return claim, None
    except IntegrityError:
        known = IdempotencyKey.objects.get(tenant=api.actor.tenant, key=key)
    if known.fingerprint != fingerprint:
        raise ConflictError(
            "this idempotency key belongs to another request", code="idempotency_key_reused"
        )
    return known, Response(known.body, known.status, headers={"Idempotency-Replayed": "true"})


def _fingerprint(request: Request, actor: str) -> str:
    # The raw body is gone once it was parsed; what was parsed is the same for the same bytes.
    parts = [actor, request.method or "", request.path, repr(request.data)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()

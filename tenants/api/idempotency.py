"""The header `Idempotency-Key` on requests that create: a repetition gets the first one's answer.

The key is claimed in the same transaction as the change. Two requests at once with one key: the
second waits for the first. A refused request claims nothing. Secrets are not kept: a repetition has
null there.

Below a tenant a key is the tenant's, elsewhere the caller's. So it is too where success ends the
right to ask (`OnceApi`): who has left a tenant is answered before it is asked who they are there.
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
from tenants.api.rate_limits import caller_of
from tenants.api.service_api import ServiceApi, TenantApi
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
    """Make a method of an endpoint answer a repeated request from memory."""

    @functools.wraps(handler)
    def handle(self: ServiceApi, request: Request, **kwargs: Any) -> Response:
        key = idempotency_key(request)
        if not key:
            return handler(self, request, **kwargs)
        with transaction.atomic():
            claim, known = _claim(_scope(self), key, _fingerprint(request))
            if known is not None:
                return known
            response = handler(self, request, **kwargs)
            claim.status = response.status_code
            claim.body = without_secrets(response.data)
            claim.save(update_fields=["status", "body", "updated_at"])
        return response

    return handle


class OnceApi(TenantApi):
    """An endpoint whose success takes the right to ask again: repetitions go before that right."""

    def admit(self, **kwargs: Any) -> None:
        """Let a repetition in; else ask as everywhere."""
        key = idempotency_key(self.request)
        claim = IdempotencyKey.objects.filter(**_scope(self), key=key).first() if key else None
        self.replay = _replay(claim, _fingerprint(self.request)) if claim else None
        if self.replay is None:
            super().admit(**kwargs)

    replay: Response | None = None


def idempotent_once(handler: Handler) -> Handler:
    """Make a method of a `OnceApi` answer a repeated request from memory."""
    once = idempotent(handler)

    @functools.wraps(handler)
    def handle(self: OnceApi, request: Request, **kwargs: Any) -> Response:
        return once(self, request, **kwargs) if self.replay is None else self.replay

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


def _scope(api: ServiceApi) -> dict[str, Any]:
    """Return whose keys the request's is one of."""
    if isinstance(api, TenantApi) and not isinstance(api, OnceApi):
        return {"tenant": api.actor.tenant, "caller": ""}
    return {"tenant": None, "caller": caller_of(api.request)}


def _claim(
    scope: dict[str, Any], key: str, fingerprint: str
) -> tuple[IdempotencyKey, Response | None]:
    try:
        with transaction.atomic():
            return IdempotencyKey.objects.create(**scope, key=key, fingerprint=fingerprint), None
    except IntegrityError:
        known = IdempotencyKey.objects.get(**scope, key=key)
    return known, _replay(known, fingerprint)


def _replay(known: IdempotencyKey, fingerprint: str) -> Response:
    """Return the first answer; ConflictError if that was to another request."""
    if known.fingerprint != fingerprint:
        raise ConflictError(
            "this idempotency key belongs to another request", code="idempotency_key_reused"
        )
    return Response(known.body, known.status, headers={"Idempotency-Replayed": "true"})


def _fingerprint(request: Request) -> str:
    # The raw body is gone once it was parsed; what was parsed is the same for the same bytes.
    parts = [caller_of(request), request.method or "", request.path, repr(request.data)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()

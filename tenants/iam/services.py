"""Writes: API keys; and the check that a request's key is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole, Tenant
from tenants.core.errors import LimitError, invalid_field
from tenants.iam import secrets
from tenants.iam.addresses import address_allowed, cidrs_clean
from tenants.iam.models import ApiKey

API_KEYS_MAX = 200
# `last_used_at` is for people who look for dead keys; a write a request would be too dear.
LAST_USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key and, this one time, its text."""

    api_key: ApiKey
    token: str


@transaction.atomic
def api_key_create(
    *,
    actor: Actor,
    name: str,
    role: MemberRole,
    expires_at: datetime | None = None,
    cidrs: Sequence[str] = (),
) -> NewApiKey:
    """Mint a key that may do no more than who mints it."""
    actor.demand_may_grant(role)
    if expires_at is not None and expires_at <= timezone.now():
        raise invalid_field("expires_at", "this time is past")
    # One lock for all that is counted of a tenant, as for its members and instances.
    Tenant.objects.select_for_update(no_key=True).get(pk=actor.tenant.pk)
    if ApiKey.objects.filter(tenant=actor.tenant, revoked_at=None).count() >= API_KEYS_MAX:
        raise LimitError(f"a tenant has at most {API_KEYS_MAX} API keys")
    minted = secrets.mint()
    api_key = ApiKey.objects.create(
        tenant=actor.tenant,
        name=name,
        key_id=minted.key_id,
        pepper_id=minted.pepper_id,
        digest=minted.digest,
        role=role,
        cidrs=cidrs_clean(cidrs, field="cidrs"),
        expires_at=expires_at,
        created_by=actor.name,
    )
    return NewApiKey(api_key, minted.token)


@transaction.atomic
def api_key_revoke(*, api_key: ApiKey) -> None:
    """End a key at once and for good; revoking it again changes nothing."""
    ApiKey.objects.filter(pk=api_key.pk, revoked_at=None).update(revoked_at=timezone.now())


def api_key_authenticate(*, token: str, address: str) -> ApiKey | None:
    """Return the live key that `token` is, if it may be used from `address`."""
    key_id = secrets.key_id_of(token)
    now = timezone.now()
    live = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now))
    api_key = ApiKey.objects.select_related("tenant").filter(live, key_id=key_id).first()
    if api_key is None:
        # The same work as for a key that exists, so that timing tells nothing.
        secrets.matches(token, secrets.NO_DIGEST, secrets.newest_pepper_id())
        return None
    if not secrets.matches(token, api_key.digest, api_key.pepper_id):
        return None
    if not address_allowed(address, api_key.cidrs):
        return None
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USED_EVERY)
    ApiKey.objects.filter(stale, pk=api_key.pk).update(last_used_at=now)
    return api_key

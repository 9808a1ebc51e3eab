"""Writes: API keys and their secrets; and the check that a request's key is one.

A key's text is in the result, once, and nowhere else. Whoever can read it can do what the key can:
so only who may do all of that mints a key or a new secret of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole, Tenant
from tenants.core.errors import ConflictError, ForbiddenError, LimitError, invalid_field
from tenants.iam import secrets
from tenants.iam.addresses import address_allowed, cidrs_clean
from tenants.iam.models import SECRETS_MAX, ApiKey, ApiKeySecret, ServiceId
from tenants.iam.selectors import policies_of_key

API_KEYS_MAX = 200
GRACE_MAX = timedelta(days=30)
# `last_used_at` is for people who look for dead keys; a write a request would be too dear.
LAST_USED_EVERY = timedelta(minutes=1)
ENVIRONMENT = RegexValidator(r"^[a-z0-9][a-z0-9-]{0,31}\Z")


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
    role: MemberRole | None = None,
    service: ServiceId | None = None,
    is_own: bool = False,
    expires_at: datetime | None = None,
    cidrs: Sequence[str] = (),
    environment: str = "",
) -> NewApiKey:
    """Mint a key of a service id, of the member who asks, or of the tenant with a role.

    It may do no more than who mints it. A key of the tenant without a role can do nothing until
    it has policies.
    """
    if (service is not None or is_own) and role is not None:
        raise invalid_field("role", "a service id's or a member's key has what its owner has")
    if is_own and actor.member_id is None:
        raise ForbiddenError("only a member has keys of their own")
    # One lock for all that is counted of a tenant, as for its members and instances.
    Tenant.objects.select_for_update(no_key=True).get(pk=actor.tenant.pk)
    if ApiKey.objects.filter(tenant=actor.tenant, revoked_at=None).count() >= API_KEYS_MAX:
        raise LimitError(f"a tenant has at most {API_KEYS_MAX} API keys")
    if service is not None:
        service = _live_service(actor, service)
    minted = secrets.mint()
    api_key = ApiKey(
        tenant=actor.tenant,
        service=service,
        membership_id=actor.member_id if is_own else None,
        name=name,
        key_id=minted.key_id,
        role=role.value if role else "",
        created_by=actor.name,
        **_checked({"cidrs": cidrs, "expires_at": expires_at, "environment": environment}),
    )
    _demand_all_of(actor, api_key)
    api_key.save(force_insert=True)
    _secret_add(api_key, minted)
    return NewApiKey(api_key, minted.token)


@transaction.atomic
def api_key_change(*, api_key: ApiKey, changes: Mapping[str, Any]) -> ApiKey:
    """Change `name`, `is_enabled`, `cidrs`, `environment` or `expires_at`."""
    api_key = _locked(api_key)
    values = _checked(changes)
    for name, value in values.items():
        setattr(api_key, name, value)
    api_key.save(update_fields=[*values, "updated_at"])
    return api_key


@transaction.atomic
def api_key_reroll(*, actor: Actor, api_key: ApiKey, grace: timedelta | None = None) -> NewApiKey:
    """Issue a new secret now; the old one lives on for `grace`. An older one ends at once.

    Tokens end with the secret that they were exchanged for.
    """
    grace = settings.SECRET_GRACE if grace is None else grace
    if not timedelta(0) <= grace <= GRACE_MAX:
        raise invalid_field("grace_s", f"0 to {int(GRACE_MAX.total_seconds())}")
    api_key = _locked(api_key)
    _demand_all_of(actor, api_key)
    old = api_key.secrets.order_by("-issued_at").first()
    assert old is not None, "a key that is not revoked has a secret"
    api_key.secrets.exclude(pk=old.pk).delete()
    ends_at = timezone.now() + grace
    if grace:
        # A secret that was to end sooner does.
        old.expires_at = min(old.expires_at or ends_at, ends_at)
        old.save(update_fields=["expires_at", "updated_at"])
    else:
        old.delete()
    minted = secrets.mint(api_key.key_id)
    _secret_add(api_key, minted)
    return NewApiKey(api_key, minted.token)


@transaction.atomic
def api_key_revoke(*, api_key: ApiKey) -> None:
    """End a key, and every token exchanged for it, at once and for good. Twice is fine."""
    ApiKey.objects.filter(pk=api_key.pk, revoked_at=None).update(
        revoked_at=timezone.now(), is_enabled=False
    )
    ApiKeySecret.objects.filter(api_key=api_key.pk).delete()


def api_key_authenticate(*, token: str, address: str) -> ApiKey | None:
    """Return the live key that `token` is, if it may be used from `address`."""
    secret = secret_authenticate(token=token, address=address)
    return None if secret is None else secret.api_key


def secret_authenticate(*, token: str, address: str) -> ApiKeySecret | None:
    """Return the live secret that `token` is, if its key may be used from `address`."""
    found = _live_secrets().filter(api_key__key_id=secrets.key_id_of(token))
    matched = None
    compared = 0
    for secret in found:
        compared += 1
        if secrets.matches(token, secret.digest, secret.pepper_id):
            matched = secret
    # The same work for every key id, known or not, so that timing tells nothing.
    for _ in range(SECRETS_MAX - compared):
        secrets.matches(token, secrets.NO_DIGEST, secrets.newest_pepper_id())
    return _admitted(matched, address)


def secret_recall(*, secret_id: Any, key_id: str, address: str) -> ApiKeySecret | None:
    """Return the secret that a token of ours names, if it lives and may be used from there."""
    found = _live_secrets().filter(pk=secret_id, api_key__key_id=key_id).first()
    return _admitted(found, address)


def api_key_secrets_sweep() -> int:
    """Delete secrets whose time is over; return how many."""
    due = ApiKeySecret.objects.filter(expires_at__lte=timezone.now())
    return due.delete()[1].get("iam.ApiKeySecret", 0)


def _live_secrets() -> Any:
    now = timezone.now()
    return ApiKeySecret.objects.select_related(
        "api_key__tenant", "api_key__service", "api_key__membership__user"
    ).filter(
        Q(expires_at=None) | Q(expires_at__gt=now),
        Q(api_key__expires_at=None) | Q(api_key__expires_at__gt=now),
        Q(api_key__service=None)
        | Q(api_key__service__is_enabled=True, api_key__service__deleted_at=None),
        Q(api_key__membership=None) | Q(api_key__membership__user__is_active=True),
        api_key__revoked_at=None,
        api_key__is_enabled=True,
    )


def _admitted(secret: ApiKeySecret | None, address: str) -> ApiKeySecret | None:
    if secret is None or not address_allowed(address, secret.api_key.cidrs):
        return None
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USED_EVERY)
    used_at = secret.api_key.last_used_at
    if used_at is None or used_at < now - LAST_USED_EVERY:
        ApiKey.objects.filter(stale, pk=secret.api_key.pk).update(last_used_at=now)
    return secret


def _secret_add(api_key: ApiKey, minted: secrets.Minted) -> ApiKeySecret:
    free = set(range(SECRETS_MAX)) - {secret.slot for secret in api_key.secrets.all()}
    assert free, "the caller makes room first"
    return ApiKeySecret.objects.create(
        api_key=api_key, slot=min(free), pepper_id=minted.pepper_id, digest=minted.digest
    )


def _demand_all_of(actor: Actor, api_key: ApiKey) -> None:
    """Refuse who may not do all that the key may."""
    if api_key.membership_id is not None:
        if api_key.membership_id != actor.member_id:
            raise ForbiddenError("a member's key is minted by that member alone")
        return
    if api_key.role:
        actor.demand_may_grant(MemberRole(api_key.role))
    if not all(actor.may_grant(policy) for policy in policies_of_key(api_key=api_key)):
        raise ForbiddenError("this key may do more than you")


def _checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a key's plain attributes, each in the form that is kept."""
    values = dict(changes)
    expires_at, environment = values.get("expires_at"), values.get("environment")
    if expires_at is not None and expires_at <= timezone.now():
        raise invalid_field("expires_at", "this time is past")
    if environment and not ENVIRONMENT.regex.match(environment):  # type: ignore[union-attr]
        raise invalid_field("environment", "1 to 32 lower-case letters, digits and hyphens")
    if "cidrs" in values:
        values["cidrs"] = cidrs_clean(values["cidrs"], field="cidrs")
    return values


def _locked(api_key: ApiKey) -> ApiKey:
    found = ApiKey.objects.select_for_update(of=("self",)).get(pk=api_key.pk)
    if found.revoked_at is not None:
        raise ConflictError("the API key is revoked", code="api_key_revoked")
    return found


def _live_service(actor: Actor, service: ServiceId) -> ServiceId:
    # Its policies must not change between the look at them and the key.
    found = ServiceId.objects.select_for_update(no_key=True).filter(
        pk=service.pk, tenant=actor.tenant, deleted_at=None
    )
    live = found.first()
    if live is None:
        raise ConflictError("the service id is deleted", code="service_id_deleted")
    return live

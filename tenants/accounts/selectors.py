"""Reads: the tenants and sessions of a user, the members and invitations of a tenant."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.utils import timezone

from tenants.accounts.models import Invitation, Membership, Tenant, User
from tenants.accounts.second_factors import KINDS
from tenants.core.errors import NotFoundError

SESSIONS_SHOWN_MAX = 200


def tenant_list(*, user: User) -> QuerySet[Tenant]:
    """Return the tenants that `user` is a member of."""
    return Tenant.objects.filter(memberships__user=user)


def membership_list(*, user: User) -> QuerySet[Membership]:
    """Return what `user` is in each of its tenants, by the tenants' handles."""
    return Membership.objects.filter(user=user).select_related("tenant").order_by("tenant__handle")


def membership_find(*, user: User, tenant: str) -> Membership:
    """Return what `user` is in the tenant of this handle; NotFoundError if nothing."""
    found = (
        Membership.objects.select_related("tenant").filter(user=user, tenant__handle=tenant).first()
    )
    if found is None:
        raise NotFoundError("there is no such tenant")
    return found


def member_list(*, tenant: Tenant) -> QuerySet[Membership]:
    """Return the members of `tenant`."""
    return Membership.objects.filter(tenant=tenant).select_related("user")


def member_get(*, tenant: Tenant, member_id: UUID) -> Membership:
    """Return one member of `tenant`."""
    found = member_list(tenant=tenant).filter(pk=member_id).first()
    if found is None:
        raise NotFoundError("there is no such member")
    return found


def invitation_list(*, tenant: Tenant) -> QuerySet[Invitation]:
    """Return the invitations that wait to be accepted, expired ones too."""
    return Invitation.objects.filter(tenant=tenant, accepted_at=None, revoked_at=None)


def invitation_get(*, tenant: Tenant, invitation_id: UUID) -> Invitation:
    """Return one invitation of `tenant`, also one that has ended."""
    found = Invitation.objects.filter(tenant=tenant, pk=invitation_id).first()
    if found is None:
        raise NotFoundError("there is no such invitation")
    return found


def session_list(*, user: User) -> list[UserSession]:
    """Return the live sessions of `user`, the newest first."""
    rows = UserSession.objects.filter(user=user).order_by("-created_at")[:SESSIONS_SHOWN_MAX]
    keys = [row.session_key for row in rows]
    stored = Session.objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
    # A changed password ends sessions without deleting them.
    valid = user.get_session_auth_hash()
    live = {
        each.session_key for each in stored if each.get_decoded().get(HASH_SESSION_KEY) == valid
    }
    return [row for row in rows if row.session_key in live]


def second_factor_holders(*, user_ids: Iterable[UUID]) -> set[UUID]:
    """Return which of these people have a second factor."""
    found = Authenticator.objects.filter(user__in=list(user_ids), type__in=KINDS)
    return set(found.values_list("user_id", flat=True))

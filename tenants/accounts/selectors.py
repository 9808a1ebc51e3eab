"""Reads: the tenants of a user, the members of a tenant."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from tenants.accounts.models import Membership, Tenant, User
from tenants.core.errors import NotFoundError


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

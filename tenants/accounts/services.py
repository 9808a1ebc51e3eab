"""Writes: tenants and members. The last owner of a tenant can neither leave nor step down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole, Membership, Tenant, User
from tenants.accounts.second_factors import has_second_factor
from tenants.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    LimitError,
    invalid_field,
)
from tenants.webhooks.services import webhook_emit

TENANTS_OWNED_MAX = 10


@transaction.atomic
def tenant_create(*, handle: str, name: str = "") -> Tenant:
    """Make an organisation without members."""
    tenant = Tenant(handle=handle, name=name or handle)
    try:
        tenant.full_clean(validate_unique=False)
    except ValidationError as error:
        raise InvalidError("the tenant is not valid", fields=error.message_dict) from error
    try:
        with transaction.atomic():
            tenant.save(force_insert=True)
    except IntegrityError as error:
        raise ConflictError("this handle is taken", code="handle_taken") from error
    return tenant


@transaction.atomic
def tenant_start(*, user: User, handle: str) -> Tenant:
    """Make an organisation that `user` owns."""
    User.objects.select_for_update().get(pk=user.pk)
    owned = Membership.objects.filter(user=user, role=MemberRole.OWNER).count()
    if owned >= TENANTS_OWNED_MAX:
        raise LimitError(f"a person owns up to {TENANTS_OWNED_MAX} tenants")
    tenant = tenant_create(handle=handle)
    Membership.objects.create(tenant=tenant, user=user, role=MemberRole.OWNER)
    return tenant


@transaction.atomic
def tenant_change(*, actor: Actor, changes: Mapping[str, Any]) -> Tenant:
    """Change `name` and `requires_second_factor`; who demands a second factor has one."""
    tenant = Tenant.objects.select_for_update().get(pk=actor.tenant.pk)
    if not str(changes.get("name", "x")).isprintable():
        raise invalid_field("name", "one line of printable text")
    if changes.get("requires_second_factor") and actor.member_id is not None:
        user = User.objects.get(memberships=actor.member_id)
        if not has_second_factor(user):
            raise ConflictError(
                "set up a second factor of your own first: else this would lock you out",
                code="second_factor_missing",
            )
    for name in ("name", "requires_second_factor"):
        if name in changes:
            setattr(tenant, name, changes[name])
    tenant.save()
    return tenant


@transaction.atomic
def member_change(*, actor: Actor, membership: Membership, role: MemberRole) -> Membership:
    """Give a member another role."""
    membership = _locked(actor, membership)
    actor.demand_may_grant(MemberRole(membership.role))
    actor.demand_may_grant(role)
    if role is not MemberRole.OWNER:
        _demand_other_owner(membership)
    membership.role = role
    membership.save(update_fields=["role", "updated_at"])
    return membership


@transaction.atomic
def member_remove(*, actor: Actor, membership: Membership) -> None:
    """Take a person out of the tenant; the user stays."""
    membership = _locked(actor, membership)
    actor.demand_may_grant(MemberRole(membership.role))
    _demand_other_owner(membership)
    _remove(membership)


@transaction.atomic
def member_leave(*, actor: Actor) -> None:
    """Leave a tenant; its last owner cannot."""
    if actor.member_id is None:
        raise ForbiddenError("only a member can leave")
    membership = _locked(actor, Membership.objects.get(pk=actor.member_id))
    _demand_other_owner(membership)
    _remove(membership)


@transaction.atomic
def ownership_transfer(*, actor: Actor, membership: Membership) -> Membership:
    """Make another member the owner; who gives ownership away stays as an administrator."""
    if actor.member_id is None or actor.role is not MemberRole.OWNER:
        raise ForbiddenError("only an owner can transfer ownership")
    membership = _locked(actor, membership)
    if membership.pk == actor.member_id:
        raise ConflictError("you own it already", code="owner_already")
    # Asked again under the lock: meanwhile another owner may have taken the role away.
    owners = Membership.objects.filter(tenant=actor.tenant, role=MemberRole.OWNER)
    if not owners.filter(pk=actor.member_id).exists():
        raise ForbiddenError("only an owner can transfer ownership")
    membership.role = MemberRole.OWNER
    membership.save(update_fields=["role", "updated_at"])
    Membership.objects.filter(pk=actor.member_id).update(role=MemberRole.ADMIN)
    return membership


def user_rename(*, user: User, name: str) -> None:
    """Give a person another name."""
    User.objects.filter(pk=user.pk).update(name=name)


def _remove(membership: Membership) -> None:
    webhook_emit(
        tenant=membership.tenant_id,
        event_type="member.removed",
        data={"email": membership.user.email},
    )
    membership.delete()


def _locked(actor: Actor, membership: Membership) -> Membership:
    # One lock for all changes of a tenant's members: two owners may step down at the same moment.
    Tenant.objects.select_for_update().get(pk=actor.tenant.pk)
    return Membership.objects.select_related("user").get(pk=membership.pk, tenant=actor.tenant)


def _demand_other_owner(membership: Membership) -> None:
    owners = Membership.objects.filter(tenant=membership.tenant, role=MemberRole.OWNER)
    if membership.role == MemberRole.OWNER and not owners.exclude(pk=membership.pk).exists():
        raise ConflictError("a tenant keeps at least one owner", code="last_owner")

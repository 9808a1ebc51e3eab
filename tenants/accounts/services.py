"""Writes: tenants and members. The last owner of a tenant can neither leave nor step down."""

from __future__ import annotations

from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole, Membership, Tenant, User
from tenants.core.errors import ConflictError, InvalidError


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
def member_add(*, actor: Actor, email: str, role: MemberRole) -> Membership:
    """Add a person by e-mail address; one whom nobody knows yet becomes a user without password."""
    actor.demand_may_grant(role)
    email = email.strip().lower()
    user = User.objects.filter(email=email).first()
    if user is None:
        try:
            with transaction.atomic():
                user = User.objects.create_user(email)
        except IntegrityError:  # invited elsewhere in the same moment
            user = User.objects.get(email=email)
        except ValidationError as error:
            raise InvalidError("the address is not valid", fields=error.message_dict) from error
    try:
        with transaction.atomic():
            return Membership.objects.create(tenant=actor.tenant, user=user, role=role)
    except IntegrityError as error:
        raise ConflictError("this person is a member already", code="member_exists") from error


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
    membership.delete()


def invitation_path_parts(*, membership: Membership) -> tuple[str, str] | None:
    """Return (user, token) for the page where an invited person chooses a password.

    Only for who has no password and is in no other tenant: else one tenant's administrator could
    take over another tenant's member.
    """
    user = membership.user
    elsewhere = user.memberships.exclude(tenant=membership.tenant)
    if user.has_usable_password() or elsewhere.exists():
        return None
    return urlsafe_base64_encode(force_bytes(user.pk)), default_token_generator.make_token(user)


def _locked(actor: Actor, membership: Membership) -> Membership:
    # One lock for all changes of a tenant's members: two owners may step down at the same moment.
    Tenant.objects.select_for_update().get(pk=actor.tenant.pk)
    return Membership.objects.select_related("user").get(pk=membership.pk, tenant=actor.tenant)


def _demand_other_owner(membership: Membership) -> None:
    owners = Membership.objects.filter(tenant=membership.tenant, role=MemberRole.OWNER)
    if membership.role == MemberRole.OWNER and not owners.exclude(pk=membership.pk).exists():
        raise ConflictError("a tenant keeps at least one owner", code="last_owner")

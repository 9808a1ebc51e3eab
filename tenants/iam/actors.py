"""Who a request acts as: a member with its role and policies, or what an API key stands for."""

from __future__ import annotations

from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole, Membership, User
from tenants.accounts.second_factors import second_factor_demand
from tenants.accounts.selectors import membership_find
from tenants.core.errors import NotFoundError
from tenants.iam.models import ApiKey
from tenants.iam.selectors import policies_of_key, policies_of_member


def actor_of_user(*, user: User, tenant: str) -> Actor:
    """Return a signed-in user in the tenant of this handle; NotFoundError if nobody there."""
    membership = membership_find(user=user, tenant=tenant)
    second_factor_demand(user=user, tenant=membership.tenant)
    return _member(membership, f"user:{user.email}")


def actor_of_key(*, api_key: ApiKey, tenant: str) -> Actor:
    """Return what a live key stands for; NotFoundError in a tenant that is not its own."""
    if api_key.tenant.handle != tenant:
        raise NotFoundError("there is no such tenant")
    name = f"key:{api_key.key_id}"
    if api_key.membership is not None:
        return _member(api_key.membership, name)
    role = MemberRole(api_key.role) if api_key.role else None
    return Actor(api_key.tenant, role, name, policies_of_key(api_key=api_key))


def _member(membership: Membership, name: str) -> Actor:
    role = MemberRole(membership.role)
    # An owner holds everything: nothing can be added.
    is_owner = role is MemberRole.OWNER
    granted = () if is_owner else policies_of_member(membership=membership)
    return Actor(membership.tenant, role, name, granted, member_id=membership.pk)

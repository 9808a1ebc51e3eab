"""A tenant may demand a second factor: who has none set up is refused until they do.

Who has one is asked for it at every sign-in, by a password or a provider; so having one is enough.
API keys are not asked: they are no people's sign-ins.
"""

from __future__ import annotations

from allauth.mfa.models import Authenticator

from tenants.accounts.models import Tenant, User
from tenants.core.errors import ForbiddenError

KINDS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def has_second_factor(user: User) -> bool:
    """Say whether `user` has an authenticator app or a passkey."""
    return bool(Authenticator.objects.filter(user=user, type__in=KINDS).exists())


def second_factor_demand(*, user: User, tenant: Tenant) -> None:
    """Refuse a person without a second factor in a tenant that demands one."""
    if tenant.requires_second_factor and not has_second_factor(user):
        raise ForbiddenError(
            f"{tenant.handle} demands a second factor: set one up in your account's security first",
            code="second_factor_required",
        )

"""Reads: may a stranger sign up here, may a person without a tenant make one."""

from __future__ import annotations

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db import connection

from tenants.accounts.models import User

# One sign-up at a time while only the first may: taken in the transaction that makes the user.
LOCK = 0x57656674


def sign_up_is_open() -> bool:
    """Say whether a stranger may make an account and a tenant now."""
    if settings.SIGN_UP == "first":
        return not User.objects.exclude(email=settings.BOOTSTRAP_EMAIL).exists()
    return bool(settings.SIGN_UP == "open")


def sign_up_lock() -> None:
    """Wait for a sign-up that runs; held until the end of the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def may_start_tenant(*, user: User) -> bool:
    """Say whether a signed-in person may make a tenant of their own."""
    if settings.SIGN_UP == "open":
        return True
    return settings.OIDC_SIGN_UP and SocialAccount.objects.filter(user=user).exists()

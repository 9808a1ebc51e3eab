"""Writes: sign-ins are counted, so that nobody guesses without end, and each leaves its event.

An attempt is counted before the password is looked at, so guesses at the same moment cannot slip
through together. Unknown accounts are counted like known ones: the refusal tells nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address, ip_network

from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from tenants.accounts.models import SignInCount, User
from tenants.audit.services import audit_write
from tenants.core.errors import TooManyError

WINDOW = timedelta(minutes=15)
# Attempts in a window. The pair comes first: who guesses from one place locks out nobody else.
ATTEMPTS_MAX: Mapping[str, int] = {"account and address": 10, "address": 50, "account": 100}
# Longer than an authenticator's code is taken: its own half minute, and one on either side.
CODE_LIFE = timedelta(minutes=3)
# Who owns one IPv6 address usually owns the network.
IPV6_NETWORK_BITS = 64

COUNT = """
INSERT INTO accounts_signincount AS old (key, attempts, ends_at) VALUES (%(key)s, 1, %(ends_at)s)
ON CONFLICT (key) DO UPDATE SET
    attempts = CASE WHEN old.ends_at <= %(now)s THEN 1 ELSE old.attempts + 1 END,
    ends_at = CASE WHEN old.ends_at <= %(now)s THEN EXCLUDED.ends_at ELSE old.ends_at END
RETURNING attempts, ends_at
"""


def sign_in_count(*, email: str, address: str) -> None:
    """Count an attempt; raises TooManyError where there were too many."""
    now = timezone.now()
    waits = []
    with transaction.atomic(), connection.cursor() as cursor:
        # In one order everywhere, so that two attempts never wait for each other.
        for scope, key in sorted(_keys(email, address).items()):
            cursor.execute(COUNT, {"key": key, "now": now, "ends_at": now + WINDOW})
            attempts, ends_at = cursor.fetchone()
            if attempts > ATTEMPTS_MAX[scope]:
                waits.append(ends_at - now)
    if waits:
        seconds = int(max(waits).total_seconds()) + 1
        raise TooManyError(
            f"Too many attempts to sign in. Try again in {seconds // 60 + 1} minutes.",
            retry_after_s=seconds,
        )


@transaction.atomic
def sign_in_succeeded(*, user: User, address: str, request_id: str) -> None:
    """Forget the account's attempts, and tell the auditors of its tenants."""
    attempts_forget(email=user.email, address=address)
    _write_events(user, address, request_id, "success", 200)


@transaction.atomic
def attempts_forget(*, email: str, address: str) -> None:
    """Forget an account's attempts; the address keeps those on other accounts."""
    keys = _keys(email, address)
    by_address = keys.pop("address", "")
    SignInCount.objects.filter(key__in=keys.values()).delete()
    SignInCount.objects.filter(key=by_address, attempts__gt=0).update(attempts=F("attempts") - 1)


@transaction.atomic
def sign_in_failed(*, email: str, address: str, request_id: str, reason_code: int = 401) -> None:
    """Tell the auditors of the account's tenants; an account that is none has none."""
    user = User.objects.filter(email=_normal(email)).first()
    if user is not None:
        _write_events(user, address, request_id, "failure", reason_code)


def code_claim(*, user: User, code: str) -> bool:
    """Take a one-time code; False if it was taken already, also at this very moment."""
    now = timezone.now()
    key = hashlib.sha256(f"code\0{user.pk}\0{code}".encode()).hexdigest()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(COUNT, {"key": key, "now": now, "ends_at": now + CODE_LIFE})
        return bool(cursor.fetchone()[0] == 1)


def sign_ins_forget() -> int:
    """Delete counts and sessions whose time is over; return how many."""
    now = timezone.now()
    counts = SignInCount.objects.filter(ends_at__lte=now).delete()[0]
    ended = Session.objects.filter(expire_date__lte=now).delete()[0]
    UserSession.objects.exclude(session_key__in=Session.objects.values("session_key")).delete()
    return counts + ended


def _write_events(
    user: User, address: str, request_id: str, outcome: str, reason_code: int
) -> None:
    tell_tenants(user, "weftkit.session.start", address, request_id, outcome, reason_code)


def tell_tenants(
    user: User,
    action: str,
    address: str,
    request_id: str,
    outcome: str = "success",
    reason_code: int = 200,
) -> None:
    """Write what a person did to their own account into the trail of each of their tenants."""
    for tenant_id in user.memberships.order_by("tenant_id").values_list("tenant_id", flat=True):
        audit_write(
            tenant_id=tenant_id,
            action=action,
            initiator=f"user:{user.email}",
            target="console",
            outcome=outcome,
            reason_code=reason_code,
            address=address,
            request_id=request_id,
        )


def _keys(email: str, address: str) -> dict[str, str]:
    """Return what an attempt counts for; digests, so that no list of people is kept."""
    email, place = _normal(email), _network(address)
    values = {"account": email}
    if place:
        values |= {"account and address": f"{email} {place}", "address": place}
    return {
        scope: hashlib.sha256(f"{scope}\0{value}".encode()).hexdigest()
        for scope, value in values.items()
    }


def _normal(email: str) -> str:
    return email.strip().lower()


def _network(address: str) -> str:
    try:
        seen = ip_address(address)
    except ValueError:
        return ""
    if seen.version == 4:
        return address
    return str(ip_network((seen, IPV6_NETWORK_BITS), strict=False))

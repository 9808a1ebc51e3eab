"""Writes: a person's sessions end: one, or all but the one that asks."""

from __future__ import annotations

from collections.abc import Iterable

from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.db import transaction

from tenants.accounts.models import User
from tenants.accounts.sign_ins import tell_tenants
from tenants.core.errors import NotFoundError

REVOKE = "weftkit.session.revoke"


@transaction.atomic
def session_revoke(*, user: User, session_id: int, address: str, request_id: str) -> None:
    """End one session: its next request is nobody's."""
    found = UserSession.objects.filter(user=user, pk=session_id).first()
    if found is None:
        raise NotFoundError("there is no such session")
    _end([found])
    tell_tenants(user, REVOKE, address, request_id)


@transaction.atomic
def sessions_revoke_others(*, user: User, keep: str, address: str, request_id: str) -> int:
    """End all sessions but the one of the key `keep`; return how many."""
    others = list(UserSession.objects.filter(user=user).exclude(session_key=keep))
    _end(others)
    if others:
        tell_tenants(user, REVOKE, address, request_id)
    return len(others)


def _end(sessions: Iterable[UserSession]) -> None:
    found = list(sessions)
    Session.objects.filter(session_key__in=[each.session_key for each in found]).delete()
    UserSession.objects.filter(pk__in=[each.pk for each in found]).delete()

"""Short-lived credentials of people in the data explorer.

A person gets one for each instance and role, which ends by itself after a quarter of an hour; its
secret is in this process's memory and nowhere else. Who made it says what it is: `console:<user>`.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from engines.kit.iam import data_action
from engines.kit.records import Role
from tenants.accounts.actors import Actor
from tenants.audit.services import Asked, audit_write
from tenants.core.errors import ForbiddenError
from tenants.instances.credentials import credential_create, credential_revoke
from tenants.instances.models import Credential, Instance, InstanceStatus
from tenants.instances.selectors import port_of

LIFETIME = timedelta(minutes=15)
# Not handed out any more when it has less than this left.
REMAINDER_SECONDS = 60
KEPT_MAX = 2000
MADE_BY = "console:"
# From weakest to strongest; a switch in the page picks the weakest that does.
ORDER = (Role.READ, Role.WRITE, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Access:
    """How to sign in to an instance's data plane; `made_at` and `ends_at` are monotonic seconds."""

    host: str
    port: int
    username: str
    password: str
    role: Role
    made_at: float
    ends_at: float


class Keyring:
    """The accesses of this process, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, UUID, Role], Access] = OrderedDict()

    def find(self, key: tuple[str, UUID, Role]) -> Access | None:
        with self._lock:
            access = self._kept.get(key)
            if access is None or access.ends_at - time.monotonic() < REMAINDER_SECONDS:
                return None
            self._kept.move_to_end(key)
            return access

    def keep(self, key: tuple[str, UUID, Role], access: Access) -> None:
        with self._lock:
            self._kept[key] = access
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)

    def forget(self, access: Access) -> None:
        """Drop an access that is refused: it was revoked, or its instance is another one now."""
        with self._lock:
            for key, known in list(self._kept.items()):
                if known is access:
                    del self._kept[key]


KEYRING = Keyring()


def role_of(actor: Actor, instance: Instance) -> Role | None:
    """Return the strongest role that the actor has inside an instance; None: no data for it."""
    target = actor.target(engine=instance.engine, instance=instance.handle)
    strongest_first = reversed(ORDER)
    return next(
        (r for r in strongest_first if actor.may(data_action(r, instance.engine), target)), None
    )


def access_of(
    *, actor: Actor, instance: Instance, wanted: Role, asked: Asked | None = None
) -> Access:
    """Return a way in with the role `wanted`, or the actor's own if that is weaker."""
    best = role_of(actor, instance)
    if best is None:
        raise ForbiddenError("your role does not reach the data of this instance")
    role = min(wanted, best, key=ORDER.index)
    key = (actor.name, instance.pk, role)
    known = KEYRING.find(key)
    if known is not None:
        return known
    access = _made(actor, instance, role, asked)
    KEYRING.keep(key, access)
    return access


def access_sweep() -> int:
    """Revoke the credentials of the explorer whose time is over; return how many."""
    due = Credential.objects.filter(
        created_by__startswith=MADE_BY, revoked_at=None, expires_at__lte=timezone.now()
    ).exclude(instance__status=InstanceStatus.PURGED)
    found = list(due.select_related("instance")[:500])
    for credential in found:
        credential_revoke(credential=credential)
    return len(found)


@transaction.atomic
def _made(actor: Actor, instance: Instance, role: Role, asked: Asked | None) -> Access:
    made = credential_create(
        instance=instance,
        actor=f"{MADE_BY}{actor.name}",
        role=role,
        label="Data explorer",
        expires_at=timezone.now() + LIFETIME,
    )
    audit_write(
        tenant_id=actor.tenant.pk,
        action="weftkit.credential.create",
        initiator=actor.name,
        target=f"instances/{instance.handle}/credentials/{made.credential.pk}",
        reason_code=201,
        asked=asked,
    )
    now = time.monotonic()
    return Access(
        host=settings.DATAPLANE_HOST,
        port=port_of(engine=instance.engine),
        username=made.credential.username,
        password=made.password,
        role=role,
        made_at=now,
        ends_at=now + LIFETIME.total_seconds(),
    )

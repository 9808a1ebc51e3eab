"""Writes: drains, and how their batches are taken, delivered and noted.

A worker leases a drain, fixes the end of its batch in the row, delivers without a transaction, and
moves the cursor. Killed anywhere, its lease runs out, and the next worker delivers the same batch
again: receivers tell by the message id or the object's name, or by the events' sequences.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from tenants.accounts.actors import Actor
from tenants.accounts.models import Tenant
from tenants.audit import selectors
from tenants.audit.drain_targets import TARGETS, DeliveryError
from tenants.audit.models import AuditDrain, AuditLink, DrainKind
from tenants.audit.selectors import Placed
from tenants.core.errors import ConflictError, LimitError
from tenants.core.sealing import seal, unseal

PER_TENANT_MAX = 5
SECRET_PURPOSE = "audit drain"
# Longer than any delivery takes.
LEASE = timedelta(seconds=90)
# How soon a drain that has delivered everything is looked at again.
IDLE = timedelta(seconds=2)
PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 60, 300, 900, 3600))
JITTER = 0.2
# A drain whose every delivery failed for so long is paused until somebody resumes it.
FAILING_MAX = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is on its way: places `first` to `last`, or nothing if there is no news."""

    drain: AuditDrain
    lease: UUID
    first: int
    last: int


@transaction.atomic
def drain_create(
    *,
    actor: Actor,
    name: str,
    kind: DrainKind,
    config: Mapping[str, Any],
    secret: str,
    is_from_beginning: bool = False,
) -> tuple[AuditDrain, str]:
    """Make a drain; returns it, and the signing secret if one was made, which is shown once."""
    # Of two at the same moment the second waits.
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=actor.tenant.pk)
    if AuditDrain.objects.filter(tenant=tenant).count() >= PER_TENANT_MAX:
        raise LimitError(f"a tenant has at most {PER_TENANT_MAX} drains")
    target = TARGETS[kind]
    checked = target.check(config)
    made = target.new_secret()
    head = selectors.head_get(chain_id=tenant.pk)
    try:
        with transaction.atomic():
            drain = AuditDrain.objects.create(
                tenant=tenant,
                name=name,
                kind=kind,
                config=checked,
                secret_sealed=seal(made or secret, purpose=SECRET_PURPOSE),
                cursor=0 if is_from_beginning else head.sequence,
                created_by=actor.name,
            )
    except IntegrityError as error:
        raise ConflictError("this name is taken", code="name_taken") from error
    return drain, made


@transaction.atomic
def drain_change(
    *, drain: AuditDrain, name: str | None = None, is_enabled: bool | None = None
) -> AuditDrain:
    """Rename, pause or resume; resuming forgets failures, and goes on where it was."""
    drain = AuditDrain.objects.select_for_update().get(pk=drain.pk)
    if name is not None:
        drain.name = name
    if is_enabled is not None:
        drain.is_enabled, drain.disabled_reason = is_enabled, ""
        if is_enabled:
            drain.failures, drain.failing_since, drain.last_error = 0, None, ""
            drain.due_at = timezone.now()
    try:
        with transaction.atomic():
            drain.save()
    except IntegrityError as error:
        raise ConflictError("this name is taken", code="name_taken") from error
    return drain


def drain_delete(*, drain: AuditDrain) -> None:
    """Delete a drain; what it delivered stays where it is."""
    drain.delete()


def drains_due(*, now: datetime | None = None) -> list[UUID]:
    """Return the drains that a worker should look at."""
    now = now or timezone.now()
    free = Q(lease_until=None) | Q(lease_until__lte=now)
    found = AuditDrain.objects.filter(free, is_enabled=True, due_at__lte=now)
    return list(found.order_by("due_at").values_list("pk", flat=True))


def drain_run(*, drain_id: UUID, now: datetime | None = None) -> int:
    """Deliver one batch of a drain; return how many events. 0: no news, busy, paused or failed."""
    batch = batch_take(drain_id=drain_id, now=now or timezone.now())
    if batch is None:
        return 0
    drain = batch.drain
    events = batch_events(batch=batch)
    try:
        if events:
            secret = unseal(drain.secret_sealed, purpose=SECRET_PURPOSE)
            TARGETS[DrainKind(drain.kind)].deliver(drain, secret, events)
    except DeliveryError as error:
        batch_failed(batch=batch, error=error)
        return 0
    batch_delivered(batch=batch)
    return len(events)


@transaction.atomic
def batch_take(*, drain_id: UUID, now: datetime) -> Batch | None:
    """Lease a drain and fix its next batch; None if it has none, or another worker has it."""
    free = Q(lease_until=None) | Q(lease_until__lte=now)
    drain = (
        AuditDrain.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("tenant")
        .filter(free, pk=drain_id, is_enabled=True, due_at__lte=now)
        .first()
    )
    if drain is None:
        return None
    if drain.sending_to is None:
        behind = AuditLink.objects.filter(chain_id=drain.tenant_id, sequence__gt=drain.cursor)
        places = behind.order_by("sequence").values_list("sequence", flat=True)
        drain.sending_to = max(places[: TARGETS[DrainKind(drain.kind)].events_max], default=None)
    if drain.sending_to is None:
        drain.due_at = now + IDLE
        drain.save(update_fields=["due_at", "updated_at"])
        return None
    drain.lease, drain.lease_until = uuid4(), now + LEASE
    drain.save(update_fields=["sending_to", "lease", "lease_until", "updated_at"])
    return Batch(drain, drain.lease, drain.cursor + 1, drain.sending_to)


def batch_events(*, batch: Batch) -> list[Placed]:
    """Return the events of a batch in order; those whose retention ended meanwhile are gone."""
    return selectors.placed_between(
        chain_id=batch.drain.tenant_id, first=batch.first, last=batch.last
    )


@transaction.atomic
def batch_delivered(*, batch: Batch) -> None:
    """Move the cursor, unless another worker took over meanwhile."""
    drain = _leased(batch)
    if drain is None:
        return
    drain.cursor, drain.sending_to = batch.last, None
    drain.failures, drain.failing_since, drain.last_error = 0, None, ""
    drain.delivered_at = drain.due_at = timezone.now()
    drain.lease = drain.lease_until = None
    drain.save()


@transaction.atomic
def batch_failed(*, batch: Batch, error: DeliveryError) -> None:
    """Note a failure and when to try again; a drain that failed for days is paused."""
    drain = _leased(batch)
    if drain is None:
        return
    now = timezone.now()
    pause = PAUSES[min(drain.failures, len(PAUSES) - 1)] * (1 + random.uniform(0, JITTER))
    drain.failures += 1
    drain.failing_since = drain.failing_since or now
    drain.last_error = str(error)[:300]
    drain.due_at = now + max(pause, error.retry_after)
    drain.lease = drain.lease_until = None
    if error.is_final or now - drain.failing_since >= FAILING_MAX:
        drain.is_enabled = False
        drain.disabled_reason = f"Paused: {drain.last_error}"[:300]
    drain.save()


def _leased(batch: Batch) -> AuditDrain | None:
    found = AuditDrain.objects.select_for_update().filter(pk=batch.drain.pk, lease=batch.lease)
    return found.first()

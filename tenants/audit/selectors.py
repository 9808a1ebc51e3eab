"""Reads: the events of a tenant, searched; one event with its place; the head of a chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import (
    BigIntegerField,
    F,
    Func,
    OuterRef,
    QuerySet,
    Subquery,
    TextField,
    Value,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Greatest

from tenants.accounts.actors import Actor
from tenants.accounts.models import Tenant
from tenants.audit.chain import moment
from tenants.audit.models import AuditDrain, AuditEvent, AuditHead, AuditLink, InstanceAudit
from tenants.core.errors import NotFoundError
from tenants.instances.selectors import instances_ever_allowed

BATCH_ROWS = 2000

BETWEEN = """
SELECT event.event_id, event.tenant_id, event.occurred_at, event.stored_at, event.body::text,
    link.sequence, link.previous, link.digest
FROM audit_auditlink AS link JOIN audit_auditevent AS event
    ON event.event_id = link.event_id AND event.stored_at = link.stored_at
WHERE link.chain_id = %s AND link.sequence BETWEEN %s AND %s ORDER BY link.sequence
"""


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; empty is anything. `action` and `target` may end in `*`."""

    since: datetime | None = None
    until: datetime | None = None
    actor: str = ""
    action: str = ""
    target: str = ""
    outcome: str = ""
    severity: str = ""
    request_id: str = ""
    is_data: bool | None = None


def audit_seen(*, actor: Actor, search: Search | None = None) -> QuerySet[AuditEvent]:
    """Return what `actor` may see of the events: of a whole tenant, or of some instances of it."""
    found = audit_list(tenant=actor.tenant, search=search)
    if actor.may("audit.read"):
        return found
    seen = instances_ever_allowed(actor=actor, action="audit.read")
    handles = list(seen.values_list("handle", flat=True))
    # Targets are `instances/<handle>`, with what is in it behind.
    return (
        found.filter(target__startswith="instances/")
        .annotate(
            about=Func(
                F("target"), Value("/"), Value(2), function="split_part", output_field=TextField()
            )
        )
        .filter(about__in=handles)
    )


def audit_list(*, tenant: Tenant, search: Search | None = None) -> QuerySet[AuditEvent]:
    """Return what was done, or tried, in `tenant`, as far as it is looked for."""
    found = AuditEvent.objects.filter(tenant_id=tenant.pk)
    if search is None:
        return found
    if search.since is not None:
        # What happened since then was stored since then; months before need not be looked at.
        found = found.filter(occurred_at__gte=search.since, stored_at__gte=search.since)
    if search.until is not None:
        found = found.filter(occurred_at__lt=search.until)
    if search.is_data is not None:
        found = found.filter(is_data=search.is_data)
    for column, wanted in _columns(search).items():
        if wanted.endswith("*"):
            found = found.filter(**{f"{column}__startswith": wanted[:-1]})
        elif wanted:
            found = found.filter(**{column: wanted})
    return found


def _columns(search: Search) -> Mapping[str, str]:
    return {
        "action": search.action,
        "target": search.target,
        "initiator": search.actor,
        "outcome": search.outcome.removesuffix("*"),
        "severity": search.severity.removesuffix("*"),
        "correlation_id": search.request_id.removesuffix("*"),
    }


class Placed(NamedTuple):
    """An event, its body as JSON text, and its place in the chain; None where it has none yet."""

    event_id: UUID
    tenant_id: UUID | None
    occurred_at: datetime
    stored_at: datetime
    body: str
    sequence: int | None
    previous: str | None
    digest: str | None

    def chain(self) -> dict[str, Any]:
        """Return what the place covers besides the body; for those who verify it."""
        return {
            "sequence": self.sequence,
            "previous": self.previous,
            "digest": self.digest,
            "tenant_id": str(self.tenant_id or ""),
            "occurred_at": moment(self.occurred_at),
            "stored_at": moment(self.stored_at),
        }


def placed(events: QuerySet[AuditEvent]) -> list[Placed]:
    """Return events with their places; the text of a body is not parsed on the way."""
    rows = events.annotate(text=RawSQL("body::text", [], TextField())).values_list(
        "event_id", "tenant_id", "occurred_at", "stored_at", "text"
    )
    told = list(rows)
    links = AuditLink.objects.filter(event_id__in=[row[0] for row in told])
    places = {
        event_id: place
        for event_id, *place in links.values_list("event_id", "sequence", "previous", "digest")
    }
    return [Placed(*row, *places.get(row[0], (None, None, None))) for row in told]


def audit_get(*, events: QuerySet[AuditEvent], event_id: UUID) -> Placed:
    """Return one of `events`, with its place."""
    found = placed(events.filter(event_id=event_id))
    if not found:
        raise NotFoundError("there is no such event")
    return found[0]


def audit_batches(events: QuerySet[AuditEvent]) -> Iterator[list[Placed]]:
    """Yield events, oldest first, a batch in memory at a time.

    Each batch is a query of its own: whoever reads slowly holds neither transaction nor connection.
    """
    after: UUID | None = None
    ordered = events.order_by("event_id")
    while True:
        wanted = ordered if after is None else ordered.filter(event_id__gt=after)
        batch = placed(wanted[:BATCH_ROWS])
        if not connection.in_atomic_block:
            # The next batch may be asked for in another thread, which has a connection of its own.
            connection.close()
        if batch:
            yield batch
        if len(batch) < BATCH_ROWS:
            return
        after = batch[-1].event_id


def head_get(*, chain_id: UUID) -> AuditHead:
    """Return the head of a chain; of an empty one too."""
    return AuditHead.objects.filter(chain_id=chain_id).first() or AuditHead(chain_id=chain_id)


def data_events_wanted(*, instance_id: UUID) -> bool:
    """Say whether an instance's data events are kept."""
    return InstanceAudit.objects.filter(instance_id=instance_id, data_events=True).exists()


def placed_between(*, chain_id: UUID, first: int, last: int) -> list[Placed]:
    """Return the events of these places in order; those whose time is over are gone."""
    with connection.cursor() as cursor:
        cursor.execute(BETWEEN, [chain_id, first, last])
        return [Placed(*row) for row in cursor.fetchall()]


def drain_list(*, tenant: Tenant) -> QuerySet[AuditDrain]:
    """Return the drains of `tenant`, each with `behind`: how many events wait to be delivered."""
    head = AuditHead.objects.filter(chain_id=OuterRef("tenant_id")).values("sequence")
    newest = Coalesce(Subquery(head), 0, output_field=BigIntegerField())
    waiting = (
        AuditLink.objects.filter(chain_id=OuterRef("tenant_id"), sequence__gt=OuterRef("cursor"))
        .order_by("sequence")
        .values("stored_at")[:1]
    )
    return AuditDrain.objects.filter(tenant=tenant).annotate(
        behind=Greatest(newest - F("cursor"), 0, output_field=BigIntegerField()),
        waiting_since=Subquery(waiting),
    )


def drain_get(*, tenant: Tenant, drain_id: UUID) -> AuditDrain:
    """Return one drain of `tenant`."""
    found = drain_list(tenant=tenant).filter(pk=drain_id).first()
    if found is None:
        raise NotFoundError("there is no such drain")
    return found

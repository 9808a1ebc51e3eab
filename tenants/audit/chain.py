"""The hash chain of each tenant: events get their place in order, and a walk finds a broken one.

Requests only insert their event; nothing there waits for another. Within about a second a task
gives new events their places: it locks the head of one chain, appends links, and moves the head, in
one transaction. So sequences have no gaps and become visible in order, which is what a drain's
cursor needs. A link's digest is SHA-256 over the digest before it, its place, and the event.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from tenants.audit.models import AuditCheckpoint, AuditHead, AuditLink, AuditUnlinked

BATCH_ROWS = 2000
FIRST = "0" * 64
# An event that has no place for so long has lost its entry in the queue: somebody removed it.
LINKED_WITHIN = timedelta(minutes=5)

WAITING = """
SELECT event.event_id, event.tenant_id, event.occurred_at, event.stored_at, event.body::text
FROM audit_auditunlinked AS waits JOIN audit_auditevent AS event
    ON event.event_id = waits.event_id AND event.stored_at = waits.stored_at
WHERE waits.chain_id = %s
ORDER BY waits.stored_at, waits.event_id LIMIT %s
"""
# Both ways: a link without its event, an event without its link.
WALK = """
SELECT link.sequence, link.previous, link.digest, event.event_id, event.tenant_id,
    event.occurred_at, event.stored_at, event.body::text
FROM audit_auditlink AS link LEFT JOIN audit_auditevent AS event
    ON event.event_id = link.event_id AND event.stored_at = link.stored_at
WHERE link.chain_id = %s AND link.sequence > %s
ORDER BY link.sequence LIMIT %s
"""
# Events that nobody will give a place to: they are neither linked nor in the queue.
STRAYS = """
SELECT event.event_id FROM audit_auditevent AS event
WHERE event.tenant_id IS NOT DISTINCT FROM %(tenant_id)s AND event.stored_at < %(before)s
    AND NOT EXISTS (SELECT FROM audit_auditlink AS link WHERE link.event_id = event.event_id)
    AND NOT EXISTS (
        SELECT FROM audit_auditunlinked AS waits WHERE waits.event_id = event.event_id)
ORDER BY event.event_id LIMIT 1
"""
# Events that were in the queue and are no more.
LOST = """
SELECT waits.event_id FROM audit_auditunlinked AS waits
WHERE waits.chain_id = %(chain_id)s AND waits.stored_at < %(before)s
    AND NOT EXISTS (SELECT FROM audit_auditevent AS event WHERE event.event_id = waits.event_id)
ORDER BY waits.event_id LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk along a chain found.

    `first` and `last` are the sequences that were looked at, `is_complete` says that the last is
    the head; `waiting` counts events that have no place yet. If the chain is broken, `broken_at`
    and `why` tell of the first place that is.
    """

    is_whole: bool
    is_complete: bool
    first: int
    last: int
    digest: str
    waiting: int
    broken_at: int | None = None
    why: str = ""


def chains_waiting() -> list[UUID]:
    """Return the chains with events that have no place yet."""
    found = AuditUnlinked.objects.order_by("chain_id").values_list("chain_id", flat=True)
    return list(found.distinct())


def chain_link(*, chain_id: UUID, rows: int = BATCH_ROWS) -> int:
    """Give up to `rows` waiting events of a chain their places; return how many.

    Safe beside itself: whoever finds the head locked leaves the work to its holder.
    """
    AuditHead.objects.bulk_create([AuditHead(chain_id=chain_id)], ignore_conflicts=True)
    with transaction.atomic():
        head = (
            AuditHead.objects.select_for_update(skip_locked=True).filter(chain_id=chain_id).first()
        )
        if head is None:
            return 0
        with connection.cursor() as cursor:
            cursor.execute(WAITING, [chain_id, rows])
            waiting = cursor.fetchall()
        links = []
        for event_id, tenant_id, occurred_at, stored_at, body in waiting:
            digest = link_digest(
                head.digest, head.sequence + 1, event_id, tenant_id, occurred_at, stored_at, body
            )
            links.append(
                AuditLink(
                    event_id=event_id,
                    chain_id=chain_id,
                    sequence=head.sequence + 1,
                    stored_at=stored_at,
                    previous=head.digest,
                    digest=digest,
                )
            )
            head.sequence, head.digest = head.sequence + 1, digest
        if links:
            AuditLink.objects.bulk_create(links)
            AuditUnlinked.objects.filter(event_id__in=[link.event_id for link in links]).delete()
            head.linked_at = timezone.now()
            head.save()
    return len(links)


def chains_link() -> int:
    """Give every waiting event its place; return how many got one."""
    total = 0
    for chain_id in chains_waiting():
        while linked := chain_link(chain_id=chain_id):
            total += linked
            if linked < BATCH_ROWS:
                break
    return total


def link_digest(
    previous: str,
    sequence: int,
    event_id: UUID,
    tenant_id: UUID | None,
    occurred_at: datetime,
    stored_at: datetime,
    body: str,
) -> str:
    """Return the digest of a link; `body` is JSON text in any spelling."""
    covered = [
        previous,
        sequence,
        str(event_id),
        str(tenant_id or ""),
        moment(occurred_at),
        moment(stored_at),
        json.loads(body),
    ]
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def chain_verify(
    *, chain_id: UUID, tenant_id: UUID | None, after: int = 0, links_max: int | None = None
) -> Verdict:
    """Walk a chain from its newest checkpoint (or its beginning) to its head.

    With `after` it begins behind that place, and with `links_max` it may stop before the head
    (`is_complete` says so): who walks on from `last` has walked it all. The head is read first, so
    what is appended meanwhile is left to the next walk.
    """
    head = AuditHead.objects.filter(chain_id=chain_id).first() or AuditHead(chain_id=chain_id)
    waiting = AuditUnlinked.objects.filter(chain_id=chain_id).count()
    start, digest = _start(chain_id, after)
    sequence = start

    def verdict(why: str = "", at: int | None = None) -> Verdict:
        is_complete = sequence == head.sequence
        return Verdict(not why, is_complete, start + 1, sequence, digest, waiting, at, why)

    for row in _walk(chain_id, start):
        if row[0] > head.sequence:
            break
        if why := _fault(row, sequence + 1, digest):
            return verdict(why, sequence + 1)
        sequence, digest = row[0], row[2]
        if links_max is not None and sequence - start >= links_max:
            break
    if sequence < head.sequence and links_max is not None and sequence - start >= links_max:
        return verdict()
    if (sequence, digest) != (head.sequence, head.digest):
        return verdict("the links up to the head are gone", sequence + 1)
    if why := _astray(chain_id, tenant_id):
        return verdict(why, sequence + 1)
    return verdict()


def _start(chain_id: UUID, after: int) -> tuple[int, str]:
    """Return the place behind which a walk begins, and its digest."""
    mark = AuditCheckpoint.objects.filter(chain_id=chain_id).order_by("-sequence").first()
    start = (mark.sequence, mark.digest) if mark else (0, FIRST)
    if after > start[0]:
        link = AuditLink.objects.filter(chain_id=chain_id, sequence=after).first()
        # Without that link there is nothing to go on from: the walk says which one is gone.
        return (after, link.digest) if link else start
    return start


def _fault(row: tuple[Any, ...], expected: int, previous: str) -> str:
    """Say what is wrong with a link, or ""."""
    sequence, link_previous, digest, event_id, *covered = row
    if sequence != expected:
        return f"the link {expected} is gone"
    if link_previous != previous:
        return "the link does not continue the one before"
    if event_id is None:
        return "its event is gone"
    if link_digest(previous, sequence, event_id, *covered) != digest:
        return "the event or its link was changed"
    return ""


def _walk(chain_id: UUID, after: int) -> Iterator[tuple[Any, ...]]:
    """Yield the links of a chain in order with their events, a batch in memory at a time."""
    while True:
        with connection.cursor() as cursor:
            cursor.execute(WALK, [chain_id, after, BATCH_ROWS])
            rows = cursor.fetchall()
        yield from rows
        if len(rows) < BATCH_ROWS:
            return
        after = rows[-1][0]


def _astray(chain_id: UUID, tenant_id: UUID | None) -> str:
    """Say which event is not where it should be, if one has been waiting for too long; or ""."""
    before = timezone.now() - LINKED_WITHIN
    with connection.cursor() as cursor:
        cursor.execute(STRAYS, {"tenant_id": tenant_id, "before": before})
        if (row := cursor.fetchone()) is not None:
            return f"the event {row[0]} was never given a place"
        cursor.execute(LOST, {"chain_id": chain_id, "before": before})
        if (row := cursor.fetchone()) is not None:
            return f"the event {row[0]} was gone before it had a place"
    return ""


def moment(at: datetime) -> str:
    """Return a time as digests cover it: UTC, with microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")

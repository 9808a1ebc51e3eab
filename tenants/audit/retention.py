"""How long events are kept, and the one way in which they go.

A tenant's events are kept as long as the longest of its instances' plans says. What is older goes
in four steps, each of which may be repeated, or be the last before a crash: a checkpoint names the
newest link that may go; months that hold nothing but such events are dropped whole; such events of
other months are deleted row by row; and then their links. A walk along the chain begins at the
checkpoint, so the chain stays verifiable; the database refuses every other way (migration 0004).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Min
from django.utils import timezone

from tenants.audit.models import PLATFORM, AuditCheckpoint, AuditHead, AuditLink

log = structlog.get_logger(__name__)

MONTHS_AHEAD = 3
BATCH_ROWS = 5000

PLANS = """
SELECT DISTINCT instance.tenant_id, plan.name FROM instances_instance AS instance
JOIN usage_plan AS plan ON plan.id = instance.plan_id WHERE instance.status <> 'purged'
"""
MONTHS = """
SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent = 'audit_auditevent'::regclass AND child.relname ~ '^audit_auditevent_[0-9]{6}$'
ORDER BY 1
"""
# What no checkpoint lets go: not linked yet, or linked behind it.
KEPT = """
SELECT EXISTS (
    SELECT FROM {month} AS event WHERE NOT EXISTS (
        SELECT FROM audit_auditlink AS link JOIN audit_auditcheckpoint AS mark
            ON mark.chain_id = link.chain_id AND mark.sequence >= link.sequence
        WHERE link.event_id = event.event_id
    )
)
"""
DELETE_EVENTS = """
DELETE FROM audit_auditevent AS event USING (
    SELECT event_id, stored_at FROM audit_auditlink
    WHERE chain_id = %(chain_id)s AND sequence > %(after)s AND sequence <= %(upto)s
) AS link
WHERE event.event_id = link.event_id AND event.stored_at = link.stored_at
"""


def months_make() -> int:
    """Make this month's partition and the next ones; return how many were missing."""
    with connection.cursor() as cursor:
        made = 0
        for ahead in range(MONTHS_AHEAD + 1):
            cursor.execute(
                "SELECT audit_month_make(date_add(now(), make_interval(months => %s), 'UTC'))",
                [ahead],
            )
            made += bool(cursor.fetchone()[0])
    return made


def retention_of(plans: list[str]) -> timedelta:
    """Return how long the events of a tenant with instances of these plans are kept."""
    days: Mapping[str, int] = settings.AUDIT_RETENTION_DAYS
    known = [days.get(plan, days[""]) for plan in plans]
    return timedelta(days=max(known, default=days[""]))


def retention_apply() -> int:
    """Let go what is older than its tenant's retention; return how many events and links went."""
    kept = _retentions()
    now = timezone.now()
    for chain_id in AuditHead.objects.values_list("chain_id", flat=True):
        _mark(chain_id, now - kept.get(chain_id, retention_of([])))
    _drop_months(now)
    return sum(_delete(mark) for mark in _newest_marks())


def _retentions() -> dict[UUID, timedelta]:
    plans: dict[UUID, list[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(PLANS)
        for tenant_id, plan in cursor.fetchall():
            plans.setdefault(tenant_id, []).append(plan)
    kept = {tenant_id: retention_of(names) for tenant_id, names in plans.items()}
    kept[PLATFORM] = timedelta(days=settings.AUDIT_RETENTION_DAYS["platform"])
    return kept


@transaction.atomic
def _mark(chain_id: UUID, before: datetime) -> None:
    """Write a checkpoint at the last link before the first that is young."""
    # The head's lock keeps a linker from appending what was stored before `before`.
    AuditHead.objects.select_for_update().get(chain_id=chain_id)
    links = AuditLink.objects.filter(chain_id=chain_id)
    young = links.filter(stored_at__gte=before).aggregate(first=Min("sequence"))["first"]
    old = links if young is None else links.filter(sequence__lt=young)
    last = old.order_by("-sequence").first()
    if last is not None:
        AuditCheckpoint.objects.bulk_create(
            [
                AuditCheckpoint(
                    chain_id=chain_id,
                    sequence=last.sequence,
                    digest=last.digest,
                    stored_before=before,
                )
            ],
            ignore_conflicts=True,
        )


def _drop_months(now: datetime) -> None:
    """Drop months that are over and hold nothing that is kept."""
    with connection.cursor() as cursor:
        cursor.execute(MONTHS)
        months = [str(row[0]) for row in cursor.fetchall()]
    for month in months:
        if _end_of(month) > now:
            continue
        with transaction.atomic(), connection.cursor() as cursor:
            # Nobody stores into a month that is over, but a slow transaction might still commit.
            cursor.execute(f"LOCK TABLE {month} IN ACCESS EXCLUSIVE MODE")
            cursor.execute(KEPT.format(month=month))
            if not cursor.fetchone()[0]:
                cursor.execute(f"DROP TABLE {month}")
                log.info("an audit month is gone", month=month)


def _end_of(month: str) -> datetime:
    year, number = int(month[-6:-2]), int(month[-2:])
    return datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def _newest_marks() -> list[AuditCheckpoint]:
    marks = AuditCheckpoint.objects.order_by("chain_id", "-sequence").distinct("chain_id")
    return list(marks)


def _delete(mark: AuditCheckpoint) -> int:
    """Delete events and then links up to a checkpoint, in batches of their own transactions."""
    gone = 0
    while True:
        links = AuditLink.objects.filter(chain_id=mark.chain_id, sequence__lte=mark.sequence)
        first = links.aggregate(first=Min("sequence"))["first"]
        if first is None:
            return gone
        upto = min(first - 1 + BATCH_ROWS, mark.sequence)
        span = {"chain_id": mark.chain_id, "after": first - 1, "upto": upto}
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(DELETE_EVENTS, span)
            gone += cursor.rowcount
            gone += links.filter(sequence__lte=upto).delete()[0]

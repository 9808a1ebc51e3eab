"""Old events go by one way only, and what is left can still be verified."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from tenants.audit import retention
from tenants.audit.chain import Verdict, chain_verify, chains_link
from tenants.audit.models import PLATFORM, AuditCheckpoint, AuditEvent, AuditLink
from tenants.audit.retention import months_make, retention_apply, retention_of
from tenants.core.models import uuid7
from tests.tenants.cast import Cast, make_instance


def month_make(at: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT audit_month_make(%s)", [at])


def months() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(retention.MONTHS)
        return {row[0] for row in cursor.fetchall()}


def name_of(at: datetime) -> str:
    return f"audit_auditevent_{at:%Y%m}"


def event(tenant_id: UUID | None, days_ago: float) -> UUID:
    at = timezone.now() - timedelta(days=days_ago)
    return AuditEvent.objects.create(
        event_id=uuid7(), tenant_id=tenant_id, occurred_at=at, stored_at=at,
        body={"action": "weftkit.session.start", "dataEvent": False},
    ).event_id  # fmt: skip


def verify(tenant_id: UUID) -> Verdict:
    return chain_verify(chain_id=tenant_id, tenant_id=tenant_id)


def test_months_are_made_ahead_and_only_once(cast: Cast) -> None:
    later = timezone.now() + timedelta(days=70)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {name_of(later)}")
    assert months_make() == 1
    assert months_make() == 0
    assert {name_of(timezone.now()), name_of(later)} <= months()


def test_an_event_of_a_month_that_nobody_made_is_stored_all_the_same(cast: Cast) -> None:
    stray = event(cast.acme.pk, -5 * 365)
    with connection.cursor() as cursor:
        cursor.execute("SELECT event_id FROM audit_auditevent_rest")
        assert cursor.fetchall() == [(stray,)]
    assert chains_link() == 1
    assert verify(cast.acme.pk).is_whole


@pytest.mark.parametrize(
    ("plans", "days"),
    [([], 90), (["lite"], 30), (["lite", "standard"], 365), (["lite", "of their own"], 90)],
)
def test_the_longest_of_a_tenants_plans_counts(plans: list[str], days: int) -> None:
    assert retention_of(plans) == timedelta(days=days)


def test_old_events_go_and_the_rest_is_whole_from_its_checkpoint(cast: Cast) -> None:
    make_instance(cast.acme, plan="lite")  # 30 days
    make_instance(cast.globex, plan="standard")  # 365
    months_ago = [timezone.now() - timedelta(days=days) for days in (200, 100, 40)]
    for at in months_ago:
        month_make(at)
    for tenant_id in (cast.acme.pk, cast.globex.pk, None):
        for days in (400, 200, 100, 40, 1, 0):
            event(tenant_id, days)
            chains_link()
    whole = verify(cast.acme.pk)
    assert (whole.first, whole.last) == (1, 6)
    # Four of acme, one each of globex and the platform; event and link.
    assert retention_apply() == 2 * (4 + 1 + 1)
    left = {
        tenant_id: AuditEvent.objects.filter(tenant_id=tenant_id).count()
        for tenant_id in (cast.acme.pk, cast.globex.pk, None)
    }
    assert left == {cast.acme.pk: 2, cast.globex.pk: 5, None: 5}
    assert verify(cast.acme.pk) == Verdict(True, True, 5, 6, whole.digest, 0)
    assert verify(cast.globex.pk).first == 2
    assert chain_verify(chain_id=PLATFORM, tenant_id=None).is_whole
    assert retention_apply() == 0
    assert AuditCheckpoint.objects.count() == 3
    # And what comes after goes on where it was.
    event(cast.acme.pk, 0)
    chains_link()
    assert (verify(cast.acme.pk).is_whole, verify(cast.acme.pk).last) == (True, 7)


def test_a_month_that_holds_nothing_else_is_dropped_whole(cast: Cast) -> None:
    old, kept = timezone.now() - timedelta(days=400), timezone.now() - timedelta(days=200)
    month_make(old)
    month_make(kept)
    make_instance(cast.globex, plan="standard")
    for tenant_id in (cast.acme.pk, cast.globex.pk):
        event(tenant_id, 400)
        event(tenant_id, 200)
    chains_link()
    retention_apply()
    assert name_of(old) not in months()
    assert name_of(kept) in months()
    assert verify(cast.acme.pk).is_whole
    assert verify(cast.globex.pk).last == 2
    assert AuditLink.objects.filter(chain_id=cast.globex.pk).count() == 1


def test_an_old_event_without_a_place_keeps_its_month(cast: Cast) -> None:
    old = timezone.now() - timedelta(days=400)
    month_make(old)
    event(cast.acme.pk, 400)
    retention_apply()
    assert name_of(old) in months()
    assert AuditEvent.objects.count() == 1


def test_a_link_stays_while_its_event_is_there(cast: Cast) -> None:
    event(cast.acme.pk, 100)
    chains_link()
    link = AuditLink.objects.get()
    AuditCheckpoint.objects.create(
        chain_id=cast.acme.pk, sequence=1, digest=link.digest,
        stored_before=timezone.now() - timedelta(days=90),
    )  # fmt: skip
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        AuditLink.objects.all().delete()
    assert AuditEvent.objects.all().delete()[0] == 1
    assert AuditLink.objects.all().delete()[0] == 1
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        AuditCheckpoint.objects.all().delete()


def test_letting_go_that_was_cut_short_goes_on(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for _ in range(7):
        event(cast.acme.pk, 100)
        chains_link()
    event(cast.acme.pk, 0)
    chains_link()

    class DiedError(Exception):
        pass

    def dies(*_: Any) -> None:
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(retention, "_delete", dies)
        with pytest.raises(DiedError):
            retention_apply()
    # The checkpoint is there, and nothing else has happened.
    assert (AuditCheckpoint.objects.count(), AuditEvent.objects.count()) == (1, 8)
    assert (verify(cast.acme.pk).is_whole, verify(cast.acme.pk).first) == (True, 8)
    assert retention_apply() == 14
    assert AuditEvent.objects.count() == 1

"""Nobody changes an event unseen: triggers refuse, and who goes around them breaks the chain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.utils import timezone

from tenants.audit import chain
from tenants.audit.chain import chain_link, chain_verify, chains_link
from tenants.audit.models import PLATFORM, AuditEvent, AuditHead, AuditLink, AuditUnlinked
from tenants.audit.services import audit_write
from tests.tenants.cast import Cast, side_by_side

TABLES = ("audit_auditevent", "audit_auditlink", "audit_auditcheckpoint")


def write(tenant_id: UUID | None, count: int = 1) -> None:
    for number in range(count):
        audit_write(
            tenant_id=tenant_id,
            action="weftkit.session.start",
            initiator=f"user:n{number}@example.org",
            target="console",
        )


def verify(tenant_id: UUID) -> chain.Verdict:
    return chain_verify(chain_id=tenant_id, tenant_id=tenant_id)


@contextmanager
def superuser() -> Iterator[Any]:
    """Go around the triggers, as only a superuser can."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        yield cursor
        cursor.execute("SET session_replication_role = origin")


def change(statement: str, *values: object) -> None:
    with superuser() as cursor:
        cursor.execute(statement, values)
        assert cursor.rowcount == 1


def id_at(tenant_id: UUID, sequence: int) -> UUID:
    return AuditLink.objects.get(chain_id=tenant_id, sequence=sequence).event_id


def test_events_get_their_places_in_order_and_the_chain_is_whole(cast: Cast) -> None:
    write(cast.acme.pk, 3)
    assert verify(cast.acme.pk) == chain.Verdict(True, True, 1, 0, chain.FIRST, 3)
    assert chains_link() == 3
    write(cast.acme.pk, 2)
    write(cast.globex.pk, 1)
    write(None, 1)
    assert chains_link() == 4
    links = list(AuditLink.objects.filter(chain_id=cast.acme.pk).order_by("sequence"))
    assert [link.sequence for link in links] == [1, 2, 3, 4, 5]
    assert [link.previous for link in links] == [chain.FIRST, *[link.digest for link in links[:4]]]
    told = AuditEvent.objects.filter(tenant_id=cast.acme.pk).order_by("stored_at", "event_id")
    assert [link.event_id for link in links] == [event.event_id for event in told]
    assert verify(cast.acme.pk) == chain.Verdict(True, True, 1, 5, links[4].digest, 0)
    assert verify(cast.globex.pk).last == 1
    assert chain_verify(chain_id=PLATFORM, tenant_id=None).last == 1


def test_a_chain_longer_than_a_batch_is_linked_and_walked_in_batches(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "BATCH_ROWS", 3)
    write(cast.acme.pk, 10)
    assert chain_link(chain_id=cast.acme.pk, rows=3) == 3
    assert verify(cast.acme.pk).waiting == 7
    while chain_link(chain_id=cast.acme.pk, rows=3):
        pass
    assert (verify(cast.acme.pk).is_whole, verify(cast.acme.pk).last) == (True, 10)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET {} = {}",
        "DELETE FROM {0}",
        "TRUNCATE {0}",
    ],
)
@pytest.mark.parametrize(
    ("table", "column"),
    [("audit_auditevent", "body"), ("audit_auditlink", "digest")],
)
def test_the_database_refuses_every_change(
    cast: Cast, statement: str, table: str, column: str
) -> None:
    write(cast.acme.pk)
    chains_link()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():  # noqa: SIM117
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL weftkit.throwaway = off")
            cursor.execute(statement.format(table, column, column))
    assert verify(cast.acme.pk).last == 1


def test_a_month_cannot_be_emptied_by_itself(cast: Cast) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits "
            "WHERE inhparent = 'audit_auditevent'::regclass"
        )
        months = [row[0] for row in cursor.fetchall()]
    assert len(months) >= 5
    for month in months:
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():  # noqa: SIM117
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL weftkit.throwaway = off")
                cursor.execute(f"TRUNCATE {month}")


def test_a_checkpoint_cannot_let_young_events_go(cast: Cast) -> None:
    write(cast.acme.pk)
    chains_link()
    link = AuditLink.objects.get()
    for before, digest, complaint in [
        (timedelta(days=0), link.digest, "a week at least"),
        (timedelta(days=8), link.digest, "no such checkpoint"),
        (timedelta(days=8), "0" * 64, "no such checkpoint"),
    ]:
        with (
            pytest.raises(DatabaseError, match=complaint),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "INSERT INTO audit_auditcheckpoint "
                "(chain_id, sequence, digest, stored_before, created_at) "
                "VALUES (%s, 1, %s, %s, now())",
                [cast.acme.pk, digest, timezone.now() - before],
            )


TAMPERED = [
    (
        "UPDATE audit_auditevent SET body = jsonb_set(body, '{outcome}', '\"failure\"') "
        "WHERE event_id = %s",
        "the event or its link was changed",
    ),
    ("UPDATE audit_auditevent SET tenant_id = NULL WHERE event_id = %s", "was changed"),
    (
        "UPDATE audit_auditevent SET occurred_at = occurred_at + interval '1 microsecond' "
        "WHERE event_id = %s",
        "was changed",
    ),
    ("DELETE FROM audit_auditevent WHERE event_id = %s", "its event is gone"),
    ("DELETE FROM audit_auditlink WHERE event_id = %s", "the link 3 is gone"),
    (
        f"UPDATE audit_auditlink SET digest = '{'a' * 64}' WHERE event_id = %s",
        "the event or its link was changed",
    ),
    (
        f"UPDATE audit_auditlink SET previous = '{'a' * 64}' WHERE event_id = %s",
        "does not continue",
    ),
]


@pytest.mark.parametrize(("statement", "why"), TAMPERED)
def test_a_superusers_change_is_found_at_its_place(cast: Cast, statement: str, why: str) -> None:
    write(cast.acme.pk, 5)
    chains_link()
    assert verify(cast.acme.pk).is_whole
    change(statement, id_at(cast.acme.pk, 3))
    verdict = verify(cast.acme.pk)
    assert (verdict.is_whole, verdict.broken_at) == (False, 3)
    assert why in verdict.why


def test_a_changed_event_whose_link_was_made_anew_breaks_the_next_one(cast: Cast) -> None:
    write(cast.acme.pk, 5)
    chains_link()
    target = id_at(cast.acme.pk, 3)
    change("UPDATE audit_auditevent SET body = body || '{\"message\": \"\"}' WHERE event_id = %s", target)  # fmt: skip  # noqa: E501
    event, link = AuditEvent.objects.get(pk=target), AuditLink.objects.get(pk=target)
    with connection.cursor() as cursor:
        cursor.execute("SELECT body::text FROM audit_auditevent WHERE event_id = %s", [target])
        body = cursor.fetchone()[0]
    forged = chain.link_digest(
        link.previous, 3, target, event.tenant_id, event.occurred_at, event.stored_at, body
    )
    change("UPDATE audit_auditlink SET digest = %s WHERE event_id = %s", forged, target)
    assert verify(cast.acme.pk).broken_at == 4


def test_a_cut_off_end_is_found(cast: Cast) -> None:
    write(cast.acme.pk, 5)
    chains_link()
    target = id_at(cast.acme.pk, 5)
    change("DELETE FROM audit_auditlink WHERE event_id = %s", target)
    change("DELETE FROM audit_auditevent WHERE event_id = %s", target)
    verdict = verify(cast.acme.pk)
    assert (verdict.broken_at, verdict.why) == (5, "the links up to the head are gone")


def test_an_event_that_was_kept_out_of_the_chain_is_found(cast: Cast) -> None:
    old = timezone.now() - timedelta(hours=1)
    body = {"action": "weftkit.session.start", "dataEvent": False}
    stray = uuid4()
    AuditEvent.objects.create(
        event_id=stray, tenant_id=cast.acme.pk, body=body, occurred_at=old, stored_at=old
    )
    write(cast.acme.pk)
    # Waiting is no fault.
    assert verify(cast.acme.pk).is_whole
    AuditUnlinked.objects.filter(event_id=stray).delete()
    chains_link()
    assert str(stray) in verify(cast.acme.pk).why


def test_an_event_that_vanished_while_it_waited_is_found(cast: Cast) -> None:
    write(cast.acme.pk)
    with superuser() as cursor:
        cursor.execute("DELETE FROM audit_auditevent")
        cursor.execute("UPDATE audit_auditunlinked SET stored_at = stored_at - interval '1 hour'")
    chains_link()
    assert "gone before it had a place" in verify(cast.acme.pk).why


def test_writers_and_linkers_side_by_side_leave_no_gap(lasting_cast: Cast) -> None:
    tenant_id = lasting_cast.acme.pk

    def writer() -> None:
        for _ in range(15):
            with transaction.atomic():
                write(tenant_id)

    def linker() -> None:
        for _ in range(40):
            chain_link(chain_id=tenant_id, rows=4)

    outcomes = side_by_side(*[writer] * 3, *[linker] * 3)
    assert outcomes == [None] * 6
    chains_link()
    links = AuditLink.objects.filter(chain_id=tenant_id).order_by("sequence")
    assert [link.sequence for link in links] == list(range(1, 46))
    assert verify(tenant_id).is_whole
    assert AuditHead.objects.get(chain_id=tenant_id).sequence == 45
    connections.close_all()


def test_a_linker_that_dies_half_way_leaves_the_chain_as_it_was(
    lasting_cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = lasting_cast.acme.pk
    write(tenant_id, 3)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AuditHead, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            chain_link(chain_id=tenant_id)
    assert (AuditLink.objects.count(), AuditUnlinked.objects.count()) == (0, 3)
    assert chains_link() == 3
    assert verify(tenant_id).is_whole
    connections.close_all()

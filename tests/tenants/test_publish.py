"""The exchange: versions, roles, and what the data plane hands in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.utils import timezone

from engines.kit.exchange import (
    DATAPLANE_ROLE,
    OBSERVED_STATES,
    OBSERVED_STATES_DDL,
    RECORD_CHANNEL,
)
from engines.kit.records import Role
from tenants.audit.models import AuditEvent
from tenants.audit.services import audit_take_in
from tenants.instances.credentials import credential_create
from tenants.instances.models import Instance
from tenants.instances.services import instance_change
from tenants.publish.services import key_seen_take, record_publish
from tests.tenants.cast import Cast, make_instance, published, side_by_side


@pytest.fixture
def listener(lasting_cast: Cast) -> Iterator[psycopg.Connection]:
    """Another connection, which listens as a data plane does."""
    settings = connection.get_connection_params()
    with psycopg.connect(**settings, autocommit=True) as other:
        other.execute(f"LISTEN {RECORD_CHANNEL}")
        yield other


def version_of(instance: Instance) -> int:
    record = published(instance)
    assert record is not None
    return record.version


def test_versions_rise_and_the_last_one_holds_the_last_facts(lasting_cast: Cast) -> None:
    instance = make_instance(lasting_cast.acme, plan="standard").instance
    versions = []

    def change(blocks: int) -> None:
        for _ in range(5):
            with transaction.atomic():
                instance_change(instance=instance, blocks=blocks)
                versions.append(version_of(instance))

    outcomes = side_by_side(*[lambda blocks=b: change(blocks) for b in range(2, 6)])
    assert outcomes == [None] * 4
    assert len(set(versions)) == 20
    instance.refresh_from_db()
    record = published(instance)
    assert record is not None
    assert record.version == max(versions)
    assert record.limits.read == 100 * instance.blocks
    assert record.generation == instance.generation


def test_versions_of_different_instances_rise_in_the_order_of_commit(lasting_cast: Cast) -> None:
    instances = [make_instance(lasting_cast.acme, f"i{n}").instance for n in range(4)]
    seen: list[int] = []

    def publish(instance: Instance) -> None:
        for _ in range(5):
            with transaction.atomic():
                record_publish(instance=instance)

    def follow() -> None:
        # What a reader that only asks for higher versions sees must never be overtaken.
        highest = 0
        for _ in range(60):
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT version FROM publish.record WHERE version > %s ORDER BY version",
                    [highest],
                )
                seen.extend(row[0] for row in cursor.fetchall())
            highest = max(seen, default=0)

    outcomes = side_by_side(follow, *[lambda i=i: publish(i) for i in instances])
    assert outcomes == [None] * 5
    assert seen == sorted(seen)


def test_listeners_hear_of_a_record_once_it_is_durable(
    lasting_cast: Cast, listener: psycopg.Connection
) -> None:
    with transaction.atomic():
        instance = make_instance(lasting_cast.acme).instance
        assert list(listener.notifies(timeout=0.05)) == []
    heard = list(listener.notifies(timeout=5, stop_after=1))
    assert [notice.payload for notice in heard] == [str(instance.pk)]


def test_a_change_that_fails_publishes_nothing(cast: Cast) -> None:
    instance = make_instance(cast.acme).instance
    before = version_of(instance)
    with pytest.raises(RuntimeError), transaction.atomic():
        credential_create(instance=instance, actor="test", role=Role.READ)
        raise RuntimeError("after the change")
    assert version_of(instance) == before


ALLOWED = [
    "SELECT count(*) FROM publish.record",
    "INSERT INTO publish.key_seen VALUES ('k', now()) "
    "ON CONFLICT (key_id) DO UPDATE SET last_used_at = now()",
    "INSERT INTO publish.usage_intake (idempotency_key, instance_id, source, started_at, "
    "stopped_at) VALUES ('k', gen_random_uuid(), 's', now(), now()) ON CONFLICT DO NOTHING",
]
FORBIDDEN = [
    "UPDATE publish.record SET version = 0",
    "DELETE FROM publish.record",
    "DELETE FROM publish.usage_intake",
    "SELECT * FROM accounts_user",
    "SELECT * FROM instances_credentialsecret",
    "SELECT nextval('publish.record_version')",
]


@pytest.mark.parametrize("statement", ALLOWED)
def test_the_data_planes_role_can_do_its_work(cast: Cast, statement: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {DATAPLANE_ROLE}")
        cursor.execute(statement)
        cursor.execute("RESET ROLE")


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_data_planes_role_can_do_nothing_else(cast: Cast, statement: str) -> None:
    with (
        pytest.raises(DatabaseError, match="permission denied"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(f"SET LOCAL ROLE {DATAPLANE_ROLE}")
        cursor.execute(statement)


def test_a_table_of_before_learns_the_new_states_and_refuses_others(cast: Cast) -> None:
    insert = (
        "INSERT INTO publish.observed (instance_id, host, generation, state)"
        " VALUES (gen_random_uuid(), 'local', 1, %s)"
    )
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE publish.observed DROP CONSTRAINT observed_state_check")
        cursor.execute(
            "ALTER TABLE publish.observed ADD CHECK (state IN"
            " ('starting', 'running', 'stopped', 'absent', 'failed'))"
        )
        with pytest.raises(DatabaseError, match="observed_state_check"), transaction.atomic():
            cursor.execute(insert, ["hibernated"])
        for _ in range(2):
            for statement in OBSERVED_STATES_DDL:
                cursor.execute(statement)
        for state in OBSERVED_STATES:
            cursor.execute(insert, [state])
        with pytest.raises(DatabaseError, match="observed_state_check"), transaction.atomic():
            cursor.execute(insert, ["asleep"])


def test_key_use_reaches_the_credential_and_never_goes_back(cast: Cast) -> None:
    instance = make_instance(cast.acme).instance
    credential = credential_create(instance=instance, actor="test", role=Role.READ).credential
    newest = timezone.now()
    for moment in (newest, newest - timedelta(minutes=5)):
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO publish.key_seen VALUES (%s, %s), ('unknown', %s)",
                [credential.key_id, moment, moment],
            )
        key_seen_take()
        credential.refresh_from_db()
        assert credential.last_used_at == newest
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM publish.key_seen")
        assert cursor.fetchone() == (0,)


def hand_in_event(event_id: uuid.UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO publish.audit_intake (event_id, body) VALUES (%s, %s)",
            [event_id, json.dumps({"action": "weftkit.relational.session.start"})],
        )


def test_audit_events_are_stored_once_and_cannot_be_changed(cast: Cast) -> None:
    event_id = uuid.uuid4()
    for _ in range(2):
        hand_in_event(event_id)
        assert audit_take_in() == 1
    event = AuditEvent.objects.get()
    assert event.action == "weftkit.relational.session.start"
    changes: list[dict[str, Any]] = [{"body": {}}, {"stored_at": timezone.now()}]
    for change in changes:
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            AuditEvent.objects.update(**change)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        AuditEvent.objects.all().delete()


def test_audit_is_taken_in_side_by_side_without_loss(lasting_cast: Cast) -> None:
    for _ in range(40):
        hand_in_event(uuid.uuid4())
    outcomes = side_by_side(*[lambda: audit_take_in(rows=10) for _ in range(4)])
    assert sum(o for o in outcomes if isinstance(o, int)) == AuditEvent.objects.count()
    audit_take_in()
    assert AuditEvent.objects.count() == 40
    connections.close_all()

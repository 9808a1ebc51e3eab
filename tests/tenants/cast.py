"""The cast of every test, and the instance host's part as the table contract has it.

Alice owns the tenant `acme`, Bob is its member; Charlie owns `globex` and must see nothing of
theirs. The host is played by writing `publish.observed`, which is all that the control plane knows
of it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection, connections, transaction
from django.db.models import QuerySet
from django.test import Client

from engines.kit.exchange import OBSERVED_CHANNEL
from engines.kit.records import InstanceRecord
from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole, Membership, Tenant, User
from tenants.accounts.services import tenant_create
from tenants.audit.models import AuditEvent
from tenants.iam.actors import actor_of_user
from tenants.instances.files import file_append, file_create
from tenants.instances.models import DataFile, Instance
from tenants.instances.services import instance_create
from tenants.operations.models import LIVE, Operation
from tenants.operations.runner import operation_run

PASSWORD = "correct horse battery staple"
# What the host reports for what is desired.
REPORTS = {"running": "running", "stopped": "stopped", "absent": "absent"}


@dataclass(frozen=True)
class Cast:
    """Three people in two tenants."""

    acme: Tenant
    globex: Tenant
    alice: User
    bob: User
    charlie: User

    @classmethod
    def assemble(cls) -> Cast:
        acme, globex = tenant_create(handle="acme"), tenant_create(handle="globex")
        people = [person(name) for name in ("alice", "bob", "charlie")]
        alice, bob, charlie = people
        join(acme, alice, MemberRole.OWNER)
        join(acme, bob, MemberRole.MEMBER)
        join(globex, charlie, MemberRole.OWNER)
        return cls(acme, globex, alice, bob, charlie)

    @property
    def owner(self) -> Actor:
        """Alice, as services see her."""
        return actor_of_user(user=self.alice, tenant="acme")


def person(name: str) -> User:
    """Make a user with the common password."""
    return User.objects.create_user(f"{name}@example.org", PASSWORD)


def join(tenant: Tenant, user: User, role: MemberRole) -> Membership:
    """Make a user a member."""
    return Membership.objects.create(tenant=tenant, user=user, role=role)


def signed_in(user: User) -> Client:
    """Return a browser in which `user` is signed in."""
    client = Client()
    client.force_login(user)
    return client


def make_instance(tenant: Tenant, name: str = "main", **fields: Any) -> Operation:
    """Start an instance; return the operation that provisions it."""
    values = {"engine": "relational", "plan": "lite", **fields}
    return instance_create(tenant=tenant, actor="test", name=name, **values)


def serving_instance(tenant: Tenant, name: str = "main", **fields: Any) -> Instance:
    """Make an instance that is in service."""
    operation = make_instance(tenant, name, **fields)
    assert settle(operation).state == "succeeded"
    operation.instance.refresh_from_db()
    return operation.instance


def uploaded(instance: Instance, content: bytes) -> DataFile:
    """Upload a small file for an instance."""
    file = file_create(
        instance=instance,
        actor="test",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return file_append(file=file, offset=0, data=content)


def report(instance: Instance, state: str = "", generation: int | None = None) -> None:
    """Play the host: report `state`, or what is desired, for the newest or the given generation."""
    instance.refresh_from_db()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO publish.observed (instance_id, host, generation, state) "
            "VALUES (%s, 'local', %s, %s) ON CONFLICT (instance_id) DO UPDATE SET "
            "generation = EXCLUDED.generation, state = EXCLUDED.state",
            [
                instance.pk,
                instance.generation if generation is None else generation,
                state or REPORTS[instance.desired],
            ],
        )
        cursor.execute("SELECT pg_notify(%s, %s)", [OBSERVED_CHANNEL, str(instance.pk)])


def settle(operation: Operation) -> Operation:
    """Run an operation to its end, with a host that does what it is told between two runs.

    Needs `OPERATION_WAIT_IN_TASK_S = 0`, or each run waits for its patience.
    """
    for _ in range(10):
        operation_run(operation_id=operation.pk)
        operation.refresh_from_db()
        if operation.state not in LIVE:
            return operation
        report(operation.instance)
    raise AssertionError(f"the operation {operation.kind} does not end")


def published(instance: Instance) -> InstanceRecord | None:
    """Return the record as a data plane reads it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT body::text FROM publish.record WHERE instance_id = %s", [instance.pk]
        )
        row = cursor.fetchone()
    if row is None:
        return None
    return InstanceRecord.from_json(json.loads(row[0]))


def side_by_side(*calls: Callable[[], object]) -> list[object]:
    """Run calls at the same moment, each in a thread with its own connection.

    Returns what each returned or raised.
    """
    barrier = threading.Barrier(len(calls))
    outcomes: list[object] = [None] * len(calls)

    def run(index: int, call: Callable[[], object]) -> None:
        try:
            barrier.wait(10)
            outcomes[index] = call()
        except Exception as error:  # noqa: BLE001 (the outcome that is asked for)
            outcomes[index] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


def asked_for() -> QuerySet[AuditEvent]:
    """Return the audit events, without those of the ends of operations: scenes are made by some."""
    return AuditEvent.objects.exclude(body__action="weftkit.operation.end")

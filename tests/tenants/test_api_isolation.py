"""Every endpoint, asked by everyone: Alice may, Bob as far as his role goes, Charlie finds nothing.

`ENDPOINTS` lists each method of each address with what Alice and Bob get; an endpoint that is not
listed fails the last test.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse

from engines.kit.records import Role
from tenants.accounts.actors import Actor
from tenants.accounts.invitations import invitation_create
from tenants.accounts.models import Invitation, MemberRole, Membership
from tenants.api.urls import ADDRESSES
from tenants.audit.models import AuditDrain, AuditEvent
from tenants.audit.services import audit_write
from tenants.billing.budgets import budget_create
from tenants.billing.models import Invoice
from tenants.iam.policies import Subject, policy_create
from tenants.iam.service_ids import service_id_create
from tenants.iam.services import api_key_create
from tenants.instances.credentials import credential_create
from tenants.instances.files import file_create
from tenants.instances.models import Instance
from tenants.instances.services import instance_delete, instance_suspend
from tenants.operations.models import Operation
from tenants.operations.services import operation_reset
from tenants.webhooks.services import endpoint_create, endpoint_test
from tests.tenants.cadf_schema import faults
from tests.tenants.cast import Cast, person, serving_instance, settle, signed_in, uploaded
from tests.tenants.host_part import ready_backup


@dataclass(frozen=True)
class Endpoint:
    """One method of one address; `prepare` names what must have happened to the instance before."""

    method: str
    name: str
    alice: int
    bob: int
    body: dict[str, Any] = field(default_factory=dict)
    prepare: str = ""
    query: str = ""
    part: bytes = b""

    def __str__(self) -> str:
        return f"{self.method} {self.name}"


# Stands for the id of the scene's file in a body.
FILE = "the file"
# And for its service id as the subject of a policy.
SUBJECT = "the service id"
# And for another member.
MEMBER = "the member"

# Below a tenant.
ENDPOINTS = [
    Endpoint("GET", "tenant", 200, 200),
    Endpoint("GET", "members", 200, 200),
    Endpoint("PATCH", "tenant", 200, 403, {"name": "renamed"}),
    Endpoint("POST", "tenant-leave", 409, 204),
    Endpoint("POST", "tenant-transfer", 200, 403, {"member": MEMBER}),
    Endpoint("GET", "invitations", 200, 403),
    Endpoint("POST", "invitations", 201, 403, {"email": "new@example.org", "role": "member"}),
    Endpoint("GET", "invitation", 200, 403),
    Endpoint("DELETE", "invitation", 204, 403),
    Endpoint("POST", "invitation-resend", 200, 403),
    Endpoint("GET", "webhooks", 200, 403),
    Endpoint("POST", "webhooks", 201, 403, {"url": "https://example.org/"}),
    Endpoint("GET", "webhook", 200, 403),
    Endpoint("PATCH", "webhook", 200, 403, {"description": "other"}),
    Endpoint("DELETE", "webhook", 204, 403),
    Endpoint("POST", "webhook-rotate", 200, 403),
    Endpoint("POST", "webhook-test", 202, 403),
    Endpoint("GET", "webhook-deliveries", 200, 403),
    Endpoint("GET", "webhook-delivery", 200, 403),
    Endpoint("POST", "webhook-redeliver", 202, 403),
    Endpoint("PATCH", "member", 200, 403, {"role": "auditor"}),
    Endpoint("DELETE", "member", 204, 403),
    Endpoint("GET", "api-keys", 200, 403),
    Endpoint("POST", "api-keys", 201, 403, {"name": "ci", "role": "member"}),
    Endpoint("GET", "api-key", 200, 403),
    Endpoint("PATCH", "api-key", 200, 403, {"is_enabled": False}),
    Endpoint("DELETE", "api-key", 204, 403),
    Endpoint("POST", "api-key-reroll", 200, 403),
    Endpoint("GET", "my-keys", 200, 200),
    Endpoint("POST", "my-keys", 201, 201, {"name": "mine"}),
    Endpoint("PATCH", "my-key", 200, 404, {"name": "mine"}),
    Endpoint("DELETE", "my-key", 204, 404),
    Endpoint("POST", "my-key-reroll", 200, 404),
    Endpoint("GET", "service-ids", 200, 403),
    Endpoint("POST", "service-ids", 201, 403, {"name": "ci"}),
    Endpoint("GET", "service-id", 200, 403),
    Endpoint("PATCH", "service-id", 200, 403, {"is_enabled": False}),
    Endpoint("DELETE", "service-id", 204, 403),
    Endpoint("GET", "policies", 200, 403),
    Endpoint("POST", "policies", 201, 403, {"subject": SUBJECT, "roles": ["Reader"]}),
    Endpoint("GET", "policy", 200, 403),
    Endpoint("PATCH", "policy", 200, 403, {"roles": ["Writer"]}),
    Endpoint("DELETE", "policy", 204, 403),
    Endpoint("GET", "billing", 200, 403),
    Endpoint("GET", "cost-report", 200, 403),
    Endpoint("GET", "invoice-preview", 200, 403),
    Endpoint("GET", "invoices", 200, 403),
    Endpoint("GET", "invoice", 200, 403),
    Endpoint("GET", "invoice-csv", 200, 403),
    Endpoint("GET", "invoice-lines", 200, 403),
    Endpoint("GET", "budgets", 200, 403),
    Endpoint("POST", "budgets", 201, 403, {"name": "all of it", "amount_micros": 10**9}),
    Endpoint("GET", "budget", 200, 403),
    Endpoint("PATCH", "budget", 200, 403, {"amount_micros": 5}),
    Endpoint("DELETE", "budget", 204, 403),
    Endpoint("GET", "notices", 200, 200),
    Endpoint("GET", "iam-check", 200, 200, query="?action=instances.create"),
    Endpoint("GET", "instances", 200, 200),
    Endpoint(
        "POST", "instances", 202, 202, {"name": "new", "engine": "relational", "plan": "lite"}
    ),
    Endpoint("GET", "instance", 200, 200),
    Endpoint("PATCH", "instance", 200, 200, {"plan": "standard", "blocks": 2}),
    Endpoint("DELETE", "instance", 202, 403),
    Endpoint("GET", "instance-connection", 200, 200),
    Endpoint("GET", "instance-usage", 200, 200),
    Endpoint("GET", "instance-usage-series", 200, 200),
    Endpoint("POST", "instance-suspend", 202, 202),
    Endpoint("GET", "backups", 200, 200),
    Endpoint("GET", "backup", 200, 200),
    Endpoint("PATCH", "backup", 200, 403, {"is_held": True}),
    Endpoint("DELETE", "backup", 204, 403),
    Endpoint("POST", "backup-restore", 202, 202, {"name": "restored"}),
    Endpoint("POST", "backup-verify", 202, 202),
    Endpoint("GET", "instance-backups", 200, 200),
    Endpoint("POST", "instance-backups", 202, 202, {"label": "new"}),
    Endpoint("GET", "backup-schedule", 200, 200),
    Endpoint("PATCH", "backup-schedule", 200, 403, {"cadence": "hourly"}),
    Endpoint("POST", "instance-clone", 202, 202, {"name": "copy"}),
    Endpoint("GET", "restore-window", 200, 200),
    Endpoint(
        "POST",
        "instance-restore",
        409,
        409,
        {"name": "before", "time": "2026-01-01T00:00:00Z"},
    ),
    Endpoint("POST", "instance-export", 202, 202),
    Endpoint("POST", "instance-import", 202, 202, {"file": FILE}),
    Endpoint("GET", "files", 200, 200),
    Endpoint("POST", "files", 201, 201, {"size_bytes": 9, "sha256": "0" * 64}),
    Endpoint("GET", "file", 200, 200),
    Endpoint("DELETE", "file", 204, 204),
    Endpoint("GET", "file-content", 200, 200),
    Endpoint(
        "PUT", "file-content", 200, 200, prepare="receiving", query="?offset=0", part=b"REDIS0009"
    ),
    Endpoint("POST", "instance-hibernate", 202, 202),
    Endpoint("POST", "instance-scale", 202, 202, {"plan": "standard", "blocks": 2}),
    Endpoint("POST", "instance-wake", 202, 202),
    Endpoint("POST", "instance-resume", 202, 202, prepare="suspended"),
    Endpoint("POST", "instance-undelete", 202, 403, prepare="quarantined"),
    Endpoint("GET", "credentials", 200, 200),
    Endpoint("POST", "credentials", 201, 201, {"role": "read"}),
    Endpoint("GET", "credential", 200, 200),
    Endpoint("DELETE", "credential", 204, 204),
    Endpoint("POST", "credential-rotate", 202, 202),
    Endpoint("GET", "operations", 200, 200),
    Endpoint("GET", "operation", 200, 200),
    Endpoint("POST", "operation-cancel", 202, 202, prepare="suspending"),
    Endpoint("POST", "operation-retry", 202, 202, prepare="suspend failed"),
    Endpoint("POST", "operation-reset", 202, 403, prepare="suspending"),
    Endpoint("GET", "usage", 200, 200),
    Endpoint("GET", "audit", 200, 403),
    Endpoint("GET", "audit-drain", 200, 403),
    Endpoint("PATCH", "audit-drain", 200, 403, {"name": "other"}),
    Endpoint("DELETE", "audit-drain", 204, 403),
    Endpoint("GET", "audit-drains", 200, 403),
    Endpoint("POST", "audit-drains", 201, 403, {"name": "new", "kind": "folder"}),
    Endpoint("GET", "audit-event", 200, 403),
    Endpoint("GET", "audit-export", 200, 403),
    Endpoint("GET", "audit-head", 200, 403),
    Endpoint("GET", "audit-verify", 200, 403),
    Endpoint("GET", "instance-audit", 200, 403),
    Endpoint("PATCH", "instance-audit", 200, 403, {"data_events": True}),
]
# Without a tenant: the same for everyone who is signed in, or for everyone at all.
ELSEWHERE = {
    "audit-actions",
    "docs",
    "engines",
    "index",
    "me",
    "plans",
    "price-lists",
    "roles",
    "tenants",
    "session",
    "sessions",
    "sessions-revoke-others",
    "webhook-event-types",
}
# For the platform's staff (`test_billing_api.py`).
STAFF = {name for address, name, _ in ADDRESSES if address.startswith("operator/")}


@dataclass
class Scene:
    """A tenant with one of everything, and the addresses of it."""

    cast: Cast
    instance: Instance
    arguments: dict[str, Any]

    def address(self, name: str, route: str, **other: Any) -> str:
        """Return the address of this name in the scene; `other` takes the place of its things."""
        arguments = {**self.arguments, **other}
        wanted = {key: value for key, value in arguments.items() if f":{key}>" in route}
        return reverse(name, kwargs=wanted)

    def ask(self, client: Client, endpoint: Endpoint, **other: Any) -> Any:
        route = next(address for address, name, _ in ADDRESSES if name == endpoint.name)
        address = self.address(f"api:{endpoint.name}", route, **other)
        stand_ins: dict[str, Any] = {
            FILE: str(self.arguments["file_id"]),
            MEMBER: str(self.arguments["member_id"]),
            SUBJECT: {"type": "service_id", "id": str(self.arguments["service_id"])},
        }
        body = {
            key: stand_ins.get(value, value) if isinstance(value, str) else value
            for key, value in endpoint.body.items()
        }
        return client.generic(
            endpoint.method,
            address + endpoint.query,
            data=endpoint.part or _json(body),
            content_type="application/octet-stream" if endpoint.part else "application/json",
        )


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body) if body else ""


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def scene(cast: Cast) -> Scene:
    return scene_of(cast)


def scene_of(cast: Cast) -> Scene:
    instance = serving_instance(cast.acme, engine="inmemory", deletion_protected=False)
    dora = Membership.objects.create(tenant=cast.acme, user=person("dora"), role=MemberRole.MEMBER)
    service = service_id_create(actor=cast.owner, name="ci")
    policy = policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Reader"])
    return Scene(
        cast,
        instance,
        {
            "tenant": "acme",
            "instance": instance.handle,
            "member_id": dora.pk,
            "key_id": api_key_create(actor=cast.owner, name="k", is_own=True).api_key.pk,
            "policy_id": policy.pk,
            "service_id": service.pk,
            "credential_id": credential_create(
                instance=instance, actor="test", role=Role.READ
            ).credential.pk,
            "operation_id": Operation.objects.get(kind="provision").pk,
            "budget_id": budget_create(
                tenant=cast.acme, actor="test", name="b", amount_micros=10**9
            ).pk,
            "invoice_id": Invoice.objects.create(
                tenant=cast.acme,
                period_start=datetime(2026, 10, 1, tzinfo=UTC),
                period_stop=datetime(2026, 11, 1, tzinfo=UTC),
                currency="USD",
            ).pk,
            "file_id": uploaded(instance, b"REDIS0009").pk,
            "backup_id": ready_backup(instance).pk,
            "event_id": an_event(cast),
            "drain_id": AuditDrain.objects.create(
                tenant=cast.acme, name="siem", kind="folder", created_by="test"
            ).pk,
            **people_of(cast),
        },
    )


def people_of(cast: Cast) -> dict[str, UUID]:
    invitation = invitation_create(
        actor=cast.owner, email="invited@example.org", role=MemberRole.MEMBER
    )
    Invitation.objects.update(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    webhook, _ = endpoint_create(tenant=cast.acme, actor="test", url="https://example.org/")
    delivery = endpoint_test(endpoint=webhook)
    return {
        "invitation_id": invitation.pk,
        "webhook_id": webhook.pk,
        "delivery_id": delivery.pk,
    }


def an_event(cast: Cast) -> UUID:
    audit_write(
        tenant_id=cast.acme.pk, action="weftkit.instance.purge", initiator="system",
        target="instances/acme-gone",
    )  # fmt: skip
    return AuditEvent.objects.latest("event_id").event_id


def prepare(scene: Scene, what: str) -> None:
    if what == "quarantined":
        settle(instance_delete(instance=scene.instance, actor="test"))
    elif what == "receiving":
        file = file_create(instance=scene.instance, actor="test", size_bytes=9, sha256="0" * 64)
        scene.arguments["file_id"] = file.pk
    elif what:
        operation = instance_suspend(instance=scene.instance, actor="test")
        scene.arguments["operation_id"] = operation.pk
        if what == "suspended":
            settle(operation)
        elif what == "suspend failed":
            operation_reset(operation=operation)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_alice_may(scene: Scene, endpoint: Endpoint) -> None:
    prepare(scene, endpoint.prepare)
    answer = scene.ask(signed_in(scene.cast.alice), endpoint)
    assert answer.status_code == endpoint.alice, answer.content
    # And whatever event it left is one that CADF's readers can read.
    told = AuditEvent.objects.filter(tenant_id=scene.cast.acme.pk)
    assert [fault for event in told for fault in faults(event.body)] == []


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_bob_may_what_his_role_says(scene: Scene, endpoint: Endpoint) -> None:
    prepare(scene, endpoint.prepare)
    answer = scene.ask(signed_in(scene.cast.bob), endpoint)
    assert answer.status_code == endpoint.bob, answer.content
    if answer.status_code == 403:
        assert answer.json()["code"] == "forbidden"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_charlie_finds_nothing(scene: Scene, endpoint: Endpoint) -> None:
    prepare(scene, endpoint.prepare)
    answer = scene.ask(signed_in(scene.cast.charlie), endpoint)
    assert answer.status_code == 404, answer.content
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_acmes_things_are_not_found_through_charlies_own_tenant(
    scene: Scene, endpoint: Endpoint
) -> None:
    prepare(scene, endpoint.prepare)
    answer = scene.ask(signed_in(scene.cast.charlie), endpoint, tenant="globex")
    owns_one = {
        "api-keys",
        "audit",
        "audit-drains",
        "audit-export",
        "audit-head",
        "audit-verify",
        "backups",
        "billing",
        "budgets",
        "cost-report",
        "iam-check",
        "instances",
        "invitations",
        "invoice-preview",
        "invoices",
        "members",
        "my-keys",
        "notices",
        "operations",
        "policies",
        "service-ids",
        "tenant",
        "tenant-leave",
        "usage",
        "webhooks",
    }
    names_acmes = endpoint.body.get("subject") == SUBJECT
    if endpoint.name not in owns_one or names_acmes:
        assert answer.status_code == 404, answer.content
    else:
        assert answer.status_code == endpoint.alice
        told = b"".join(answer) if answer.streaming else answer.content
        assert b"acme" not in told


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_a_key_of_another_tenant_finds_nothing(scene: Scene, endpoint: Endpoint) -> None:
    prepare(scene, endpoint.prepare)
    actor = Actor(scene.cast.globex, MemberRole.OWNER, "user:charlie@example.org")
    token = api_key_create(actor=actor, name="theirs", role=MemberRole.OWNER).token
    client = Client(headers={"Authorization": f"Bearer {token}"})
    assert scene.ask(client, endpoint).status_code == 404


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_a_read_only_key_changes_nothing(scene: Scene, endpoint: Endpoint) -> None:
    prepare(scene, endpoint.prepare)
    token = api_key_create(actor=scene.cast.owner, name="r", role=MemberRole.READ_ONLY).token
    client = Client(headers={"Authorization": f"Bearer {token}"})
    allowed = endpoint.method == "GET" and endpoint.name not in {
        "api-key",
        "api-keys",
        "audit",
        "audit-drain",
        "audit-drains",
        "audit-event",
        "audit-export",
        "audit-head",
        "audit-verify",
        "billing",
        "budget",
        "budgets",
        "cost-report",
        "file-content",
        "invitation",
        "invitations",
        "invoice",
        "invoice-csv",
        "invoice-lines",
        "invoice-preview",
        "invoices",
        "my-keys",
        "policies",
        "policy",
        "service-id",
        "service-ids",
        "instance-audit",
        "webhook",
        "webhook-deliveries",
        "webhook-delivery",
        "webhooks",
    }
    assert scene.ask(client, endpoint).status_code == (200 if allowed else 403)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_nobody_is_asked_who_they_are(scene: Scene, endpoint: Endpoint) -> None:
    answer = scene.ask(Client(), endpoint)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="weftkit"'


def test_every_method_of_every_address_is_in_the_table() -> None:
    served = {
        (method.upper(), name)
        for _, name, view in ADDRESSES
        for method in ("get", "post", "put", "patch", "delete")
        if hasattr(view, method) and name not in ELSEWHERE | STAFF
    }
    assert served == {(endpoint.method, endpoint.name) for endpoint in ENDPOINTS}

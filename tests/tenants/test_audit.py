"""Every change leaves its event: who, what, on what, how it ended; shown to who may see it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from engines.kit.records import Role
from tenants.accounts.models import MemberRole
from tenants.api.audited import CHANGING
from tenants.api.urls import ADDRESSES
from tenants.audit.actions import REQUESTS
from tenants.iam.services import api_key_create
from tenants.instances.models import Credential
from tests.tenants.cast import PASSWORD, Cast, asked_for, join, person, serving_instance, signed_in


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def change(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return client.generic(
        method,
        f"/api/v1/tenants/acme{path}",
        data="" if body is None else body,
        content_type="application/json",
        headers=headers,
    )


def events(client: Client, tenant: str = "acme") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get(f"/api/v1/tenants/{tenant}/audit").json()["items"]
    return [item for item in items if item["action"] != "weftkit.operation.end"]


def test_every_request_that_changes_something_is_registered() -> None:
    served = {
        (method.upper(), name)
        for _, name, view in ADDRESSES
        for method in CHANGING
        if hasattr(view, method)
    }
    assert served == set(REQUESTS)


def test_a_change_leaves_one_event_that_says_everything(cast: Cast) -> None:
    wanted = '{"name": "shop", "engine": "relational", "plan": "lite"}'
    answer = change(
        signed_in(cast.bob), "POST", "/instances", wanted, **{"X-Request-ID": "bobs-first"}
    )
    assert answer.status_code == 202
    (event,) = events(signed_in(cast.alice))
    del event["id"], event["at"]
    assert event == {
        "action": "weftkit.instance.create",
        "severity": "normal",
        "message": "weftkit: create instance acme-shop",
        "initiator": "user:bob@example.org",
        "address": "127.0.0.1",
        "target": "instances/acme-shop",
        "outcome": "pending",
        "reason_code": 202,
        "request_id": "bobs-first",
        "is_data_event": False,
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "action", "code"),
    [
        ("DELETE", "/instances/acme-main", None, "weftkit.instance.delete", 403),
        ("POST", "/api-keys", '{"name": "k", "role": "owner"}', "weftkit.api-key.create", 403),
        ("POST", "/instances/acme-main/resume", None, "weftkit.instance.resume", 409),
        ("PATCH", "/instances/acme-none", "{}", "weftkit.instance.update", 404),
        ("POST", "/instances", "{", "weftkit.instance.create", 400),
    ],
)
def test_a_refusal_leaves_its_event_and_no_change(
    cast: Cast, method: str, path: str, body: str | None, action: str, code: int
) -> None:
    serving_instance(cast.acme)
    assert change(signed_in(cast.bob), method, path, body).status_code == code
    (event,) = events(signed_in(cast.alice))
    assert (event["action"], event["outcome"], event["reason_code"]) == (action, "failure", code)
    assert event["target"] == path[1:]


def test_a_change_that_breaks_at_its_end_leaves_neither_change_nor_event(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = serving_instance(cast.acme)

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("tenants.api.audited.audit_write", breaks)
    client = signed_in(cast.alice)
    client.raise_request_exception = False
    answer = change(client, "POST", f"/instances/{instance.handle}/credentials", '{"role": "read"}')
    assert answer.status_code == 500
    assert Credential.objects.count() == 0
    assert asked_for().count() == 0


def test_a_repetition_answered_from_memory_leaves_no_second_event(cast: Cast) -> None:
    client = signed_in(cast.alice)
    for _ in range(2):
        body = '{"name": "k", "role": "member"}'
        assert (
            change(client, "POST", "/api-keys", body, **{"Idempotency-Key": "1"}).status_code == 201
        )
    assert [event["action"] for event in events(client)] == ["weftkit.api-key.create"]


def test_what_somebody_elses_tenant_refused_is_in_nobodys_events(cast: Cast) -> None:
    assert change(signed_in(cast.charlie), "POST", "/instances", "{}").status_code == 404
    assert asked_for().count() == 0


def test_each_tenant_sees_its_own_events_only(cast: Cast) -> None:
    serving = serving_instance(cast.acme)
    change(signed_in(cast.alice), "POST", f"/instances/{serving.handle}/suspend")
    assert len(events(signed_in(cast.alice))) == 1
    assert events(signed_in(cast.charlie), "globex") == []
    assert signed_in(cast.charlie).get("/api/v1/tenants/acme/audit").status_code == 404


@pytest.mark.parametrize(
    ("role", "status"),
    [
        (MemberRole.OWNER, 200),
        (MemberRole.ADMIN, 200),
        (MemberRole.AUDITOR, 200),
        (MemberRole.MEMBER, 403),
        (MemberRole.BILLING, 403),
        (MemberRole.READ_ONLY, 403),
    ],
)
def test_owners_admins_and_auditors_may_read(cast: Cast, role: MemberRole, status: int) -> None:
    token = api_key_create(actor=cast.owner, name="k", role=role).token
    client = Client(headers={"Authorization": f"Bearer {token}"})
    assert client.get("/api/v1/tenants/acme/audit").status_code == status


def test_no_event_holds_a_secret(cast: Cast) -> None:
    serving_instance(cast.acme)
    path = "/instances/acme-main/credentials"
    made = change(signed_in(cast.alice), "POST", path, f'{{"role": "{Role.READ.value}"}}').json()
    event = asked_for().get()
    assert made["password"] not in str(event.body)
    assert event.target == f"{path[1:]}/{made['id']}"


def test_sign_ins_are_events_of_every_tenant_of_who_signed_in(cast: Cast, client: Client) -> None:
    join(cast.globex, cast.alice, MemberRole.READ_ONLY)
    for password in ("wrong", PASSWORD):
        client.post("/sign-in", {"login": "Alice@Example.org", "password": password})
    client.post("/sign-in", {"login": "nobody@example.org", "password": "x"})
    for tenant, reader in (("acme", cast.alice), ("globex", cast.charlie)):
        found = [
            (event["action"], event["initiator"], event["outcome"], event["reason_code"])
            for event in events(signed_in(reader), tenant)
        ]
        name = ("weftkit.session.start", "user:alice@example.org")
        assert found == [(*name, "success", 200), (*name, "failure", 401)]


def test_events_come_in_pages_newest_first(cast: Cast) -> None:
    client = signed_in(cast.alice)
    for index in range(3):
        join(cast.acme, person(f"p{index}"), MemberRole.MEMBER)
        change(client, "POST", "/invitations", f'{{"email": "n{index}@x.org", "role": "member"}}')
    first = client.get("/api/v1/tenants/acme/audit?limit=2").json()
    rest = client.get(first["next"]).json()
    times = [event["at"] for event in [*first["items"], *rest["items"]]]
    assert len(times) == 3
    assert times == sorted(times, reverse=True)

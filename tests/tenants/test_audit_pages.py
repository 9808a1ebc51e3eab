"""The audit pages: what they show to whom, and that each change reaches the API."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client

from tenants.audit.chain import chains_link
from tenants.audit.models import AuditDrain, AuditEvent, InstanceAudit
from tenants.audit.services import audit_write
from tests.tenants.cast import Cast, serving_instance, signed_in

PAGES = ("audit", "audit/integrity", "audit/drains", "audit/data-events")


@pytest.fixture(autouse=True)
def _settings(settings: Any, tmp_path: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0
    settings.AUDIT_DRAIN_FOLDER = str(tmp_path)


@pytest.fixture
def alice(cast: Cast) -> Client:
    for action, target, code in [
        ("weftkit.instance.create", "instances/acme-one", 202),
        ("weftkit.instance.delete", "instances/acme-one", 403),
    ]:
        audit_write(
            tenant_id=cast.acme.pk, action=action, initiator="user:alice@example.org",
            target=target, outcome="success" if code < 400 else "failure", reason_code=code,
        )  # fmt: skip
    audit_write(
        tenant_id=cast.globex.pk, action="weftkit.session.start", initiator="user:charlie@x.org",
        target="console",
    )  # fmt: skip
    chains_link()
    return signed_in(cast.alice)


def shown(client: Client, path: str) -> str:
    answer = client.get(f"/t/acme/{path}")
    assert answer.status_code == 200, answer.content
    return answer.content.decode()


def test_the_search_is_in_the_address_and_goes_into_the_exports(alice: Client) -> None:
    assert "weftkit.instance.create" in shown(alice, "audit")
    page = shown(alice, "audit?outcome=failure&action=weftkit.instance.*")
    assert "weftkit.instance.delete" in page
    assert "<code>weftkit.instance.create</code>" not in page
    export = "/api/v1/tenants/acme/audit/export?action=weftkit.instance.%2A&amp;outcome=failure"
    assert export in page
    assert "charlie" not in shown(alice, "audit")
    assert "Nothing was found" in shown(alice, "audit?actor=user:nobody")
    assert alice.get("/t/acme/audit?since=soon").status_code == 422


def test_the_exports_of_the_page_answer_to_the_persons_session(alice: Client) -> None:
    answer = alice.get("/api/v1/tenants/acme/audit/export?&format=csv")
    assert b"".join(answer).count(b"\n") == 3


def test_one_event_is_shown_whole(cast: Cast, alice: Client) -> None:
    event = AuditEvent.objects.get(action="weftkit.instance.delete")
    page = shown(alice, f"audit/events/{event.pk}")
    assert "weftkit: delete instance acme-one [failure]" in page
    assert "ActivityTracker" in page
    theirs = AuditEvent.objects.get(tenant_id=cast.globex.pk)
    assert alice.get(f"/t/acme/audit/events/{theirs.pk}").status_code == 404


def test_integrity_says_whether_the_chain_is_whole(alice: Client) -> None:
    assert "The chain is whole" in shown(alice, "audit/integrity")
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("DELETE FROM audit_auditevent WHERE action = 'weftkit.instance.delete'")
        cursor.execute("SET session_replication_role = origin")
    assert "The chain is broken at link 2: its event is gone" in shown(alice, "audit/integrity")
    assert alice.get("/t/acme/audit/integrity?after=x").status_code == 404


def test_a_drain_is_made_paused_resumed_and_deleted(alice: Client, settings: Any) -> None:
    settings.WEBHOOK_NETWORKS = ["127.0.0.0/8"]
    refused = alice.post("/t/acme/audit/drains", {"name": "siem", "kind": "webhook"})
    assert refused.status_code == 422
    wanted = {"name": "siem", "kind": "webhook", "url": "http://127.0.0.1:9/x", "bucket": "unused"}
    made = alice.post("/t/acme/audit/drains", wanted)
    assert made.status_code == 200
    assert "whsec_" in made.content.decode()
    assert "whsec_" not in shown(alice, "audit/drains")
    drain = AuditDrain.objects.get()
    assert drain.config == {"url": "http://127.0.0.1:9/x"}
    for wish, state in (("pause", False), ("resume", True)):
        address = f"/t/acme/audit/drains/{drain.pk}"
        assert alice.post(address, {"wish": wish}).status_code == 302
        drain.refresh_from_db()
        assert drain.is_enabled is state
    assert alice.post(f"/t/acme/audit/drains/{drain.pk}", {"wish": "burn"}).status_code == 404
    assert alice.post(f"/t/acme/audit/drains/{drain.pk}").status_code == 302
    assert not AuditDrain.objects.exists()


def test_data_events_are_switched_on_the_page(cast: Cast, alice: Client) -> None:
    instance = serving_instance(cast.acme)
    assert instance.handle in shown(alice, "audit/data-events")
    for wish, state in (("on", True), ("off", False)):
        body = {"handle": instance.handle, "wish": wish}
        assert alice.post("/t/acme/audit/data-events", body).status_code == 302
        assert InstanceAudit.objects.get(instance_id=instance.pk).data_events is state
    missing = alice.post("/t/acme/audit/data-events", {"handle": "globex-main", "wish": "on"})
    assert missing.status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_bob_is_refused_and_charlie_finds_nothing(cast: Cast, path: str) -> None:
    assert signed_in(cast.bob).get(f"/t/acme/{path}").status_code == 403
    assert signed_in(cast.charlie).get(f"/t/acme/{path}").status_code == 404
    assert Client().get(f"/t/acme/{path}").status_code == 302

"""ETag, If-None-Match, If-Match: who changes what somebody else has changed is told so."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from django.test import Client
from rest_framework.renderers import JSONRenderer

from tenants.accounts.models import MemberRole
from tenants.audit.models import AuditEvent
from tenants.iam.services import api_key_create
from tests.tenants.cast import Cast, serving_instance, side_by_side, signed_in

ADDRESS = "/api/v1/tenants/acme/instances/acme-main"


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def alice(cast: Cast) -> Client:
    serving_instance(cast.acme)
    return signed_in(cast.alice)


def patch(client: Client, body: dict[str, Any], seen: str = "") -> Any:
    headers = {"If-Match": seen} if seen else {}
    return client.patch(ADDRESS, body, content_type="application/json", headers=headers)


def test_a_tag_stays_while_the_resource_does_and_changes_with_it(alice: Client) -> None:
    first, again = alice.get(ADDRESS), alice.get(ADDRESS)
    assert first["ETag"] == again["ETag"]
    assert first["ETag"].startswith('"')
    assert first["Cache-Control"] == "private, no-cache"
    changed = patch(alice, {"deletion_protected": False})
    assert changed["ETag"] != first["ETag"]
    assert alice.get(ADDRESS)["ETag"] == changed["ETag"]


def test_an_answer_is_written_once_and_its_tag_is_of_what_is_sent(
    alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    write = JSONRenderer.render

    def counting(self: JSONRenderer, *args: Any, **kwargs: Any) -> bytes:
        written.append(write(self, *args, **kwargs))
        return written[-1]

    monkeypatch.setattr(JSONRenderer, "render", counting)
    answer = alice.get(ADDRESS)
    assert written == [answer.content]
    assert answer["ETag"] == f'"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
    indented = alice.get(ADDRESS, headers={"Accept": "application/json; indent=2"})
    assert indented.content.startswith(b'{\n  "')
    assert (indented.json(), indented["ETag"]) == (answer.json(), answer["ETag"])


def test_who_has_it_already_gets_304_without_a_body(alice: Client) -> None:
    tag = alice.get(ADDRESS)["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = alice.get(ADDRESS, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", tag)
    assert alice.get(ADDRESS, headers={"If-None-Match": '"other"'}).status_code == 200
    listed = alice.get("/api/v1/tenants/acme/instances")
    answer = alice.get("/api/v1/tenants/acme/instances", headers={"If-None-Match": listed["ETag"]})
    assert answer.status_code == 304


def test_a_change_of_what_was_seen_is_made(alice: Client) -> None:
    tag = alice.get(ADDRESS)["ETag"]
    assert patch(alice, {"deletion_protected": False}, seen=tag).status_code == 200
    assert patch(alice, {"deletion_protected": True}, seen="*").status_code == 200


@pytest.mark.parametrize("form", ["{0}", "W/{1}"])
def test_a_change_of_what_is_no_more_is_refused_and_changes_nothing(
    alice: Client, form: str
) -> None:
    old = alice.get(ADDRESS)["ETag"]
    new = patch(alice, {"deletion_protected": False})["ETag"]
    events = AuditEvent.objects.count()
    stale = form.format(old, new)
    answer = patch(alice, {"deletion_protected": True}, seen=stale)
    assert answer.status_code == 412
    assert answer.json()["code"] == "precondition_failed"
    assert answer.json()["etag"] == new
    assert alice.get(ADDRESS).json()["deletion_protected"] is False
    assert AuditEvent.objects.count() == events + 1  # the refusal
    gone = alice.delete(ADDRESS, headers={"If-Match": old})
    assert gone.status_code == 412
    assert alice.get(ADDRESS).json()["status"] == "active"


def test_of_two_who_saw_the_same_one_changes_it(lasting_cast: Cast) -> None:
    serving_instance(lasting_cast.acme)
    token = api_key_create(actor=lasting_cast.owner, name="k", role=MemberRole.OWNER).token

    def change() -> int:
        client = Client(headers={"Authorization": f"Bearer {token}", "If-Match": tag})
        answer = client.patch(
            ADDRESS, {"deletion_protected": False}, content_type="application/json"
        )
        return answer.status_code

    tag = Client(headers={"Authorization": f"Bearer {token}"}).get(ADDRESS)["ETag"]
    assert sorted(side_by_side(change, change)) == [200, 412]  # type: ignore[type-var]


def test_an_installation_may_demand_it(alice: Client, settings: Any) -> None:
    settings.API_REQUIRES_IF_MATCH = True
    answer = patch(alice, {"deletion_protected": False})
    assert (answer.status_code, answer.json()["code"]) == (428, "precondition_required")
    tag = alice.get(ADDRESS)["ETag"]
    assert patch(alice, {"deletion_protected": False}, seen=tag).status_code == 200

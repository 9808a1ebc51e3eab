"""The IAM pages: what they show to whom, and that each change reaches the API."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from tenants.accounts.models import MemberRole
from tenants.iam.models import AccessPolicy, ApiKey, ServiceId
from tenants.iam.policies import Subject, policy_create
from tenants.iam.service_ids import service_id_create
from tenants.iam.services import NewApiKey, api_key_authenticate, api_key_create
from tests.tenants.cast import Cast, signed_in

HERE = "127.0.0.1"
TOKEN = re.compile(r"wk_[a-z2-7]{12}_[0-9A-Za-z]{32}")


@pytest.fixture
def service(cast: Cast) -> ServiceId:
    return service_id_create(actor=cast.owner, name="orders")


@pytest.fixture
def alice(cast: Cast) -> Client:
    return signed_in(cast.alice)


def token_in(page: bytes) -> str:
    found = TOKEN.findall(page.decode())
    assert len(set(found)) == 1
    return str(found[0])


def test_a_service_id_is_made_given_a_policy_and_a_key_and_deleted(
    cast: Cast, alice: Client
) -> None:
    assert b"No service ids yet" in alice.get("/t/acme/iam").content
    made = alice.post("/t/acme/iam", {"name": "orders", "description": "shop"})
    service = ServiceId.objects.get()
    place = f"/t/acme/iam/service-ids/{service.pk}"
    assert (made.status_code, made["Location"]) == (302, place)
    assert b"It may do nothing yet" in alice.get(place).content
    form = alice.get(f"/t/acme/iam/policies/new?subject=service_id:{service.pk}").content.decode()
    assert f'value="service_id:{service.pk}" selected' in form
    granted = alice.post(
        "/t/acme/iam/policies/new",
        {
            "subject": f"service_id:{service.pk}",
            "roles": ["Reader", "Viewer"],
            "engine": "relational",
            "instance": "acme-*",
        },
    )
    assert granted["Location"] == place
    policy = AccessPolicy.objects.get()
    assert policy.roles == ["Reader", "Viewer"]
    assert policy.scope == {
        "engine": {"operator": "stringEquals", "value": "relational"},
        "instance": {"operator": "stringMatches", "value": "acme-*"},
    }
    fields = {"name": "prod", "environment": "prod", "days": "30", "idempotency": "once-only"}
    shown = alice.post(f"{place}/new-key", fields)
    assert shown.status_code == 200
    token = token_in(shown.content)
    assert api_key_authenticate(token=token, address=HERE) is not None
    assert shown["Cache-Control"] == "no-store"
    # The same form once more: one key, and its text is not told again.
    again = alice.post(f"{place}/new-key", fields)
    assert again.status_code == 200
    assert b"It was shown already" in again.content
    assert not TOKEN.findall(again.content.decode())
    assert ApiKey.objects.count() == 1
    page = alice.get(place).content.decode()
    assert "acme-*" in page
    assert "wk_" in page
    assert token not in page
    assert alice.post(place, {"wish": "disable"}).status_code == 302
    assert api_key_authenticate(token=token, address=HERE) is None
    alice.post(place, {"wish": "enable"})
    assert api_key_authenticate(token=token, address=HERE) is not None
    taken = alice.post(f"/t/acme/iam/policies/{policy.pk}/delete")
    assert taken["Location"] == place
    assert not AccessPolicy.objects.exists()
    assert alice.post(place, {"wish": "delete"})["Location"] == "/t/acme/iam"
    assert api_key_authenticate(token=token, address=HERE) is None
    assert alice.get(place).status_code == 404


def test_a_key_is_rerolled_disabled_and_revoked(cast: Cast, alice: Client) -> None:
    shown = alice.post(
        "/t/acme/iam/keys", {"name": "ci", "role": "member", "idempotency": "one-key-please"}
    )
    first = token_in(shown.content)
    key = ApiKey.objects.get()
    place = f"/t/acme/iam/keys/{key.pk}"
    assert b"ci" in alice.get("/t/acme/iam/keys").content
    second = token_in(alice.post(place, {"wish": "reroll", "grace_s": "3600"}).content)
    assert first != second
    assert api_key_authenticate(token=first, address=HERE) is not None
    assert alice.get(place).content.count(b'<th scope="row">') == 2
    alice.post(place, {"wish": "reroll", "grace_s": "0"})
    assert api_key_authenticate(token=second, address=HERE) is None
    alice.post(place, {"wish": "disable"})
    key.refresh_from_db()
    assert key.state == "disabled"
    alice.post(place, {"wish": "revoke"})
    key.refresh_from_db()
    assert key.state == "revoked"
    assert b"Issue a new secret" not in alice.get(place).content
    assert alice.post(place, {"wish": "fly"}).status_code == 404


def test_a_refused_form_says_where_and_why(cast: Cast, alice: Client, service: ServiceId) -> None:
    answer = alice.post(
        "/t/acme/iam/keys",
        {"name": "x", "role": "member", "networks": "everywhere", "idempotency": "a-b-c-d"},
    )
    assert answer.status_code == 422
    assert b"is no network" in answer.content
    subject = f"service_id:{service.pk}"
    answer = alice.post("/t/acme/iam/policies/new", {"subject": subject, "instance": "ACME"})
    assert answer.status_code == 422
    assert b"a policy has a role or an action" in answer.content
    answer = alice.post(
        "/t/acme/iam/policies/new", {"subject": "service_id:x", "roles": ["Reader"]}
    )
    assert answer.status_code == 422
    assert not AccessPolicy.objects.exists()


def test_the_question_who_may_what_is_answered_in_words(
    cast: Cast, alice: Client, service: ServiceId
) -> None:
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Operator"])
    asked = {"subject": f"service_id:{service.pk}", "action": "instances.suspend"}
    page = alice.get("/t/acme/iam/check", asked).content.decode()
    assert "Yes, by a policy of user:alice@example.org (Operator)." in page
    page = alice.get("/t/acme/iam/check", {**asked, "action": "instances.delete"}).content
    assert b"No. No policy says so." in page
    page = alice.get("/t/acme/iam/check", {"action": "instances.delete"}).content
    assert b"Yes, by the role owner." in page
    page = alice.get("/t/acme/iam/check", {**asked, "instance": "acme-none"}).content
    assert b"there is no such instance" in page


def test_bob_has_keys_of_his_own_and_sees_nothing_of_the_rest(
    cast: Cast, service: ServiceId
) -> None:
    bob = signed_in(cast.bob)
    alices = api_key_create(actor=cast.owner, name="hers", is_own=True).api_key
    for place in ("iam", "iam/keys", "iam/policies", "iam/check", "iam/policies/new"):
        assert bob.get(f"/t/acme/{place}").status_code == 403
    shown = bob.post("/t/acme/my-keys", {"name": "laptop", "idempotency": "bobs-first-key"})
    token = token_in(shown.content)
    key = api_key_authenticate(token=token, address=HERE)
    assert key is not None
    assert key.membership is not None
    listed = bob.get("/t/acme/my-keys").content.decode()
    assert "laptop" in listed
    assert "hers" not in listed
    assert "IAM</a>" not in listed
    assert bob.get(f"/t/acme/my-keys/{alices.pk}").status_code == 404
    assert bob.post(f"/t/acme/my-keys/{alices.pk}", {"wish": "revoke"}).status_code == 404
    place = f"/t/acme/my-keys/{key.pk}"
    assert bob.get(place).status_code == 200
    token_in(bob.post(place, {"wish": "reroll", "grace_s": "0"}).content)
    bob.post(place, {"wish": "revoke"})
    assert api_key_authenticate(token=token, address=HERE) is None


def test_charlie_finds_nothing_of_acmes(cast: Cast, service: ServiceId) -> None:
    made: NewApiKey = api_key_create(actor=cast.owner, name="ci", role=MemberRole.MEMBER)
    policy = policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Reader"])
    charlie = signed_in(cast.charlie)
    for tenant in ("acme", "globex"):
        for place in (
            f"iam/service-ids/{service.pk}",
            f"iam/service-ids/{service.pk}/new-key",
            f"iam/keys/{made.api_key.pk}",
        ):
            assert charlie.get(f"/t/{tenant}/{place}").status_code == 404
            if "new-key" not in place:
                asked = charlie.post(f"/t/{tenant}/{place}", {"wish": "disable"})
                assert asked.status_code == 404
        place = f"/t/{tenant}/iam/policies/{policy.pk}/delete"
        assert charlie.post(place).status_code == 404
    fields = {"name": "mine", "idempotency": "charlies-key"}
    asked = charlie.post(f"/t/globex/iam/service-ids/{service.pk}/new-key", fields)
    assert asked.status_code == 404
    assert b"orders" not in charlie.get("/t/globex/iam").content
    assert ApiKey.objects.count() == 1
    assert AccessPolicy.objects.count() == 1

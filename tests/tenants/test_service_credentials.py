"""Credentials of service ids: what is published follows the policies, at once and exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from engines.kit.iam import rights_of
from engines.kit.records import Credential as Record
from engines.kit.records import Role
from tenants.core.errors import ConflictError
from tenants.iam.actors import actor_of_user
from tenants.iam.models import ServiceId
from tenants.iam.policies import Subject, policy_change, policy_create, policy_delete
from tenants.iam.service_ids import service_id_change, service_id_create, service_id_delete
from tenants.iam.services import api_key_create
from tenants.iam.templatetags.iam import role_now
from tenants.instances.credentials import credential_create
from tenants.instances.models import Credential, Instance
from tenants.publish.services import record_refresh
from tests.tenants.cast import Cast, published, serving_instance, side_by_side, signed_in


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def instance(cast: Cast) -> Instance:
    return serving_instance(cast.acme, "dev-1")


@pytest.fixture
def service(cast: Cast) -> ServiceId:
    return service_id_create(actor=cast.owner, name="app")


def credential(instance: Instance, service: ServiceId, role: Role = Role.ADMIN) -> Credential:
    made = credential_create(instance=instance, actor="test", role=role, service=service)
    return made.credential


def seen(made: Credential) -> Record:
    """Return the credential as the data plane has it."""
    record = published(made.instance)
    assert record is not None
    return next(item for item in record.credentials if item.key_id == made.key_id)


def on(instance: str) -> dict[str, dict[str, str]]:
    return {"instance": {"operator": "stringMatches", "value": instance}}


def test_the_published_role_follows_the_policies(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    made = credential(instance, service)
    assert not seen(made).enabled
    subject = Subject(service=service)
    policy = policy_create(actor=cast.owner, subject=subject, roles=["Reader"])
    assert (seen(made).enabled, seen(made).role) == (True, Role.READ)
    for roles, expected in ((["Writer"], Role.WRITE), (["Manager"], Role.ADMIN)):
        policy_change(actor=cast.owner, policy=policy, changes={"roles": roles})
        assert seen(made).role is expected
    # Only there where the policy holds.
    policy_change(actor=cast.owner, policy=policy, changes={"scope": on("acme-prod-*")})
    assert not seen(made).enabled
    second = policy_create(
        actor=cast.owner, subject=subject, roles=["Writer"], scope=on("acme-dev-?")
    )
    assert (seen(made).enabled, seen(made).role) == (True, Role.WRITE)
    policy_delete(actor=cast.owner, policy=second)
    assert not seen(made).enabled


def test_a_monitor_or_a_platform_administrator_does_not_sign_in(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    made = credential(instance, service)
    roles = ["Administrator", "Checkpointer", "Monitor"]
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=roles)
    assert not seen(made).enabled


def test_where_an_engine_has_tables_the_record_says_which_of_them(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    Instance.objects.filter(pk=instance.pk).update(engine="keyvalue")
    made = credential(instance, service, Role.WRITE)
    assert (seen(made).enabled, seen(made).grants) == (False, ())
    subject = Subject(service=service)
    tables = {
        "engine": {"operator": "stringEquals", "value": "keyvalue"},
        "resource_type": {"operator": "stringEquals", "value": "table"},
        "resource": {"operator": "stringMatches", "value": "orders-*"},
    }
    policy = policy_create(actor=cast.owner, subject=subject, roles=["Manager"], scope=tables)
    record = seen(made)
    assert (record.enabled, record.role) == (True, Role.WRITE)
    rights = rights_of(record, "keyvalue")
    assert rights.allows("weftkit.keyvalue.data.write", "orders-eu")
    assert not rights.allows("weftkit.keyvalue.data.write", "carts")
    assert not rights.allows("weftkit.keyvalue.structure.write", "orders-eu")
    (shown,) = (
        signed_in(cast.alice)
        .get(f"/api/v1/tenants/acme/instances/{instance.handle}/credentials")
        .json()["items"]
    )
    assert (shown["role"], shown["effective_role"]) == ("write", None)
    assert shown["grants"] == [
        {
            "roles": ["Manager"],
            "actions": [],
            "resource_type": "table",
            "resource": "orders-*",
            "is_pattern": True,
        }
    ]
    fresh = Credential.objects.select_related("ownership__service", "instance").get(pk=made.pk)
    assert role_now(fresh) == "By table"
    elsewhere = {"scope": tables | on("acme-prod-*")}
    policy_change(actor=cast.owner, policy=policy, changes=elsewhere)
    assert (seen(made).enabled, seen(made).grants) == (False, ())
    single = {"actions": ["weftkit.keyvalue.data.read"], "roles": [], "scope": on("acme-dev-?")}
    policy_change(actor=cast.owner, policy=policy, changes=single)
    rights = rights_of(seen(made), "keyvalue")
    assert rights.allows("weftkit.keyvalue.data.read", "carts")
    assert not rights.allows("weftkit.keyvalue.data.write", "carts")
    service_id_change(service=service, changes={"is_enabled": False})
    assert not seen(made).enabled


def test_a_credential_never_has_more_than_it_was_made_for(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    made = credential(instance, service, Role.WRITE)
    policy = policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Manager"])
    assert seen(made).role is Role.WRITE
    policy_change(actor=cast.owner, policy=policy, changes={"roles": ["Reader"]})
    assert seen(made).role is Role.READ


def test_a_disabled_service_id_closes_its_credentials_and_a_deleted_one_ends_them(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    other = credential_create(instance=instance, actor="test", role=Role.READ).credential
    made = credential(instance, service)
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Reader"])
    service_id_change(service=service, changes={"is_enabled": False})
    assert not seen(made).enabled
    service_id_change(service=service, changes={"is_enabled": True, "name": "renamed"})
    assert seen(made).enabled
    service_id_delete(service=service)
    record = published(instance)
    assert record is not None
    assert [item.key_id for item in record.credentials] == [other.key_id]
    made.refresh_from_db()
    assert made.revoked_at is not None
    assert not made.secrets.exists()
    with pytest.raises(ConflictError):
        credential(instance, service)


def test_only_instances_with_its_credentials_are_published_anew(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    stranger = serving_instance(cast.acme, "dev-2")
    before = published(stranger)
    credential(instance, service)
    version = published(instance)
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Reader"])
    after = published(instance)
    assert version is not None
    assert after is not None
    assert after.version > version.version
    assert published(stranger) == before
    assert record_refresh() == 0


def test_the_record_holds_roles_and_no_policies(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    credential(instance, service)
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Reader"])
    record = published(instance)
    assert record is not None
    text = json.dumps(record.to_json())
    assert "Reader" not in text
    assert str(service.pk) not in text


def test_bob_makes_one_over_the_api_and_sees_what_it_may(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    client = signed_in(cast.bob)
    address = reverse("api:credentials", args=["acme", instance.handle])
    body = client.post(address, {"service_id": str(service.pk)}, "application/json").json()
    assert (body["role"], body["effective_role"]) == ("admin", None)
    assert body["service_id"] == str(service.pk)
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Reader"])
    listed = client.get(address).json()["items"]
    assert [item["effective_role"] for item in listed] == ["read"]
    assert client.post(address, {}, "application/json").status_code == 400


def test_the_page_makes_one_and_says_what_it_may_now(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    client = signed_in(cast.alice)
    place = f"/t/acme/instances/{instance.handle}/credentials"
    fields = {"service_id": str(service.pk), "role": "admin", "label": "shop"}
    assert client.post(place, fields).status_code == 200
    made = Credential.objects.get(instance=instance)
    assert made.ownership.service == service  # type: ignore[attr-defined]
    assert "Nothing now" in client.get(place).content.decode()
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Writer"])
    page = client.get(place).content.decode()
    assert "Write<p" in page
    assert "by the policies of app, at most admin" in page
    # Who may not list service ids makes credentials as before.
    bob = signed_in(cast.bob)
    assert b"Service id" not in bob.get(place).content
    assert bob.post(place, {"role": "read"}).status_code == 200
    assert not hasattr(Credential.objects.exclude(pk=made.pk).get(), "ownership")


def test_another_tenants_service_id_is_not_found(cast: Cast, instance: Instance) -> None:
    charlie = actor_of_user(user=cast.charlie, tenant="globex")
    theirs = service_id_create(actor=charlie, name="app")
    address = reverse("api:credentials", args=["acme", instance.handle])
    body = {"service_id": str(theirs.pk)}
    assert signed_in(cast.alice).post(address, body, "application/json").status_code == 404
    assert not Credential.objects.filter(instance=instance).exists()


def test_nobody_gets_a_password_that_may_do_more_than_they(
    cast: Cast, instance: Instance, service: ServiceId
) -> None:
    policy_create(
        actor=cast.owner,
        subject=Subject(service=service),
        roles=["Editor", "Reader"],
        scope=on("acme-dev-*"),
    )
    token = api_key_create(actor=cast.owner, name="k", service=service).token
    address = reverse("api:credentials", args=["acme", instance.handle])
    headers = {"Authorization": f"Bearer {token}"}
    for role, status in (("read", 201), ("write", 403), ("admin", 403)):
        answer = signed_in(cast.bob).post(address, {"role": role}, "application/json")
        assert answer.status_code == 201
        theirs = Client(headers=headers).post(address, {"role": role}, "application/json")
        assert theirs.status_code == status, role
        rotate = reverse(
            "api:credential-rotate", args=["acme", instance.handle, answer.json()["id"]]
        )
        rotated = Client(headers=headers).post(rotate, {}, "application/json")
        assert rotated.status_code == (202 if status == 201 else 403), role


def test_a_policy_and_a_credential_made_at_once_are_both_in_the_record(
    lasting_cast: Cast,
) -> None:
    """Whoever is second sees the other: no record keeps a role that is no longer so."""
    instance = serving_instance(lasting_cast.acme, "dev-1")
    service = service_id_create(actor=lasting_cast.owner, name="app")
    for number in range(4):
        policy = policy_create(
            actor=lasting_cast.owner, subject=Subject(service=service), roles=["Reader"]
        )
        outcomes = side_by_side(
            lambda: credential(instance, service),
            lambda policy=policy: policy_change(  # type: ignore[misc]
                actor=lasting_cast.owner, policy=policy, changes={"roles": ["Manager"]}
            ),
        )
        assert not [item for item in outcomes if isinstance(item, Exception)], outcomes
        assert isinstance(outcomes[0], Credential)
        assert seen(outcomes[0]).role is Role.ADMIN, number
        policy_delete(actor=lasting_cast.owner, policy=policy)
        assert not seen(outcomes[0]).enabled

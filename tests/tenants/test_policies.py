"""Service ids and policies: they grant what they say, where they say, and never to strangers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole, Membership
from tenants.audit.models import AuditEvent
from tenants.audit.services import audit_write
from tenants.core.errors import ConflictError, ForbiddenError, InvalidError, LimitError
from tenants.iam import policies, service_ids
from tenants.iam.actors import actor_of_user
from tenants.iam.models import AccessPolicy, ServiceId
from tenants.iam.policies import Subject, policy_change, policy_create, policy_delete
from tenants.iam.service_ids import service_id_change, service_id_create, service_id_delete
from tenants.iam.services import api_key_authenticate, api_key_create
from tenants.instances.models import Instance, InstanceStatus
from tests.tenants.cast import Cast, serving_instance, signed_in
from tests.tenants.host_part import ready_backup

HERE = "192.0.2.7"


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def service(cast: Cast) -> ServiceId:
    return service_id_create(actor=cast.owner, name="deployer")


def on(instance: str, operator: str = "stringMatches") -> dict[str, dict[str, str]]:
    return {"instance": {"operator": operator, "value": instance}}


def ask(token: str, method: str, name: str, body: Any = None, **arguments: Any) -> Any:
    client = Client(headers={"Authorization": f"Bearer {token}"})
    address = reverse(f"api:{name}", kwargs={"tenant": "acme", **arguments})
    data = "" if body is None else json.dumps(body)
    return client.generic(method, address, data=data, content_type="application/json")


def test_a_service_ids_key_may_what_its_policies_say_on_the_instances_they_name(
    cast: Cast, service: ServiceId
) -> None:
    dev = serving_instance(cast.acme, "dev-1")
    main = serving_instance(cast.acme, "main")
    token = api_key_create(actor=cast.owner, name="k", service=service).token
    assert ask(token, "GET", "instance", instance=dev.handle).status_code == 403
    policy_create(
        actor=cast.owner,
        subject=Subject(service=service),
        roles=["Operator"],
        scope=on("acme-dev-?"),
    )
    assert ask(token, "GET", "instance", instance=dev.handle).status_code == 200
    assert ask(token, "POST", "instance-suspend", instance=dev.handle).status_code == 202
    assert ask(token, "DELETE", "instance", instance=dev.handle).status_code == 403
    assert ask(token, "POST", "instance-suspend", instance=main.handle).status_code == 403
    # One that does not exist is refused in the same words as one that does.
    absent = ask(token, "GET", "instance", instance="acme-dev-9")
    assert (absent.status_code, absent.json()["code"]) == (403, "forbidden")
    assert ask(token, "GET", "members").status_code == 403


def test_lists_hold_what_the_policies_name_and_an_operation_is_its_instances(
    cast: Cast, service: ServiceId
) -> None:
    dev, main = serving_instance(cast.acme, "dev-1"), serving_instance(cast.acme, "main")
    token = api_key_create(actor=cast.owner, name="k", service=service).token
    for name in ("instances", "operations"):
        assert ask(token, "GET", name).status_code == 403
    policy_create(
        actor=cast.owner,
        subject=Subject(service=service),
        roles=["Editor"],
        scope=on("acme-dev-*"),
    )
    listed = ask(token, "GET", "instances").json()["items"]
    assert [item["handle"] for item in listed] == [dev.handle]
    operations = ask(token, "GET", "operations").json()["items"]
    assert {item["instance"] for item in operations} == {dev.handle}
    made = ask(token, "POST", "instance-suspend", instance=dev.handle).json()
    assert ask(token, "GET", "operation", operation_id=made["id"]).status_code == 200
    assert ask(token, "POST", "operation-cancel", operation_id=made["id"]).status_code == 202
    others = main.operations.get()
    assert ask(token, "GET", "operation", operation_id=others.pk).status_code == 403
    assert ask(token, "POST", "operation-retry", operation_id=others.pk).status_code == 403
    # A right on some instances makes none, also not by copying one of them.
    body = {"name": "dev-2", "engine": "relational", "plan": "lite"}
    assert ask(token, "POST", "instances", body).status_code == 403
    cloned = ask(token, "POST", "instance-clone", {"name": "dev-3"}, instance=dev.handle)
    assert cloned.status_code == 403


def test_usage_backups_and_events_are_those_of_the_instances_that_one_may_see(
    cast: Cast, service: ServiceId
) -> None:
    dev, main = serving_instance(cast.acme, "dev-1"), serving_instance(cast.acme, "main")
    mine, others = ready_backup(dev), ready_backup(main)
    events = {}
    for instance in (dev, main):
        audit_write(
            tenant_id=cast.acme.pk,
            action="weftkit.instance.purge",
            initiator="system",
            target=f"instances/{instance.handle}",
        )
        event = AuditEvent.objects.get(target=f"instances/{instance.handle}")
        events[instance.handle] = event.event_id
    token = api_key_create(actor=cast.owner, name="k", service=service).token
    for name in ("usage", "backups", "audit"):
        assert ask(token, "GET", name).status_code == 403
    policy_create(
        actor=cast.owner,
        subject=Subject(service=service),
        roles=["Administrator"],
        scope=on("acme-dev-*"),
    )
    usage = ask(token, "GET", "usage").json()["items"]
    assert [item["instance"] for item in usage] == [dev.handle]
    backups = ask(token, "GET", "backups").json()["items"]
    assert [item["id"] for item in backups] == [str(mine.pk)]
    audit = ask(token, "GET", "audit").json()["items"]
    assert [item["id"] for item in audit] == [str(events[dev.handle])]
    exported = ask(token, "GET", "audit-export")
    lines = b"".join(exported.streaming_content).decode().splitlines()
    assert len(lines) == 1
    assert dev.handle in lines[0]
    # One by one too; what is the whole tenant's stays closed.
    assert ask(token, "GET", "audit-event", event_id=events[dev.handle]).status_code == 200
    assert ask(token, "GET", "audit-event", event_id=events[main.handle]).status_code == 404
    assert ask(token, "GET", "backup", backup_id=mine.pk).status_code == 200
    assert ask(token, "PATCH", "backup", {"is_held": True}, backup_id=mine.pk).status_code == 200
    assert ask(token, "GET", "backup", backup_id=others.pk).status_code == 403
    assert ask(token, "DELETE", "backup", backup_id=others.pk).status_code == 403
    restored = ask(token, "POST", "backup-restore", {"name": "again"}, backup_id=mine.pk)
    assert restored.status_code == 403
    assert ask(token, "GET", "audit-head").status_code == 403
    # A purged instance's usage and backups are still its own.
    Instance.objects.filter(pk=dev.pk).update(
        status=InstanceStatus.PURGED, quarantined_at=timezone.now(), purge_after=timezone.now()
    )
    assert [item["instance"] for item in ask(token, "GET", "usage").json()["items"]] == [dev.handle]
    assert ask(token, "GET", "backup", backup_id=mine.pk).status_code == 200


def test_a_policy_by_engine_covers_the_instances_of_that_engine(
    cast: Cast, service: ServiceId
) -> None:
    relational = serving_instance(cast.acme, "one")
    inmemory = serving_instance(cast.acme, "two", engine="inmemory")
    policy_create(
        actor=cast.owner,
        subject=Subject(service=service),
        roles=["Viewer"],
        scope={"engine": {"operator": "stringEquals", "value": "inmemory"}},
    )
    token = api_key_create(actor=cast.owner, name="k", service=service).token
    assert ask(token, "GET", "instance", instance=inmemory.handle).status_code == 200
    assert ask(token, "GET", "instance", instance=relational.handle).status_code == 403


def test_no_policy_opens_another_tenant(cast: Cast, service: ServiceId) -> None:
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Administrator"])
    token = api_key_create(actor=cast.owner, name="k", service=service).token
    client = Client(headers={"Authorization": f"Bearer {token}"})
    assert client.get(reverse("api:instances", args=["acme"])).status_code == 200
    assert client.get(reverse("api:instances", args=["globex"])).status_code == 404


def test_a_disabled_or_deleted_service_ids_keys_do_not_open(cast: Cast, service: ServiceId) -> None:
    made = api_key_create(actor=cast.owner, name="k", service=service)
    service_id_change(service=service, changes={"is_enabled": False})
    assert api_key_authenticate(token=made.token, address=HERE) is None
    service_id_change(service=service, changes={"is_enabled": True})
    assert api_key_authenticate(token=made.token, address=HERE) is not None
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Viewer"])
    service_id_delete(service=service)
    assert api_key_authenticate(token=made.token, address=HERE) is None
    assert not AccessPolicy.objects.exists()
    with pytest.raises(ConflictError):
        service_id_change(service=service, changes={"is_enabled": True})
    with pytest.raises(ConflictError):
        api_key_create(actor=cast.owner, name="k", service=service)


def test_a_policy_adds_to_a_members_role(cast: Cast) -> None:
    bob = Membership.objects.get(user=cast.bob)
    Membership.objects.filter(pk=bob.pk).update(role=MemberRole.READ_ONLY)
    policy_create(
        actor=cast.owner,
        subject=Subject(membership=bob),
        roles=["Administrator"],
        scope=on("acme-dev-*"),
    )
    actor = actor_of_user(user=cast.bob, tenant="acme")
    assert actor.may("instances.delete", actor.target(engine="relational", instance="acme-dev-1"))
    assert not actor.may("instances.delete")
    assert actor.may("instances.read")


def test_nobody_grants_changes_or_takes_more_than_they_hold(cast: Cast, service: ServiceId) -> None:
    bob = actor_of_user(user=cast.bob, tenant="acme")
    subject = Subject(service=service)
    for roles, actions in ((["Administrator"], []), ([], ["members.manage"])):
        with pytest.raises(ForbiddenError):
            policy_create(actor=bob, subject=subject, roles=roles, actions=actions)
    high = policy_create(actor=cast.owner, subject=subject, roles=["Administrator"])
    low = policy_create(actor=bob, subject=subject, roles=["Manager"], scope=on("acme-dev-*"))
    with pytest.raises(ForbiddenError):
        policy_change(actor=bob, policy=high, changes={"roles": ["Reader"]})
    with pytest.raises(ForbiddenError):
        policy_change(actor=bob, policy=low, changes={"roles": ["Administrator"]})
    with pytest.raises(ForbiddenError):
        policy_delete(actor=bob, policy=high)
    # Nor by minting a key of a service id that holds more.
    with pytest.raises(ForbiddenError):
        api_key_create(actor=bob, name="up", service=service)
    policy_delete(actor=cast.owner, policy=high)
    assert api_key_create(actor=bob, name="same", service=service).api_key.service == service
    charlie = Actor(cast.globex, MemberRole.OWNER, "user:charlie@example.org")
    with pytest.raises(ForbiddenError):
        policy_delete(actor=charlie, policy=low)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"roles": ["Root"]}, "roles"),
        ({"roles": ["owner"]}, "roles"),
        ({"roles": []}, "roles"),
        ({"roles": [], "actions": ["weftkit.relational.data.fly"]}, "actions"),
        ({"scope": {"engine": {"operator": "stringEquals", "value": "oracle"}}}, "scope"),
        ({"scope": on("ACME-1")}, "scope"),
        ({"scope": on("")}, "scope"),
        (
            {
                "roles": [],
                "actions": ["weftkit.inmemory.data.read"],
                "scope": {"engine": {"operator": "stringMatches", "value": "rel*"}},
            },
            "actions",
        ),
        # An instance of relational is one whole: a narrower policy could not be kept.
        (
            {
                "scope": {
                    "engine": {"operator": "stringEquals", "value": "relational"},
                    "resource_type": {"operator": "stringEquals", "value": "database"},
                }
            },
            "scope",
        ),
        ({"scope": {"resource": {"operator": "stringEquals", "value": "orders"}}}, "scope"),
    ],
)
def test_words_that_nobody_knows_are_refused(
    cast: Cast, service: ServiceId, values: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        policy_create(
            actor=cast.owner, subject=Subject(service=service), **{"roles": ["Reader"], **values}
        )
    assert list(refused.value.fields) == [field]


def test_a_database_policy_is_kept_for_an_engine_that_has_databases(
    cast: Cast, service: ServiceId
) -> None:
    scope = {
        "engine": {"operator": "stringEquals", "value": "cloudant"},
        "resource_type": {"operator": "stringEquals", "value": "database"},
        "resource": {"operator": "stringMatches", "value": "orders-*"},
    }
    policy = policy_create(
        actor=cast.owner, subject=Subject(service=service), roles=["Writer"], scope=scope
    )
    assert policy.scope == scope


def test_check_says_who_may_and_which_policy_says_so(cast: Cast, service: ServiceId) -> None:
    instance = serving_instance(cast.acme, "dev-1")
    policy = policy_create(
        actor=cast.owner, subject=Subject(service=service), roles=["Writer"], scope=on("*-dev-*")
    )
    alice, bob = signed_in(cast.alice), signed_in(cast.bob)
    address = reverse("api:iam-check", args=["acme"])
    about = {"subject_type": "service_id", "subject": str(service.pk), "instance": instance.handle}
    for action, expected in (
        ("weftkit.relational.data.write", {"is_allowed": True, "policy": str(policy.pk)}),
        ("weftkit.relational.structure.write", {"is_allowed": False, "policy": None}),
        ("weftkit.inmemory.data.write", {"is_allowed": True, "policy": str(policy.pk)}),
    ):
        assert alice.get(address, {"action": action, **about}).json() == expected
    assert bob.get(address, {"action": "instances.create"}).json() == {
        "is_allowed": True,
        "policy": "role:member",
    }
    assert bob.get(address, {"action": "instances.read", **about}).status_code == 403
    assert alice.get(address, {"action": "instances.fly"}).status_code == 400
    assert alice.get(address, {"action": "instances.read", "instance": "x"}).status_code == 404
    service_id_change(service=service, changes={"is_enabled": False})
    answer = alice.get(address, {"action": "weftkit.relational.data.write", **about})
    assert answer.json()["is_allowed"] is False


def test_policies_are_listed_by_subject_and_changed_over_the_api(
    cast: Cast, service: ServiceId
) -> None:
    client = signed_in(cast.alice)
    address = reverse("api:policies", args=["acme"])
    body = {
        "subject": {"type": "service_id", "id": str(service.pk)},
        "roles": ["Reader"],
        "scope": on("acme-*"),
    }
    made = client.post(address, body, "application/json")
    assert made.status_code == 201, made.content
    policy = made.json()
    assert policy["subject"] == body["subject"]
    assert policy["scope"] == body["scope"]
    detail = reverse("api:policy", args=["acme", policy["id"]])
    changed = client.patch(detail, {"roles": ["Writer", "Monitor"]}, "application/json").json()
    assert changed["roles"] == ["Monitor", "Writer"]
    assert changed["scope"] == body["scope"]
    listed = client.get(address, {"subject": str(service.pk)}).json()["items"]
    assert [item["id"] for item in listed] == [policy["id"]]
    other = "00000000-0000-0000-0000-000000000000"
    assert client.get(address, {"subject": other}).json()["items"] == []


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("policies", {"scoope": {}}),
        ("policies", {"scope": {"instnace": {"value": "acme-dev"}}}),
        ("policies", {"scope": {"instance": {"value": "acme-*", "op": "stringMatches"}}}),
        ("api-keys", {"name": "k", "role": "member", "expires": "2030-01-01T00:00:00Z"}),
        ("api-keys", {"name": "k", "role": "member", "cidr": ["192.0.2.0/24"]}),
        ("my-keys", {"name": "k", "role": "read-only"}),
    ],
)
def test_a_misspelt_restriction_is_refused_and_not_taken_for_none(
    cast: Cast, service: ServiceId, name: str, body: dict[str, Any]
) -> None:
    if name == "policies":
        subject = {"type": "service_id", "id": str(service.pk)}
        body = {"subject": subject, "roles": ["Reader"], **body}
    address = reverse(f"api:{name}", args=["acme"])
    answer = signed_in(cast.alice).post(address, body, "application/json")
    assert answer.status_code == 400
    assert "There is no such field." in answer.content.decode()
    assert not AccessPolicy.objects.exists()


def test_the_catalogue_has_every_role_with_its_actions(cast: Cast) -> None:
    items = signed_in(cast.bob).get(reverse("api:roles")).json()["items"]
    by_name = {item["name"]: item for item in items}
    assert {"Administrator", "Manager", "Checkpointer", "owner", "read-only"} <= set(by_name)
    assert "cloudantnosqldb.data-document.write" in by_name["Writer"]["actions"]
    assert by_name["Viewer"]["kind"] == "platform"


def test_numbers_are_bounded(
    cast: Cast, service: ServiceId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "POLICIES_PER_SUBJECT_MAX", 1)
    monkeypatch.setattr(service_ids, "SERVICE_IDS_MAX", 1)
    policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Reader"])
    with pytest.raises(LimitError):
        policy_create(actor=cast.owner, subject=Subject(service=service), roles=["Reader"])
    with pytest.raises(LimitError):
        service_id_create(actor=cast.owner, name="another")


def test_a_key_without_role_has_its_own_policies_and_an_owned_one_has_none(
    cast: Cast, service: ServiceId
) -> None:
    bare = api_key_create(actor=cast.owner, name="bare")
    assert ask(bare.token, "GET", "instances").status_code == 403
    policy_create(actor=cast.owner, subject=Subject(api_key=bare.api_key), roles=["Viewer"])
    assert ask(bare.token, "GET", "instances").status_code == 200
    owned = api_key_create(actor=cast.owner, name="owned", service=service)
    with pytest.raises(ConflictError):
        policy_create(actor=cast.owner, subject=Subject(api_key=owned.api_key), roles=["Viewer"])

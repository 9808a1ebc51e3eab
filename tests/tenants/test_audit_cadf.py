"""The body of an event: every action of both planes in the form that CADF readers expect."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client

from engines import registry
from engines.keyvalue.session.service import OPERATIONS
from engines.kit.records import Role
from tenants.accounts.models import MemberRole
from tenants.audit.actions import DATAPLANE, NAMES, VERBS, action_named
from tenants.audit.cadf import CODE_SEVERITY, Facts, event_body, event_time
from tenants.audit.details import ITEMS_MAX, TEXT_MAX, answer_details, request_details
from tenants.audit.services import Asked, audit_take_in, audit_write
from tenants.iam.services import api_key_create
from tests.tenants.cadf_schema import faults
from tests.tenants.cast import Cast, asked_for, serving_instance, signed_in

AT = datetime(2026, 11, 25, 4, 10, 0, 129_999, tzinfo=UTC)
TENANT = UUID("0193b2f0-0000-7000-8000-000000000001")
ALL = sorted(NAMES) + [f"weftkit.{e}.{a.name}" for e in registry.names() for a in DATAPLANE]


def body(action: str = "weftkit.instance.create", **facts: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "event_id": uuid4(),
        "at": AT,
        "tenant_id": TENANT,
        "initiator": "user:alice@example.org",
        "target": "instances/acme-shop",
        "instance": "acme-shop",
        **facts,
    }
    return event_body(Facts(action=action_named(action), **given))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("outcome", "code"), [("success", 200), ("failure", 403)])
def test_every_action_makes_a_cadf_event(name: str, outcome: str, code: int) -> None:
    made = body(name, outcome=outcome, reason_code=code)
    assert faults(made) == []
    assert made["action"] == name


@pytest.mark.parametrize("name", ALL)
def test_how_grave_each_action_is_was_decided(name: str) -> None:
    known = action_named(name)
    assert known.verb in VERBS or known.severity is not None


def test_what_clients_change_over_dynamodbs_api_is_registered() -> None:
    told = {each.event for each in OPERATIONS.values() if each.event}
    told |= {"table.read", "table.write"}
    registered = {each.name for each in DATAPLANE if not each.is_data}
    assert told == registered - {"session.start", "statement.cancel", "event.drop"}


def test_the_whole_event_field_by_field() -> None:
    event_id = uuid4()
    made = body(
        "weftkit.credential.create", event_id=event_id, initiator="key:abc",
        target="instances/acme-shop/credentials/42", reason_code=201, address="2001:db8::1",
        agent="curl/8", correlation_id="req-12345678", request_data={"role": "read"},
        response_data={"id": "42"}, region="eu-1",
    )  # fmt: skip
    source = f"crn:v1:weftkit:public:weftkit:eu-1:a/{TENANT}:acme-shop"
    assert made == {
        "id": str(event_id),
        "action": "weftkit.credential.create",
        "outcome": "success",
        "eventTime": "2026-11-25T04:10:00.12+0000",
        "severity": "critical",
        "message": "weftkit: create credential 42",
        "initiator": {
            "id": "key:abc",
            "name": "abc",
            "typeURI": "service/security/account/serviceid",
            "credential": {"type": "apikey"},
            "host": {"address": "2001:db8::1", "addressType": "IPv6", "agent": "curl/8"},
        },
        "target": {
            "id": f"{source}:credential:42",
            "name": "instances/acme-shop/credentials/42",
            "typeURI": "weftkit/credential",
        },
        "observer": {"name": "ActivityTracker"},
        "reason": {"reasonCode": 201, "reasonType": "Created"},
        "requestData": {"role": "read"},
        "responseData": {"id": "42"},
        "correlationId": "req-12345678",
        "dataEvent": False,
        "logSourceCRN": f"{source}::",
        "saveServiceCopy": True,
    }


def test_times_are_utc_with_two_decimals() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert event_time(elsewhere) == "2026-11-25T04:10:00.12+0000"


@pytest.mark.parametrize(
    ("code", "severity"),
    [
        *[(code, "warning") for code in (400, 409, 424, 500, 502, 504, 505)],
        *[(code, "critical") for code in (401, 403, 503, 507)],
        *[(code, "warning") for code in (402, 404, 423, 429)],
    ],
)
def test_a_failures_severity_is_its_codes(code: int, severity: str) -> None:
    assert body(outcome="failure", reason_code=code)["severity"] == severity
    assert set(CODE_SEVERITY) == {400, 409, 424, 500, 502, 504, 505, 401, 403, 503, 507}


@pytest.mark.parametrize(
    ("action", "severity"),
    [
        ("weftkit.instance.create", "normal"),
        ("weftkit.instance.update", "warning"),
        ("weftkit.instance.delete", "critical"),
        ("weftkit.api-key.create", "critical"),
        ("weftkit.relational.statement.read", "normal"),
    ],
)
def test_a_successs_severity_is_its_actions(action: str, severity: str) -> None:
    assert body(action)["severity"] == severity


@pytest.mark.parametrize(
    ("action", "target", "message"),
    [
        ("weftkit.instance.suspend", "instances/acme-shop/suspend", "suspend instance acme-shop"),
        (
            "weftkit.instance-audit.update",
            "instances/acme-shop/audit",
            "switch data events of acme-shop",
        ),
        (
            "weftkit.credential.rotate",
            "instances/acme-shop/credentials/7/rotate",
            "rotate credential 7",
        ),
        ("weftkit.operation.cancel", "operations/0193b2f0/cancel", "cancel operation 0193b2f0"),
        ("weftkit.audit-drain.delete", "audit/drains/0193b2f0", "delete audit drain 0193b2f0"),
        ("weftkit.session.start", "console", "sign in to console"),
        (
            "weftkit.keyvalue.table.create",
            "instances/acme-shop/tables/orders",
            "create table orders",
        ),
        (
            "weftkit.keyvalue.backup.delete",
            "instances/acme-shop/tables/orders/backups/0176-ab",
            "delete table backup 0176-ab",
        ),
    ],
)  # fmt: skip
def test_a_message_names_what_it_is_about(action: str, target: str, message: str) -> None:
    made = body(action, target=target, instance="acme-shop" if "acme" in target else "")
    assert made["message"] == f"weftkit: {message}"
    assert made["target"]["name"] == target


def test_a_platform_event_has_an_empty_account() -> None:
    made = body("weftkit.session.start", tenant_id=None, target="console", instance="")
    assert made["logSourceCRN"] == "crn:v1:weftkit:public:weftkit:local::::"
    assert faults(made) == []


def test_a_colon_in_a_name_adds_no_segment_to_a_crn() -> None:
    made = body("weftkit.credential.revoke", target="instances/acme-shop/credentials/a:1")
    assert made["target"]["id"].endswith(":acme-shop:credential:a%3A1")


def test_what_a_client_calls_itself_is_cut_and_made_storable(cast: Cast) -> None:
    audit_write(
        tenant_id=cast.acme.pk, action="weftkit.session.start", initiator="user:a\0b\udcff" * 99,
        target="console", asked=Asked(agent="x" * 9999, request_id="r\0" * 500),
    )  # fmt: skip
    event = asked_for().get()
    assert faults(event.body) == []
    assert event.body["initiator"]["id"].startswith("user:a?b?")
    assert len(event.body["correlationId"]) == 300


def test_only_known_fields_of_a_request_are_told() -> None:
    told = request_details(
        {
            "name": "n" * 999, "password": "p", "secret": "s", "role": "read", "token": "t",
            "tags": {"team": "a", "password": "their own word"}, "policy": {"role": "x", "key": 1},
            "roles": list(range(99)), "unheard_of": "u",
        }
    )  # fmt: skip
    assert told == {
        "name": "n" * TEXT_MAX,
        "role": "read",
        "tags": {"team": "a", "password": "their own word"},
        "policy": {"role": "x"},
        "roles": list(range(ITEMS_MAX)),
    }
    assert request_details(["no", "object"]) == {}
    assert request_details({"tags": {"a": {"b": {"c": {"d": 1}}}}}) == {
        "tags": {"a": {"b": {"c": "..."}}}
    }
    assert answer_details({"id": "1", "password": "p", "secret": "s", "url": "u"}) == {"id": "1"}


def test_no_secret_that_we_make_is_in_any_event(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    client = signed_in(cast.alice)
    base = "/api/v1/tenants/acme"
    asked: list[tuple[str, dict[str, str], str]] = [
        ("/api-keys", {"name": "ci", "role": "member"}, "token"),
        (f"/instances/{instance.handle}/credentials", {"role": Role.READ.value}, "password"),
    ]
    secrets = []
    for path, wanted, field in asked:
        answer = client.post(base + path, json.dumps(wanted), "application/json")
        secrets.append(answer.json()[field])
    token = api_key_create(actor=cast.owner, name="k", role=MemberRole.OWNER).token
    by_key = Client(headers={"Authorization": f"Bearer {token}"})
    assert by_key.post(f"{base}/instances/{instance.handle}/suspend").status_code == 202
    secrets.append(token)
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(event::text, ' ') FROM audit_auditevent AS event")
        (everything,) = cursor.fetchone()
    assert asked_for().count() == 3
    for secret in secrets:
        assert secret not in everything
        assert secret.rpartition("_")[2] not in everything
    assert asked_for().latest("event_id").body["initiator"]["credential"] == {"type": "apikey"}


def hand_in(**told: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO publish.audit_intake (event_id, body) VALUES (%s, %s)",
            [uuid4(), json.dumps(told)],
        )


def test_a_data_planes_event_becomes_cadf_of_the_tenant_that_owns_the_instance(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    asked_for().count()
    hand_in(
        action="weftkit.relational.session.start", instance_id=str(instance.pk), at=AT.timestamp(),
        tenant_id=str(cast.globex.pk), initiator="wk_abc", address="10.0.0.1", outcome="failure",
        reason_code=401, target="instances/acme-main", alike_left_out=7,
    )  # fmt: skip
    audit_take_in()
    event = asked_for().get()
    assert faults(event.body) == []
    # What the data plane says of the tenant is not believed.
    assert event.tenant_id == cast.acme.pk
    assert event.body["severity"] == "critical"
    assert event.body["eventTime"] == "2026-11-25T04:10:00.12+0000"
    assert event.body["message"] == "weftkit: sign in to acme-main [failure]"
    assert event.body["responseData"] == {"alike_left_out": 7}
    assert event.body["target"]["typeURI"] == "weftkit/relational/session"


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"action": "x", "at": "yesterday", "instance_id": 7, "reason_code": "no"},
        {"action": "weftkit.newer.thing.fly", "at": 1e300, "initiator": None},
        {"action": "weftkit.relational.session.start", "outcome": 3, "alike_left_out": []},
    ],
)
def test_what_a_data_plane_tells_badly_is_kept_as_an_event_of_nobody(
    cast: Cast, told: dict[str, Any]
) -> None:
    hand_in(**told)
    audit_take_in()
    event = asked_for().get()
    assert event.tenant_id is None
    assert [fault for fault in faults(event.body) if "name" not in fault] == []

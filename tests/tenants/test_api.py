"""The REST API as a script meets it: the way to a connection string, errors, pages, repetitions."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from tenants.accounts.models import MemberRole
from tenants.api.models import IdempotencyKey
from tenants.api.services import RETENTION, idempotency_keys_forget
from tenants.api.urls import ADDRESSES
from tenants.iam.models import ApiKey
from tenants.iam.services import api_key_create
from tenants.instances.models import Credential, Instance
from tenants.operations.models import Operation
from tests.tenants.cast import (
    Cast,
    make_instance,
    report,
    serving_instance,
    settle,
    side_by_side,
    signed_in,
)


class Script:
    """A caller with an API key, below one tenant."""

    def __init__(self, token: str) -> None:
        self.client = Client(headers={"Authorization": f"Bearer {token}"})

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        data = "" if body is None else json.dumps(body)
        return self.client.generic(
            method,
            f"/api/v1/tenants/acme{path}",
            data=data,
            content_type="application/json",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def script_of(cast: Cast, role: MemberRole = MemberRole.ADMIN) -> Script:
    return Script(api_key_create(actor=cast.owner, name="script", role=role).token)


@pytest.fixture
def script(cast: Cast) -> Script:
    return script_of(cast)


def test_a_script_goes_from_nothing_to_a_connection_string(script: Script) -> None:
    wanted = {"name": "shop", "engine": "relational", "plan": "standard", "blocks": 2}
    started = script.ask("POST", "/instances", wanted)
    assert started.status_code == 202
    operation = started.json()
    assert (operation["kind"], operation["instance"]) == ("provision", "acme-shop")
    assert [step["state"] for step in operation["steps"]] == ["pending"] * 3

    settle(Operation.objects.get(pk=operation["id"]))
    followed = script.client.get(started.headers["Location"]).json()
    assert (followed["state"], followed["progress_done"]) == ("succeeded", 3)
    assert script.ask("GET", "/instances/acme-shop").json()["status"] == "active"

    made = script.ask("POST", "/instances/acme-shop/credentials", {"role": "admin"}).json()
    assert made["password"] in made["uri"]
    listed = script.ask("GET", "/instances/acme-shop/credentials").json()["items"]
    assert [item["username"] for item in listed] == [made["username"]]
    assert "password" not in listed[0]
    reach = script.ask("GET", f"/instances/acme-shop/connection?username={made['username']}").json()
    assert made["username"] in reach["uri"]
    assert "PASSWORD" in reach["uri"]


def test_problems_have_one_shape(script: Script) -> None:
    answer = script.ask("POST", "/instances", {"name": "x!"}, X_Request_ID="my-request-1")
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == "my-request-1"
    problem = answer.json()
    assert set(problem.pop("errors")) == {"name", "engine", "plan"}
    assert problem == {
        "type": "urn:weftkit:problem:invalid",
        "title": "Bad Request",
        "status": 400,
        "detail": "The request is not valid.",
        "code": "invalid",
        "request_id": "my-request-1",
        "retryable": False,
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/instances/acme-none", None, 404, "not_found"),
        ("GET", "/nothing", None, 404, "not_found"),
        ("PUT", "/instances", {}, 405, "method_not_allowed"),
        ("DELETE", "/instances/acme-main", None, 409, "deletion_protected"),
        ("POST", "/instances/acme-main/resume", None, 409, "instance_status"),
        ("PATCH", "/instances/acme-main", {"plan": "gold"}, 400, "invalid"),
    ],
)
def test_refusals_have_stable_codes(
    cast: Cast, script: Script, method: str, path: str, body: Any, status: int, code: str
) -> None:
    serving_instance(cast.acme)
    answer = script.ask(method, path, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "body", "errors"),
    [
        ("PATCH", "/instances/acme-main", {"deletion_protected": 0}, {"deletion_protected"}),
        ("PATCH", "/instances/acme-main", {"deletion_protected": "true"}, {"deletion_protected"}),
        ("PATCH", "/instances/acme-main", {"tags": {"team": 7}}, {"tags"}),
        ("POST", "/instances", {"name": 7, "engine": "relational", "plan": "lite"}, {"name"}),
        ("POST", "/budgets", {"name": "b", "amount_micros": "12"}, {"amount_micros"}),
        (
            "POST",
            "/budgets",
            {"name": "b", "amount_micros": 9, "thresholds": [True]},
            {"thresholds"},
        ),
    ],
)
def test_a_value_of_another_type_is_refused_and_not_converted(
    cast: Cast, script: Script, method: str, path: str, body: Any, errors: set[str]
) -> None:
    serving_instance(cast.acme)
    answer = script.ask(method, path, body)
    assert (answer.status_code, set(answer.json()["errors"])) == (400, errors)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/instances?limit=many", "limit"),
        ("/instances?limit=0", "limit"),
        ("/instances?limit=201", "limit"),
        ("/instances?limit=2&limit=3", "limit"),
        ("/instances?plan=lite&plan=standard", "plan"),
        ("/instances?tag=", "tag"),
        ("/usage?stop=", "stop"),
    ],
)
def test_a_parameter_that_means_nothing_is_refused(script: Script, path: str, name: str) -> None:
    answer = script.ask("GET", path)
    assert (answer.status_code, set(answer.json()["errors"])) == (400, {name})


def test_a_broken_body_is_malformed(script: Script) -> None:
    answer = script.client.generic(
        "POST", "/api/v1/tenants/acme/instances", data="{", content_type="application/json"
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_a_body_beyond_the_bound_is_not_read(script: Script) -> None:
    answer = script.ask("POST", "/instances", {"name": "x" * 300_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/instances?cursor=cD1mb28=", 404, "not_found"),  # p=foo
        ("/instances?cursor=%ff", 404, "not_found"),
        ("/instances/%00", 400, "malformed"),
        ("/instances/acme-main/connection?username=%00", 400, "malformed"),
        ("/usage?stop=0001-01-01T00:00:00Z", 400, "invalid"),
    ],
)
def test_what_a_caller_makes_up_is_refused_and_breaks_nothing(
    cast: Cast, script: Script, path: str, status: int, code: str
) -> None:
    serving_instance(cast.acme)
    answer = script.ask("GET", path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_body_nested_without_end_is_malformed(script: Script) -> None:
    answer = script.client.generic(
        "POST", "/api/v1/tenants/acme/instances", data="[" * 200_000,
        content_type="application/json",
    )  # fmt: skip
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_a_lock_that_takes_too_long_is_said_to_be_worth_another_try(lasting_cast: Cast) -> None:
    script = script_of(lasting_cast)
    instance = make_instance(lasting_cast.acme).instance
    held, seen = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Instance.objects.select_for_update().get(pk=instance.pk)
            held.set()
            seen.wait(20)

    def ask() -> Any:
        held.wait(10)
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '50ms'")
        try:
            return script.ask("PATCH", "/instances/acme-main", {"plan": "standard"})
        finally:
            seen.set()

    _, answer = side_by_side(hold, ask)
    assert isinstance(answer, HttpResponse)
    problem = json.loads(answer.content)
    assert (problem["status"], problem["code"], problem["retryable"]) == (503, "unavailable", True)


def test_head_demands_what_get_demands(cast: Cast) -> None:
    assert script_of(cast, MemberRole.ADMIN).ask("HEAD", "/api-keys").status_code == 200
    assert script_of(cast, MemberRole.MEMBER).ask("HEAD", "/api-keys").status_code == 403
    assert script_of(cast, MemberRole.MEMBER).ask("OPTIONS", "/api-keys").status_code == 405


def test_a_running_operation_locks_with_its_id(cast: Cast, script: Script) -> None:
    operation = make_instance(cast.acme, deletion_protected=False)
    answer = script.ask("DELETE", "/instances/acme-main")
    assert answer.status_code == 423
    problem = answer.json()
    assert problem["code"] == "operation_running"
    assert (problem["operation_id"], problem["retryable"]) == (str(operation.pk), True)


def test_an_operation_can_be_cancelled_retried_and_reset(cast: Cast, script: Script) -> None:
    operation = make_instance(cast.acme)
    path = f"/operations/{operation.pk}"
    assert script.ask("POST", f"{path}/reset").json()["state"] == "failed"
    assert script.ask("GET", "/instances/acme-main").json()["status"] == "failed"
    assert script.ask("POST", f"{path}/retry").json()["state"] == "scheduled"
    assert script.ask("POST", f"{path}/cancel").json()["state"] == "cancelling"
    assert settle(operation).state == "cancelled"
    found = script.ask("GET", "/operations?instance=acme-main&state=cancelled").json()["items"]
    assert [item["id"] for item in found] == [str(operation.pk)]


def test_lists_come_in_pages_newest_first(cast: Cast, script: Script) -> None:
    for number in range(5):
        make_instance(cast.acme, f"i{number}")
    first = script.ask("GET", "/instances?limit=2").json()
    assert [item["handle"] for item in first["items"]] == ["acme-i4", "acme-i3"]
    make_instance(cast.acme, "late")
    second = script.client.get(first["next"]).json()
    assert [item["handle"] for item in second["items"]] == ["acme-i2", "acme-i1"]
    last = script.client.get(second["next"]).json()
    assert [item["handle"] for item in last["items"]] == ["acme-i0"]
    assert last["next"] is None


def test_a_repeated_creation_gets_the_first_answer_without_its_secret(
    cast: Cast, script: Script
) -> None:
    serving_instance(cast.acme)
    path, body = "/instances/acme-main/credentials", {"role": "write"}
    first = script.ask("POST", path, body, Idempotency_Key="once")
    again = script.ask("POST", path, body, Idempotency_Key="once")
    assert first.json()["password"] is not None
    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == {**first.json(), "password": None, "uri": None}
    assert Credential.objects.count() == 1
    stored = IdempotencyKey.objects.get()
    assert first.json()["password"] not in json.dumps(stored.body)


def test_a_key_used_for_another_request_is_refused(cast: Cast, script: Script) -> None:
    wanted = {"name": "a", "engine": "relational", "plan": "lite"}
    script.ask("POST", "/instances", wanted, Idempotency_Key="once")
    answer = script.ask("POST", "/instances", {**wanted, "name": "b"}, Idempotency_Key="once")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")
    assert Instance.objects.count() == 1


def test_a_refused_request_claims_no_key(cast: Cast, script: Script) -> None:
    wanted = {"name": "a", "engine": "relational", "plan": "gold"}
    assert script.ask("POST", "/instances", wanted, Idempotency_Key="once").status_code == 400
    wanted["plan"] = "lite"
    assert script.ask("POST", "/instances", wanted, Idempotency_Key="once").status_code == 202


def test_the_same_creation_twice_at_once_happens_once(lasting_cast: Cast) -> None:
    script = script_of(lasting_cast)
    wanted = {"name": "a", "engine": "relational", "plan": "lite"}
    answers: list[Any] = side_by_side(
        *[lambda: script.ask("POST", "/instances", wanted, Idempotency_Key="k") for _ in range(4)]
    )
    assert [answer.status_code for answer in answers] == [202] * 4
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Instance.objects.count() == 1


def test_old_idempotency_keys_are_forgotten(cast: Cast, script: Script) -> None:
    script.ask("POST", "/api-keys", {"name": "a", "role": "member"}, Idempotency_Key="k")
    assert idempotency_keys_forget() == 0
    IdempotencyKey.objects.update(created_at=timezone.now() - RETENTION)
    assert idempotency_keys_forget() == 1


def test_a_key_of_a_member_cannot_mint_more_than_it_may(cast: Cast) -> None:
    answer = script_of(cast).ask("POST", "/api-keys", {"name": "up", "role": "owner"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_revoked_key_is_out_at_once(cast: Cast, script: Script) -> None:
    key = ApiKey.objects.get()
    assert script.ask("DELETE", f"/api-keys/{key.pk}").status_code == 204
    assert script.ask("GET", "").status_code == 401


def test_a_session_without_its_csrf_token_changes_nothing(cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.alice)
    answer = client.post(
        "/api/v1/tenants/acme/api-keys", {"name": "x", "role": "member"}, "application/json"
    )
    assert answer.status_code == 403
    assert ApiKey.objects.count() == 0


def test_everyone_sees_only_their_tenants(cast: Cast, script: Script) -> None:
    for client, wanted in (
        (signed_in(cast.charlie), ["globex"]),
        (signed_in(cast.bob), ["acme"]),
        (script.client, ["acme"]),
    ):
        listed = client.get("/api/v1/tenants").json()["items"]
        assert [tenant["handle"] for tenant in listed] == wanted


def test_the_catalogue_lists_engines_and_plans(cast: Cast, script: Script) -> None:
    engines = script.client.get("/api/v1/engines").json()["items"]
    assert {engine["name"]: engine["port"] for engine in engines} == {
        "inmemory": 6379,
        "keyvalue": 8000,
        "relational": 5432,
    }
    plans = script.client.get("/api/v1/plans").json()["items"]
    assert {plan["name"] for plan in plans} == {"lite", "standard", "dedicated", "unmetered"}


def test_an_instance_shows_what_its_server_does(cast: Cast, script: Script) -> None:
    instance = serving_instance(cast.acme)
    for state in ("hibernated", "running"):
        report(instance, state)
        assert script.ask("GET", "/instances/acme-main").json()["server_state"] == state
        assert script.ask("GET", "/instances").json()["items"][0]["server_state"] == state
    changed = script.ask("PATCH", "/instances/acme-main", {"plan": "lite"}).json()
    assert (changed["plan"], changed["status"]) == ("lite", "active")
    assert changed["server_state"] == "running"


def test_an_instance_that_no_host_has_seen_has_no_server_state(cast: Cast, script: Script) -> None:
    make_instance(cast.acme, "next")
    assert script.ask("GET", "/instances/acme-next").json()["server_state"] == ""


def test_usage_is_listed_by_instance_and_by_hour(cast: Cast, script: Script) -> None:
    serving_instance(cast.acme)
    period = "start=2026-11-20T12:30:00Z&stop=2026-11-21T12:00:00Z"
    listed = script.ask("GET", f"/usage?{period}").json()["items"]
    assert [(item["instance"], item["start"]) for item in listed] == [
        ("acme-main", "2026-11-20T12:00:00Z")
    ]
    assert listed[0]["figures"]["read_units"] == 0
    hours = script.ask("GET", f"/instances/acme-main/usage?{period}").json()
    assert hours == {"items": []}
    wrong = script.ask("GET", "/usage?start=2026-11-21T12:00:00Z&stop=2026-11-20T12:00:00Z")
    assert wrong.status_code == 400


def test_the_openapi_document_is_complete_and_without_warnings(tmp_path: Any) -> None:
    target = tmp_path / "schema.yml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(target))
    document = yaml.safe_load(target.read_text())
    assert len(document["paths"]) == len({address for address, name, _ in ADDRESSES} - {"docs"})
    problem = document["paths"]["/api/v1/plans"]["get"]["responses"]["404"]
    assert list(problem["content"]) == ["application/problem+json"]
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


@pytest.mark.django_db
def test_the_documentation_is_served_from_here_alone(client: Client) -> None:
    page = client.get("/api/v1/docs")
    assert page.status_code == 200
    assert b"http://" not in page.content
    assert b"https://" not in page.content
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
    assert client.get("/api/v1/schema").status_code == 200

"""Where a script starts: the index, who it is, the lists of things; and what it may repeat."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import resolve
from drf_spectacular.generators import SchemaGenerator

from tenants.accounts.models import MemberRole
from tenants.iam.service_ids import service_id_create
from tenants.iam.services import api_key_create
from tests.tenants.cast import Cast, join, make_instance, serving_instance, signed_in


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def with_key(token: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {token}"})


def test_the_index_names_addresses_that_exist_to_everybody(db: None) -> None:
    answer = Client().get("/api/v1/")
    assert answer.status_code == 200
    links = answer.json()["links"]
    assert {name: resolve(link).url_name for name, link in links.items()} == {
        name: name for name in ("docs", "engines", "me", "plans", "roles", "schema", "tenants")
    }


def test_a_person_learns_its_role_in_each_tenant(cast: Cast) -> None:
    join(cast.globex, cast.bob, MemberRole.AUDITOR)
    told = signed_in(cast.bob).get("/api/v1/me").json()
    assert (told["kind"], told["email"], told["key"]) == ("user", "bob@example.org", None)
    assert [(tenant["handle"], tenant["role"]) for tenant in told["tenants"]] == [
        ("acme", "member"),
        ("globex", "auditor"),
    ]


def test_nobody_is_nobody(db: None) -> None:
    assert Client().get("/api/v1/me").status_code == 401


def test_a_key_learns_what_it_stands_for(cast: Cast) -> None:
    service = service_id_create(actor=cast.owner, name="ci")
    own = api_key_create(actor=cast.owner, name="own", is_own=True)
    tenants = api_key_create(actor=cast.owner, name="t", role=MemberRole.MEMBER)
    services = api_key_create(actor=cast.owner, name="s", service=service)
    for made, email, role, service_id in (
        (own, "alice@example.org", "owner", None),
        (tenants, None, "member", None),
        (services, None, "", str(service.pk)),
    ):
        told = with_key(made.token).get("/api/v1/me").json()
        assert (told["kind"], told["email"]) == ("api_key", email)
        assert [tenant["role"] for tenant in told["tenants"]] == [role]
        assert told["key"]["key_id"] == made.api_key.key_id
        assert told["key"]["service_id"] == service_id
        assert made.token not in str(told)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["acme-cache", "acme-stage", "acme-shop"]),
        ("engine=inmemory", ["acme-cache"]),
        ("plan=standard", ["acme-stage"]),
        ("status=active", ["acme-shop"]),
        ("q=S", ["acme-stage", "acme-shop"]),
        ("tag=team", ["acme-stage", "acme-shop"]),
        ("tag=team:shop", ["acme-shop"]),
        ("tag=team:", []),
        ("tag=team&engine=relational&q=st", ["acme-stage"]),
        ("engine=none", []),
    ],
)
def test_a_list_of_instances_is_what_was_asked_for(
    cast: Cast, query: str, found: list[str]
) -> None:
    serving_instance(cast.acme, "shop", tags={"team": "shop"})
    make_instance(cast.acme, "stage", plan="standard", tags={"team": "core", "env": "stage"})
    make_instance(cast.acme, "cache", engine="inmemory")
    make_instance(cast.globex, "shop", tags={"team": "shop"})
    answer = signed_in(cast.alice).get(f"/api/v1/tenants/acme/instances?{query}")
    assert [item["handle"] for item in answer.json()["items"]] == found


def test_the_filter_stays_from_page_to_page(cast: Cast) -> None:
    for number in range(3):
        make_instance(cast.acme, f"a{number}", engine="inmemory")
        make_instance(cast.acme, f"b{number}")
    alice, address = signed_in(cast.alice), "/api/v1/tenants/acme/instances?engine=inmemory&limit=2"
    first = alice.get(address).json()
    last = alice.get(first["next"]).json()
    handles = [item["handle"] for item in first["items"] + last["items"]]
    assert handles == ["acme-a2", "acme-a1", "acme-a0"]
    assert last["next"] is None


@pytest.mark.parametrize("query", ["status=well", f"q={'x' * 41}", f"tag={'x' * 201}"])
def test_a_filter_that_makes_no_sense_is_refused(cast: Cast, query: str) -> None:
    answer = signed_in(cast.alice).get(f"/api/v1/tenants/acme/instances?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_every_post_takes_an_idempotency_key() -> None:
    generator: Any = SchemaGenerator()
    paths = generator.get_schema(request=None, public=True)["paths"]
    without = {
        path
        for path, methods in paths.items()
        if "post" in methods
        and "Idempotency-Key"
        not in {each["name"] for each in methods["post"].get("parameters", [])}
    }
    assert without == set()


def test_a_repeated_verb_is_done_once(cast: Cast) -> None:
    operation = make_instance(cast.acme)
    address = f"/api/v1/tenants/acme/operations/{operation.pk}/cancel"
    alice, once = signed_in(cast.alice), {"Idempotency-Key": "once"}
    first, again = (
        alice.post(address, content_type="application/json", headers=once) for _ in range(2)
    )
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json() == again.json()

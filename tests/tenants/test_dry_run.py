"""`dry_run=true`: the price of a change, from the change itself, of which nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client

from tenants.api.models import IdempotencyKey
from tenants.audit.models import AuditEvent
from tenants.instances.models import Instance
from tenants.operations.models import Operation
from tests.tenants.cast import Cast, published, serving_instance, signed_in

INSTANCES = "/api/v1/tenants/acme/instances"


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def alice(cast: Cast) -> Client:
    return signed_in(cast.alice)


def rows() -> tuple[int, ...]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM publish.record")
        records = cursor.fetchone()[0]
    tables = (Instance, Operation, AuditEvent, IdempotencyKey)
    return (records, *(table.objects.count() for table in tables))


def create(client: Client, query: str = "?dry_run=true", **fields: Any) -> Any:
    body = {"name": "new", "engine": "relational", "plan": "standard", "blocks": 3, **fields}
    return client.post(
        INSTANCES + query, body, "application/json", headers={"Idempotency-Key": "k"}
    )


def test_a_new_instance_has_its_price_and_is_not_made(cast: Cast, alice: Client) -> None:
    serving_instance(cast.acme, plan="standard")
    before = rows()
    answer = create(alice)
    assert answer.status_code == 200
    body = answer.json()
    assert body["currency"] == "USD"
    assert body["before"] == {"hour_micros": 105_000, "month_micros": 105_000 * 730}
    assert body["difference"] == {"hour_micros": 315_000, "month_micros": 315_000 * 730}
    assert body["after"]["hour_micros"] == 420_000
    assert {(rate["plan"], rate["meter"]) for rate in body["rates"]} >= {
        ("standard", "capacity"),
        ("standard", "storage"),
    }
    assert rows() == before
    # The same key then makes the instance for real.
    assert create(alice, "").status_code == 202


def test_a_change_of_plan_has_its_difference_and_is_not_made(cast: Cast, alice: Client) -> None:
    instance = serving_instance(cast.acme, plan="standard", blocks=3)
    before, record = rows(), published(instance)
    answer = alice.patch(
        f"{INSTANCES}/{instance.handle}?dry_run=true", {"blocks": 1}, "application/json"
    )
    assert answer.status_code == 200
    assert answer.json()["difference"]["hour_micros"] == -210_000
    assert (rows(), published(instance)) == (before, record)


def test_what_would_be_refused_is_refused_and_leaves_no_event(cast: Cast, alice: Client) -> None:
    before = rows()
    answer = create(alice, blocks=50, plan="lite")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["blocks"]
    assert rows() == before


def test_a_clone_has_its_price(cast: Cast, alice: Client) -> None:
    instance = serving_instance(cast.acme, plan="standard", engine="inmemory")
    before = rows()
    answer = alice.post(
        f"{INSTANCES}/{instance.handle}/clone?dry_run=true", {"name": "copy"}, "application/json"
    )
    assert answer.status_code == 200, answer.content
    assert answer.json()["difference"]["hour_micros"] == 105_000
    assert rows() == before


def test_who_may_not_change_may_not_ask_either(cast: Cast) -> None:
    assert create(signed_in(cast.charlie)).status_code == 404


def test_anything_but_true_and_false_is_refused(cast: Cast, alice: Client) -> None:
    answer = create(alice, "?dry_run=yes")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["dry_run"]
    assert not Instance.objects.exists()

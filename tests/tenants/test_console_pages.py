"""The console's pages through Django's client: what they change, refuse and show."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from engines.kit.records import Role
from tenants.accounts.models import MemberRole
from tenants.audit.models import AuditEvent
from tenants.instances.credentials import credential_create
from tenants.instances.models import Credential, Instance
from tenants.operations.models import Operation
from tenants.usage.models import UsageMinute
from tests.tenants.cast import Cast, join, person, serving_instance, signed_in

NEW = {"engine": "relational", "plan": "lite", "blocks": "1", "name": "shop"}


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def test_creating_an_instance_starts_its_operation_and_leaves_the_apis_event(cast: Cast) -> None:
    answer = signed_in(cast.bob).post("/t/acme/instances/new", NEW)
    assert (answer.status_code, answer.headers["Location"]) == (
        302, "/t/acme/instances/acme-shop",
    )  # fmt: skip
    assert Operation.objects.get().kind == "provision"
    event = AuditEvent.objects.latest("stored_at").body
    assert event["action"] == "weftkit.instance.create"
    assert "bob@example.org" in str(event["initiator"])


def test_a_taken_name_is_said_at_the_form_and_what_was_written_stays(cast: Cast) -> None:
    serving_instance(cast.acme, "shop")
    answer = signed_in(cast.alice).post("/t/acme/instances/new", NEW)
    assert answer.status_code == 422
    text = answer.content.decode()
    assert "this name is taken" in text
    assert 'value="shop"' in text
    answer = signed_in(cast.alice).post("/t/acme/instances/new", {**NEW, "name": "Not so"})
    assert 'aria-invalid="true"' in answer.content.decode()


def test_the_price_is_shown_before_anything_is_made(cast: Cast) -> None:
    wanted = {"engine": "relational", "plan": "standard", "blocks": "2"}
    page = signed_in(cast.bob).post("/t/acme/instances/new/price", wanted).content.decode()
    (price,) = re.findall(r'<dd class="strong">(\d+\.\d\d) [A-Z]{3}</dd>', page)
    assert float(price) > 0
    assert not Instance.objects.exists()
    assert not Operation.objects.exists()


def test_a_role_that_may_not_gets_a_page_that_says_so(cast: Cast) -> None:
    join(cast.acme, erin := person("erin"), MemberRole.READ_ONLY)
    answer = signed_in(erin).get("/t/acme/instances/new")
    assert answer.status_code == 403
    assert b"Your role does not allow this" in answer.content
    assert b"instances.create" in answer.content
    assert signed_in(erin).post("/t/acme/instances/new", NEW).status_code == 403
    assert not Instance.objects.exists()


def test_a_form_of_another_site_changes_nothing(cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.alice)
    assert client.post("/t/acme/instances/new", NEW).status_code == 403
    assert not Instance.objects.exists()


def test_a_new_credential_is_shown_once_and_kept_by_nobody(cast: Cast) -> None:
    serving_instance(cast.acme)
    client = signed_in(cast.bob)
    address = "/t/acme/instances/acme-main/credentials"
    answer = client.post(address, {"role": "write", "label": "shop", "days": "7", "cidrs": ""})
    made = Credential.objects.get()
    (secret,) = re.findall(rf'<pre id="secret"[^>]*>({made.username}_[A-Za-z0-9_-]+)</pre>',
                           answer.content.decode())  # fmt: skip
    assert answer.headers["Cache-Control"] == "no-store"
    assert f"postgresql://{made.username}:{secret}@localhost:5432/" in answer.content.decode()
    assert secret not in client.get(address).content.decode()
    assert made.expires_at is not None
    assert timedelta(days=6) < made.expires_at - timezone.now() <= timedelta(days=7)


def test_rotating_keeps_two_secrets_and_revoking_none(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    made = credential_create(instance=instance, actor="test", role=Role.READ).credential
    base = f"/t/acme/instances/acme-main/credentials/{made.pk}"
    page = signed_in(cast.bob).post(f"{base}/rotate", {"grace_s": "3600"})
    assert b'id="secret"' in page.content
    assert made.secrets.count() == 2
    assert signed_in(cast.bob).post(f"{base}/revoke").status_code == 302
    made.refresh_from_db()
    assert made.revoked_at is not None
    assert made.secrets.count() == 0


def test_an_instance_is_deleted_only_with_its_name_typed_and_its_protection_off(
    cast: Cast,
) -> None:
    instance = serving_instance(cast.acme)
    client = signed_in(cast.alice)
    base = "/t/acme/instances/acme-main"
    answer = client.post(f"{base}/delete", {"confirm": "acme-main"})
    assert answer.status_code == 409
    assert b"deletion protection" in answer.content
    saved = client.post(f"{base}/settings", {"what": "access", "allowlist": "192.0.2.0/24"})
    assert saved.status_code == 302
    instance.refresh_from_db()
    assert (instance.deletion_protected, instance.allowlist) == (False, ["192.0.2.0/24"])
    assert client.post(f"{base}/delete", {"confirm": "acme"}).status_code == 422
    assert client.post(f"{base}/delete", {"confirm": "acme-main"}).status_code == 302
    assert Operation.objects.filter(kind="delete").exists()
    # Another operation begins while that one runs: said as a page, with 423.
    assert client.post(f"{base}/suspend").status_code == 423


def test_settings_say_what_is_wrong_where_it_is_wrong(cast: Cast) -> None:
    serving_instance(cast.acme)
    client = signed_in(cast.alice)
    address = "/t/acme/instances/acme-main/settings"
    answer = client.post(address, {"what": "access", "allowlist": "not a network"})
    assert answer.status_code == 422
    assert b'id="id_allowlist_error"' in answer.content
    answer = client.post(address, {"what": "tags", "tags": "team=web\ncost centre"})
    assert "is not name=value" in answer.content.decode()
    assert client.post(address, {"what": "tags", "tags": "team=web"}).status_code == 302
    assert Instance.objects.get().tags == {"team": "web"}


def test_the_charts_figures_are_units_a_second(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    minute = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=5)
    UsageMinute.objects.create(instance_id=instance.pk, minute=minute, read_units=120)
    series = signed_in(cast.bob).get("/t/acme/instances/acme-main/metrics.json").json()
    at = series["at"].index(int(minute.timestamp()))
    assert series["read_units"][at] == 2.0
    assert sum(series["read_units"]) == 2.0
    assert len(series["at"]) == len(series["storage_bytes"]) == 61


def test_a_refusal_to_htmx_is_a_toast_and_swaps_nothing(cast: Cast) -> None:
    serving_instance(cast.acme)
    answer = signed_in(cast.alice).post(
        "/t/acme/instances/acme-main/delete", {"confirm": "acme-main"},
        headers={"HX-Request": "true"},
    )  # fmt: skip
    assert answer.status_code == 409
    assert answer.headers["HX-Reswap"] == "none"
    assert "deletion protection" in answer.headers["HX-Trigger"]


def test_the_first_run_shows_three_steps_until_somebody_has_connected(cast: Cast) -> None:
    client = signed_in(cast.alice)
    assert b"Three steps" in client.get("/t/acme/").content
    instance = serving_instance(cast.acme)
    assert b"Create a credential</a>" in client.get("/t/acme/").content
    made = credential_create(instance=instance, actor="test", role=Role.READ).credential
    assert b">Connect</a>" in client.get("/t/acme/").content
    Credential.objects.filter(pk=made.pk).update(last_used_at=timezone.now())
    assert b"Three steps" not in client.get("/t/acme/").content


def test_a_list_of_operations_goes_on_page_by_page(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    for _ in range(30):
        Operation.objects.create(
            tenant=cast.acme, instance=instance, kind="export", state="succeeded",
            is_exclusive=False, progress_total=2, actor="test", deadline_at=timezone.now(),
        )  # fmt: skip
    client = signed_in(cast.bob)
    first = client.get("/t/acme/operations").content.decode()
    (older,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = client.get("/t/acme/operations" + older.replace("&amp;", "&")).content.decode()
    rows = re.compile(r'<th scope="row"><a href="([^"]+)"')
    assert len(rows.findall(first)) == 25
    assert len(set(rows.findall(first)) | set(rows.findall(second))) == 31
    assert client.get("/t/acme/operations?cursor=nonsense").status_code == 404


def test_operations_are_found_by_kind_state_and_time(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    now = timezone.now()
    made = {}
    for kind, state, days in (
        ("export", "succeeded", 3),
        ("export", "failed", 2),
        ("import", "failed", 1),
    ):
        operation = Operation.objects.create(
            tenant=cast.acme, instance=instance, kind=kind, state=state,
            is_exclusive=False, progress_total=2, actor="test", deadline_at=now,
        )  # fmt: skip
        Operation.objects.filter(pk=operation.pk).update(created_at=now - timedelta(days=days))
        made[days] = str(operation.pk)
    client = signed_in(cast.bob)
    moment = now - timedelta(days=2, hours=1)
    cases = [
        ("kind=export&state=", {3, 2}),
        ("kind=export&state=failed", {2}),
        ("state=failed&kind=", {2, 1}),
        (f"since={moment:%Y-%m-%dT%H:%M}&until={moment + timedelta(days=1):%Y-%m-%dT%H:%M}", {2}),
        (f"kind=import&until={moment:%Y-%m-%dT%H:%M}", set()),
    ]
    for query, days in cases:
        page = client.get(f"/t/acme/operations?{query}").content.decode()
        assert {each for each in made if made[each] in page} == days, query
        asked = "&".join(each for each in query.split("&") if not each.endswith("="))
        asked = re.sub(r"(T[0-9:]+)", r"\1Z", asked)
        listed = client.get(f"/api/v1/tenants/acme/operations?{asked}").json()["items"]
        found = {item["id"] for item in listed}
        assert {each for each in made if made[each] in found} == days, asked
    assert client.get("/api/v1/tenants/acme/operations?kind=dance").status_code == 400

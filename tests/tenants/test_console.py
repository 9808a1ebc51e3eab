"""The dashboard: sign-in, what each role sees, and that no page asks another host for anything."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client

from tenants.accounts.models import MemberRole
from tenants.instances.transfers import instance_export
from tenants.operations.runner import operation_run
from tests.tenants.cast import (
    PASSWORD,
    Cast,
    join,
    make_instance,
    person,
    report,
    serving_instance,
    signed_in,
)


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def test_the_dashboard_is_behind_sign_in(cast: Cast, client: Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/sign-in?next=/")
    words = {"username": "alice@example.org", "password": "wrong"}
    assert b'role="alert"' in client.post("/sign-in", words).content
    answer = client.post("/sign-in", {**words, "password": PASSWORD})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")
    assert client.post("/sign-out").status_code == 302
    assert client.get("/").status_code == 302


def test_it_lists_instances_with_status_and_connection_string(cast: Cast) -> None:
    serving_instance(cast.acme)
    make_instance(cast.acme, "next", engine="inmemory")
    page = signed_in(cast.bob).get("/").content.decode()
    assert "acme-main" in page
    assert "acme-next" in page
    assert '<span class="status active">active</span>' in page
    assert '<span class="status provisioning">provisioning</span>' in page
    assert "postgresql://USERNAME:PASSWORD@localhost:5432/" in page


def test_it_lists_the_latest_operations_with_their_progress_and_why_they_failed(
    cast: Cast,
) -> None:
    instance = serving_instance(cast.acme, engine="inmemory")
    running = instance_export(instance=instance, actor="test")
    operation_run(operation_id=running.pk)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE publish.task SET done_bytes = 1024, total_bytes = 4096")
    page = signed_in(cast.bob).get("/").content.decode()
    assert "<dt>export acme-main</dt>" in page
    assert "running, step 1 of 2, 1.0\u00a0KB of 4.0\u00a0KB</dd>" in page
    with connection.cursor() as cursor:
        cursor.execute("UPDATE publish.task SET state = 'failed', detail = 'no room'")
    operation_run(operation_id=running.pk)
    assert "failed, step 1 of 2: no room</dd>" in signed_in(cast.bob).get("/").content.decode()
    assert b"export" not in signed_in(cast.charlie).get("/").content


def test_an_instance_that_sleeps_says_hibernated(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    report(instance, "hibernated")
    page = signed_in(cast.bob).get("/").content.decode()
    assert '<span class="status hibernated"' in page
    assert '<span class="status active">' not in page
    report(instance, "running")
    page = signed_in(cast.bob).get("/").content.decode()
    assert '<span class="status active">active</span>' in page
    assert "hibernated" not in page


def test_nobody_sees_another_tenant(cast: Cast) -> None:
    serving_instance(cast.acme)
    page = signed_in(cast.charlie).get("/").content
    assert b"acme" not in page
    assert b"globex" in page


def test_a_billing_member_sees_instances_without_connection_strings(cast: Cast) -> None:
    serving_instance(cast.acme)
    join(cast.acme, erin := person("erin"), MemberRole.BILLING)
    page = signed_in(erin).get("/").content
    assert b"acme-main" in page
    assert b"postgresql://" not in page


@pytest.mark.parametrize("address", ["/", "/sign-in", "/nowhere"])
def test_every_page_is_strict_about_where_things_come_from(cast: Cast, address: str) -> None:
    client = Client() if address == "/sign-in" else signed_in(cast.alice)
    page = client.get(address)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert b"<script" not in page.content
    assert b"style=" not in page.content
    assert b"//" not in page.content.replace(b"postgresql://", b"").replace(b"redis://", b"")


def test_the_style_sheet_knows_dark_and_small_screens_and_focus() -> None:
    path = finders.find("css/console.css")
    assert isinstance(path, str)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert "prefers-color-scheme: dark" in text
    assert ":focus-visible" in text
    assert "url(" not in text

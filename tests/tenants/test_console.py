"""The dashboard: sign-in, what each role sees, and that no page asks another host for anything."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
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
    words = {"login": "alice@example.org", "password": "wrong"}
    assert b'role="alert"' in client.post("/sign-in", words).content
    answer = client.post("/sign-in", {**words, "password": PASSWORD})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")
    assert client.get("/").headers["Location"] == "/t/acme/"
    assert client.get("/t/acme/").status_code == 200
    assert client.post("/sign-out").status_code == 302
    assert client.get("/t/acme/").headers["Location"] == "/sign-in?next=/t/acme/"


def test_it_lists_instances_with_status_and_connection_string(cast: Cast) -> None:
    serving_instance(cast.acme)
    make_instance(cast.acme, "next", engine="inmemory")
    page = signed_in(cast.bob).get("/t/acme/").content.decode()
    assert "acme-main" in page
    assert "acme-next" in page
    assert '<span class="badge dot good">active</span>' in page
    assert '<span class="badge dot info">provisioning</span>' in page
    page = signed_in(cast.bob).get("/t/acme/instances/acme-main").content.decode()
    assert "postgresql://USERNAME:PASSWORD@localhost:5432/" in page


def test_it_lists_the_latest_operations_with_their_progress_and_why_they_failed(
    cast: Cast,
) -> None:
    instance = serving_instance(cast.acme, engine="inmemory")
    running = instance_export(instance=instance, actor="test")
    operation_run(operation_id=running.pk)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE publish.task SET done_bytes = 1024, total_bytes = 4096")
    page = signed_in(cast.bob).get("/t/acme/").content.decode()
    assert '>export<span class="sr"> acme-main</span>' in page
    assert re.search(r"step 1 of 2, 1.0 KiB of 4.0 KiB\s*<progress", page)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE publish.task SET state = 'failed', detail = 'no room'")
    operation_run(operation_id=running.pk)
    page = signed_in(cast.bob).get("/t/acme/").content.decode()
    assert '<span class="badge dot bad">failed</span><p class="small">no room</p>' in page
    assert "failed at" in page
    assert b"export" not in signed_in(cast.charlie).get("/t/globex/").content


def test_an_instance_that_sleeps_says_hibernated(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    report(instance, "hibernated")
    page = signed_in(cast.bob).get("/t/acme/").content.decode()
    assert '<span class="badge dot ">hibernated</span>' in page
    assert '<span class="badge dot good">active' not in page
    report(instance, "running")
    page = signed_in(cast.bob).get("/t/acme/").content.decode()
    assert '<span class="badge dot good">active</span>' in page
    assert "hibernated" not in page


def test_nobody_sees_another_tenant(cast: Cast) -> None:
    serving_instance(cast.acme)
    charlie = signed_in(cast.charlie)
    assert charlie.get("/").headers["Location"] == "/t/globex/"
    page = charlie.get("/t/globex/").content
    assert b"acme" not in page
    assert b"globex" in page
    for name in ("acme", "nobody"):
        assert charlie.get(f"/t/{name}/").status_code == 404


def test_a_billing_member_sees_instances_without_connection_strings(cast: Cast) -> None:
    serving_instance(cast.acme)
    join(cast.acme, erin := person("erin"), MemberRole.BILLING)
    assert b"acme-main" in signed_in(erin).get("/t/acme/").content
    page = signed_in(erin).get("/t/acme/instances/acme-main").content
    assert b"postgresql://" not in page
    assert b"not part of your role" in page


@pytest.mark.parametrize("address", ["/t/acme/", "/t/globex/", "/sign-in", "/nowhere"])
def test_every_page_is_strict_about_where_things_come_from(cast: Cast, address: str) -> None:
    client = Client() if address == "/sign-in" else signed_in(cast.alice)
    page = client.get(address)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    text = page.content.decode()
    # Scripts are files of ours; styles and handlers are never in the markup.
    assert re.findall(r"<script(?! src=\"/static/[^\"]+\" defer></script>)", text) == []
    assert re.findall(r"<style|\bstyle=|\son[a-z]+=", text) == []
    assert re.findall(r"(?:src|href|action)=\"(?!/|#|\?)[^\"]", text) == []


def test_a_page_asks_for_less_than_sixty_kilobytes_beside_other_peoples_files(cast: Cast) -> None:
    serving_instance(cast.acme)
    text = signed_in(cast.alice).get("/t/acme/").content
    own = [text]
    for name in re.findall(rb'(?:src|href)="/static/([^"]+)"', text):
        if not name.startswith(b"vendor/"):
            path = finders.find(name.decode())
            assert isinstance(path, str)
            own.append(Path(path).read_bytes())
    assert sum(len(gzip.compress(part)) for part in own) < 60_000


def test_a_person_without_a_tenant_is_told_so(cast: Cast) -> None:
    page = signed_in(person("erin")).get("/")
    assert page.status_code == 200
    assert b"not a member of any tenant" in page.content


def test_the_chosen_colours_are_in_the_page_that_the_server_sends(cast: Cast) -> None:
    client = signed_in(cast.alice)
    assert b'data-theme="system"' in client.get("/t/acme/").content
    client.cookies["theme"] = "dark"
    assert b'data-theme="dark"' in client.get("/t/acme/").content
    client.cookies["theme"] = '"><script>'
    assert b'data-theme="system"' in client.get("/t/acme/").content


def test_the_palette_finds_the_instances_that_one_may_see(cast: Cast) -> None:
    serving_instance(cast.acme)
    items = signed_in(cast.bob).get("/t/acme/places.json").json()["items"]
    assert [item["name"] for item in items] == ["acme-main"]
    assert signed_in(cast.charlie).get("/t/acme/places.json").status_code == 404

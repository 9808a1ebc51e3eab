"""`weftkit_bootstrap`: one file with all that is needed, the same after every start."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from engines import registry
from engines.kit.exchange import RECORD_CHANNEL
from engines.kit.settings import parse
from tenants.accounts.models import User
from tenants.iam.services import api_key_authenticate
from tenants.instances.models import Credential, Instance
from tests.tenants.cast import REPORTS, Cast, published

ENGINES = len(registry.names())


class ObedientHost(threading.Thread):
    """Does what the host does towards the tables: answers each record with what it wants."""

    def __init__(self, state: str = "") -> None:
        super().__init__(daemon=True)
        self.ends = threading.Event()
        self.state = state
        self.database = connection.get_connection_params()

    def run(self) -> None:
        with psycopg.connect(**self.database, autocommit=True) as records:
            records.execute(f"LISTEN {RECORD_CHANNEL}")
            while not self.ends.is_set():
                for row in records.execute("SELECT body::text FROM publish.record").fetchall():
                    self.answer(records, json.loads(row[0]))
                list(records.notifies(timeout=0.2, stop_after=1))

    def answer(self, records: psycopg.Connection, body: dict[str, Any]) -> None:
        state = self.state or REPORTS[body["desired"]]
        records.execute(
            "INSERT INTO publish.observed (instance_id, host, generation, state) "
            "VALUES (%s, 'local', %s, %s) ON CONFLICT (instance_id) DO UPDATE SET "
            "generation = EXCLUDED.generation, state = EXCLUDED.state",
            [body["instance_id"], body["generation"], state],
        )
        records.execute("SELECT pg_notify('weftkit_observed', %s)", [body["instance_id"]])


@pytest.fixture
def host(lasting_cast: Cast) -> Iterator[ObedientHost]:
    thread = ObedientHost()
    thread.start()
    yield thread
    thread.ends.set()
    thread.join(10)


def bootstrap(output: Path, **options: Any) -> dict[str, Any]:
    call_command("weftkit_bootstrap", output=output, wait=20, verbosity=0, **options)
    document: dict[str, Any] = json.loads(output.read_text())
    return document


def test_the_first_start_makes_everything_and_writes_it_down(
    host: ObedientHost, tmp_path: Path, settings: Any
) -> None:
    settings.TLS_CA_PUBLIC = "/somewhere/ca.crt"
    output = tmp_path / "connections.json"
    document = bootstrap(output)
    assert output.stat().st_mode & 0o777 == 0o600
    assert set(document) == {"console", "api", "ca", "connections"}
    assert document["ca"] == "/somewhere/ca.crt"
    rows = document["connections"]
    assert [(row["tenant"], row["engine"]) for row in rows] == [
        (tenant, engine) for tenant in ("demo", "other") for engine in registry.names()
    ]
    for row in rows:
        assert set(row) == {
            "tenant", "engine", "instance", "uri", "uri_pooled", "host", "port", "user", "password",
        }  # fmt: skip
        assert row["instance"] == f"{row['tenant']}-{row['engine']}"
        record = published(Instance.objects.get(handle=row["instance"]))
        assert record is not None
        assert record.status == "active"
        assert record.plan == {"demo": "unmetered", "other": "lite"}[row["tenant"]]
        assert [(c.username, c.role) for c in record.credentials] == [(row["user"], "admin")]
    console = document["console"]
    assert Client().login(username=console["user"], password=console["password"])
    api_key = api_key_authenticate(token=document["api"]["key"], address="127.0.0.1")
    assert api_key is not None
    assert (api_key.role, api_key.tenant.handle) == ("admin", "demo")
    assert document["api"]["url"] == f"{console['url']}/api/v1"


def test_a_later_start_changes_nothing(host: ObedientHost, tmp_path: Path) -> None:
    output = tmp_path / "connections.json"
    first = bootstrap(output)
    records = [published(instance) for instance in Instance.objects.all()]
    assert bootstrap(output) == first
    assert [published(instance) for instance in Instance.objects.all()] == records


def test_a_lost_file_is_replaced_by_new_secrets(host: ObedientHost, tmp_path: Path) -> None:
    output = tmp_path / "connections.json"
    first = bootstrap(output)
    output.unlink()
    second = bootstrap(output)
    assert User.objects.filter(email=second["console"]["user"]).count() == 1
    assert Client().login(
        username=second["console"]["user"], password=second["console"]["password"]
    )
    assert api_key_authenticate(token=first["api"]["key"], address="127.0.0.1") is None
    old = {row["user"] for row in first["connections"]}
    live = Credential.objects.filter(revoked_at=None)
    assert {c.username for c in live} == {row["user"] for row in second["connections"]}
    assert not old & {c.username for c in live}


def test_an_instance_that_was_deleted_is_not_made_again(host: ObedientHost, tmp_path: Path) -> None:
    output = tmp_path / "connections.json"
    bootstrap(output)
    Instance.objects.filter(handle="demo-inmemory").update(
        status="purged", quarantined_at="2026-11-20T12:00Z"
    )
    document = bootstrap(output)
    assert "demo-inmemory" not in {row["instance"] for row in document["connections"]}
    assert Instance.objects.filter(handle="demo-inmemory").count() == 1


def test_configured_users_get_default_instances(
    host: ObedientHost, tmp_path: Path, settings: Any
) -> None:
    settings.READ_WEFTKIT_TOML = lambda path: parse(Path(path).read_text(), {}, path)
    config = tmp_path / "weftkit.toml"
    config.write_text('[[auth.users]]\nusername = "app"\npassword = "p"\nroles = ["admin"]\n')
    document = bootstrap(tmp_path / "connections.json", config=str(config))
    assert len(document["connections"]) == 2 * ENGINES
    defaults = Instance.objects.filter(tenant__handle="default")
    assert {(i.handle, i.is_default, i.status) for i in defaults} == {
        (f"default-{engine}", True, "active") for engine in registry.names()
    }
    assert set(Credential.objects.filter(instance__in=defaults).values_list("username")) == {
        ("app",)
    }
    settings.WEFTKIT = parse("", {})
    bootstrap(tmp_path / "connections.json")
    assert not Credential.objects.filter(username="app", is_enabled=True).exists()


def test_a_disabled_engine_gets_no_instance(
    host: ObedientHost, tmp_path: Path, settings: Any
) -> None:
    settings.WEFTKIT = parse("[inmemory]\nenabled = false\n", {})
    document = bootstrap(tmp_path / "connections.json")
    assert {row["engine"] for row in document["connections"]} == {"keyvalue", "relational"}


def test_what_does_not_come_into_service_is_named_and_the_file_is_there_all_the_same(
    lasting_cast: Cast, tmp_path: Path
) -> None:
    host = ObedientHost(state="failed")
    host.start()
    output = tmp_path / "connections.json"
    with pytest.raises(CommandError, match="demo-relational: provision failed"):
        bootstrap(output)
    host.state = ""
    document = json.loads(output.read_text())
    assert bootstrap(output) == document, "the next start goes on with the same secrets"
    host.ends.set()
    host.join(10)
    assert set(Instance.objects.values_list("status")) == {("active",)}


def test_a_changed_limit_in_weftkit_toml_reaches_instances_that_exist(
    host: ObedientHost, tmp_path: Path, settings: Any
) -> None:
    output = tmp_path / "connections.json"
    bootstrap(output)
    settings.WEFTKIT = parse('[inmemory]\neviction_policy = "lru"\n', {})
    bootstrap(output)
    record = published(Instance.objects.get(handle="demo-inmemory"))
    assert record is not None
    assert record.limits.eviction_policy == "lru"

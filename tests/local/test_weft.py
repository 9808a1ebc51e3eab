"""`weft` as a person and a script use it, against the whole running stack."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
import psycopg
import pytest

from tests.stack import ROOT, Stack

pytestmark = pytest.mark.stack

NAMES = iter(f"weft{number}" for number in range(100))


@dataclass
class Weft:
    """The command line with an environment of its own."""

    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deploy.weft", *words],
            cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=120,
            env={"PATH": os.environ["PATH"], "HOME": "/nowhere", **self.environment},
        )  # fmt: skip

    def said(self, *words: str, stdin: str = "") -> str:
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def told(self, *words: str) -> Any:
        return json.loads(self.said(*words, "--json"))


@pytest.fixture
def weft(stack: Stack, tmp_path: Path) -> Weft:
    api = stack.document["api"]
    return Weft(
        {
            "WEFT_KEY": api["key"],
            "WEFT_URL": api["url"],
            "WEFT_CA": stack.ca,
            "WEFT_CONFIG": str(tmp_path / "profiles.json"),
        }
    )


@pytest.fixture(scope="module")
def shop(stack: Stack) -> str:
    """The name of an instance that a test may use and change."""
    api = stack.document["api"]
    name = next(NAMES)
    Weft({"WEFT_KEY": api["key"], "WEFT_URL": api["url"], "WEFT_CA": stack.ca}).said(
        "instances", "create", name, "--engine", "relational", "--plan", "standard", "--wait",
        "--tag", "team=shop",
    )  # fmt: skip
    return name


def test_create_waits_with_progress_and_the_instance_is_listed_and_shown(weft: Weft) -> None:
    name = next(NAMES)
    made = weft.run("instances", "create", name, "--engine", "inmemory", "--wait", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["state"] == "succeeded"
    progress = [
        line for line in made.stderr.splitlines() if line.startswith(f"provision demo-{name}")
    ]
    assert progress[-1].startswith(f"provision demo-{name}: succeeded, 3 of 3")
    listed = weft.told("instances", "list", "--engine", "inmemory", "-q", name)
    assert [(row["handle"], row["status"]) for row in listed] == [(f"demo-{name}", "active")]
    assert f"demo-{name}" in weft.said("instances", "list").splitlines()[1]
    assert weft.told("instances", "show", name) == weft.told("instances", "show", f"demo-{name}")


def test_a_connection_string_of_a_new_credential_works(weft: Weft, shop: str) -> None:
    uri = weft.said("instances", "connect", shop, "--new", "--role", "read").strip()
    with psycopg.connect(uri) as connection:
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)


def test_a_keyvalue_instance_gives_an_access_key_and_refuses_what_it_has_not(weft: Weft) -> None:
    name = next(NAMES)
    weft.said("instances", "create", name, "--engine", "keyvalue", "--wait")
    lines = weft.said("instances", "connect", name, "--new").splitlines()
    known = dict(line.split("=", 1) for line in lines)
    client: Any = botocore.session.Session().create_client(
        "dynamodb", region_name=known["AWS_DEFAULT_REGION"],
        endpoint_url=known["AWS_ENDPOINT_URL_DYNAMODB"],
        aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    assert client.list_tables()["TableNames"] == []
    client.close()
    assert "psql does not speak it" in weft.run("psql", name, "-c", "SELECT 1").stderr


def test_a_credential_is_rotated_and_revoked_by_its_user_name(weft: Weft, shop: str) -> None:
    made = weft.told("credentials", "create", shop, "--label", "job")
    rotated = weft.told("credentials", "rotate", shop, made["username"], "--grace", "60")
    for known in (made, rotated):
        psycopg.connect(known["uri"]).close()
    assert rotated["password"] != made["password"]
    weft.said("credentials", "revoke", shop, made["username"])
    rows = {row["username"]: row for row in weft.told("credentials", "list", shop)}
    assert rows[made["username"]]["revoked_at"] is not None


def test_psql_is_signed_in_for_one_statement_and_its_credential_ends(weft: Weft, shop: str) -> None:
    assert weft.said("psql", shop, "-At", "-c", "SELECT 6 * 7") == "42\n"
    assert weft.run("psql", shop, "-c", "SELECT nonsense").returncode == 1
    ours = [row for row in weft.told("credentials", "list", shop) if row["label"] == "weft psql"]
    assert len(ours) == 2
    assert all(row["revoked_at"] for row in ours)


def test_a_program_of_another_engine_is_not_started(weft: Weft, shop: str) -> None:
    done = weft.run("redis-cli", shop, "PING")
    assert (done.returncode, done.stdout) == (1, "")
    assert "redis-cli does not speak it" in done.stderr


def test_suspend_resume_scale_and_what_does_not_fit_the_state(weft: Weft, shop: str) -> None:
    assert weft.told("instances", "suspend", shop, "--wait")["state"] == "succeeded"
    again = weft.run("instances", "suspend", shop)
    assert again.returncode == 5
    assert "instance_status" in again.stderr
    weft.said("instances", "resume", shop, "--wait")
    price = weft.told("instances", "scale", shop, "--blocks", "3", "--dry-run")
    assert weft.told("instances", "show", shop)["blocks"] == 1
    assert price
    weft.said("instances", "scale", shop, "--blocks", "3", "--wait")
    assert weft.told("instances", "show", shop)["blocks"] == 3


def test_delete_asks_first_is_refused_under_protection_and_undone(weft: Weft) -> None:
    name = next(NAMES)
    weft.said("instances", "create", name, "--engine", "inmemory", "--wait")
    assert weft.run("instances", "delete", name, stdin="n\n").returncode == 1
    refused = weft.run("instances", "delete", name, "--yes", "--json")
    assert refused.returncode == 5
    assert json.loads(refused.stderr)["code"] == "deletion_protected"
    weft.said("instances", "protect", name, "--off")
    assert weft.told("instances", "delete", name, "--yes", "--wait")["kind"] == "delete"
    assert weft.told("instances", "undelete", name, "--wait")["state"] == "succeeded"


def test_operations_are_listed_shown_and_waited_for(weft: Weft, shop: str) -> None:
    found = weft.told("operations", "list", "--instance", shop, "--limit", "1")
    assert len(found) == 1
    oldest = weft.told("operations", "list", "--instance", shop)[-1]
    narrowed = ("--instance", shop, "--kind", oldest["kind"], "--until", oldest["created_at"])
    assert weft.told("operations", "list", *narrowed) == []
    narrowed = (*narrowed[:4], "--since", oldest["created_at"])
    assert oldest["id"] in [each["id"] for each in weft.told("operations", "list", *narrowed)]
    assert oldest["kind"] == "provision"
    assert "succeeded" in weft.said("operations", "wait", oldest["id"])
    assert oldest["steps"][0]["title"] in weft.said("operations", "show", oldest["id"])
    retried = weft.run("operations", "retry", oldest["id"])
    assert retried.returncode == 5


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("instances", "show", "none"), 3, "there is no such instance"),
        (("--tenant", "other", "instances", "list"), 3, "there is no such tenant"),
        (("instances", "create", "x!", "--engine", "relational"), 1, "name:"),
        (("instances", "scale", "x"), 2, "--plan or --blocks"),
        (("operations", "show", "no-uuid"), 3, "nothing at this address"),
    ],
)
def test_errors_are_messages_with_an_exit_status(
    weft: Weft, words: tuple[str, ...], status: int, said: str
) -> None:
    done = weft.run(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_key_and_an_address_without_an_api(weft: Weft) -> None:
    weft.environment["WEFT_KEY"] = "wk_0000000000000000_wrong"
    assert weft.run("whoami").returncode == 4
    weft.environment["WEFT_URL"] = "http://127.0.0.1:9"
    away = weft.run("whoami")
    assert (away.returncode, "does not answer" in away.stderr) == (7, True)


def test_login_keeps_a_profile_that_only_its_owner_reads(weft: Weft) -> None:
    key = weft.environment.pop("WEFT_KEY")
    assert "weft login" in weft.run("whoami").stderr
    url, ca = weft.environment.pop("WEFT_URL"), weft.environment.pop("WEFT_CA")
    wrong = weft.run("--url", url, "--ca", ca, "login", stdin="wk_0_wrong\n")
    assert wrong.returncode == 4
    kept = Path(weft.environment["WEFT_CONFIG"])
    assert not kept.exists()
    weft.said("--url", url, "--ca", ca, "login", "--name", "here", stdin=f"{key}\n")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [row["handle"] for row in weft.told("whoami")["tenants"]] == ["demo"]
    kept.chmod(0o644)
    assert "others may read it" in weft.run("whoami").stderr
    kept.chmod(0o600)
    weft.said("logout")
    assert weft.run("whoami").returncode == 1


def test_keys_are_made_used_and_revoked(weft: Weft) -> None:
    made = weft.told("keys", "create", "ci", "--role", "read-only")
    reader = Weft({**weft.environment, "WEFT_KEY": made["token"]})
    assert reader.told("whoami")["tenants"][0]["role"] == "read-only"
    refused = reader.run("instances", "create", "x", "--engine", "inmemory")
    assert refused.returncode == 4
    assert made["key_id"] in weft.said("keys", "list")
    weft.said("keys", "revoke", made["id"])
    assert reader.run("whoami").returncode == 4


def test_usage_and_audit_come_out_whole(weft: Weft, shop: str, tmp_path: Path) -> None:
    assert f"demo-{shop}" in {row["instance"] for row in weft.told("usage")}
    assert "READ UNITS" in weft.said("usage", "--instance", shop)
    lines = [json.loads(line) for line in weft.said("audit", "export").splitlines()]
    assert "weftkit.instance.create" in {event["action"] for event in lines}
    target = tmp_path / "events.csv.gz"
    weft.said("audit", "export", "--format", "csv", "--gzip", "-o", str(target))
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(target.read_bytes()).decode())))
    assert len(rows) >= len(lines)


def test_a_backup_is_made_listed_and_restored_into_a_new_instance(weft: Weft) -> None:
    name, copy = next(NAMES), next(NAMES)
    weft.said("instances", "create", name, "--engine", "inmemory", "--wait")
    assert weft.said("redis-cli", name, "SET", "kept", "42") == "OK\n"
    weft.said("backups", "create", name, "--label", "by weft", "--wait")
    backup = weft.told("backups", "list", "--instance", name)[0]
    assert (backup["label"], backup["state"]) == ("by weft", "ready")
    weft.said("backups", "restore", backup["id"], copy, "--wait")
    assert weft.said("redis-cli", copy, "GET", "kept") == "42\n"


def test_completion_comes_from_the_commands(weft: Weft) -> None:
    weft.environment |= {
        "_WEFT_COMPLETE": "bash_complete", "COMP_WORDS": "weft instances su", "COMP_CWORD": "2",
    }  # fmt: skip
    assert weft.said() == "plain,suspend\n"

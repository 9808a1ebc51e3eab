"""Wiring: health, schedule, checks, migrations, production's demands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.test import Client

from tests.tenants.cast import Cast
from weftkit_site import checks
from weftkit_site.celery import app

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("local", "production")


def test_every_scheduled_task_exists(settings: Any) -> None:
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert scheduled <= set(app.tasks)
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    assert ours - scheduled == {"audit.drain_run", "operations.run"}


def test_tasks_are_acknowledged_late_and_in_json() -> None:
    assert app.conf.task_acks_late is True
    assert app.conf.task_reject_on_worker_lost is True
    assert app.conf.accept_content == ["json"]


def test_live_needs_nothing_and_ready_needs_the_database(cast: Cast, client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok", "database": "ok"}
    assert client.post("/healthz").status_code == 405


def test_ready_says_no_without_the_database(transactional_db: None, client: Client) -> None:
    kept = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict["HOST"] = "/nowhere"
    try:
        answer = client.get("/readyz")
    finally:
        connection.close()
        connection.settings_dict.update(kept)
    assert (answer.status_code, answer.json()["database"]) == (503, "unreachable")


def test_a_callers_request_id_is_kept_only_if_it_is_harmless(client: Client) -> None:
    kept = client.get("/healthz", headers={"X-Request-ID": "abc-123_x.y"})
    assert kept.headers["X-Request-ID"] == "abc-123_x.y"
    replaced = client.get("/healthz", headers={"X-Request-ID": "a b\tc d e f g"})
    assert len(replaced.headers["X-Request-ID"]) == 32


def test_checks_find_what_would_hurt(settings: Any) -> None:
    found = [checks.celery_limits_nest, checks.pepper_is_known, checks.time_is_aware]
    assert [check(None) for check in found] == [[], [], []]
    settings.OPERATION_LEASE_S = settings.CELERY_TASK_TIME_LIMIT
    settings.PEPPERS = {}
    settings.TIME_ZONE = "Asia/Kolkata"
    assert [check(None)[0].id for check in found] == [
        "weftkit.E001",
        "weftkit.E002",
        "weftkit.E003",
    ]


@pytest.mark.django_db
def test_models_and_migrations_agree() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_every_app_says_what_it_is() -> None:
    for config in apps.get_app_configs():
        if config.name.startswith("tenants."):
            assert config.module is not None
            assert config.module.__doc__, f"{config.name}/__init__.py has no docstring"


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_load_in_a_process_of_their_own(name: str, tmp_path: Path) -> None:
    (tmp_path / "django.key").write_text("0123456789abcdef" * 4)
    (tmp_path / "pepper.1").write_text("cd" * 32)
    (tmp_path / "backup.1").write_text("ef" * 32)
    environment = {
        **{key: value for key, value in os.environ.items() if "WEFTKIT" not in key},
        "DJANGO_SETTINGS_MODULE": f"weftkit_site.settings.{name}",
        "WEFTKIT_HOME": str(tmp_path),
        "WEFTKIT_SECRETS_DIR": str(tmp_path),
        "WEFTKIT_DATABASE_URL": "postgresql:///weftkit",
        "WEFTKIT_REDIS_URL": "unix:///nowhere/redis.sock",
        "WEFTKIT_PUBLIC_HOST": "weftkit.example.org",
    }
    deploy = ["--deploy", "--fail-level", "WARNING"] if name == "production" else []
    command = [sys.executable, "manage.py", "check", *deploy]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_production_refuses_to_start_half_configured() -> None:
    environment = {key: value for key, value in os.environ.items() if "WEFTKIT" not in key}
    environment["DJANGO_SETTINGS_MODULE"] = "weftkit_site.settings.production"
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "WEFTKIT_SECRETS_DIR" in done.stderr


def test_an_unknown_host_gets_a_problem_in_the_apis_form(client: Client) -> None:
    answer = client.get("/api/v1/engines", headers={"Host": "evil.example.org"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


@pytest.mark.django_db
def test_the_log_names_the_route_of_a_request_and_not_the_token_in_its_path(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "tenants.core.middleware"):
        client.get(f"/invitations/{UUID(int=1)}/secret-token")
    (line,) = [record.msg for record in caplog.records]
    assert isinstance(line, dict)
    assert line["route"] == "invitations/<uuid:invitation_id>/<str:token>"
    assert line["status"] == 404
    assert "secret-token" not in caplog.text

"""Django on the throw-away PostgreSQL, and the cast in an empty or a lasting database."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "weftkit_site.settings.test")

from importlib import import_module
from pathlib import Path
from typing import Any

import django
import pytest
from django.apps import apps
from django.core.cache import cache
from django.db import connection, connections

from tests.servers import PostgresServer
from weftkit_site.settings import environment

django.setup()

from tenants.usage.models import Plan  # noqa: E402
from tests.tenants.cast import Cast  # noqa: E402

EXCHANGE = [
    f"publish.{table}"
    for table in ("record", "observed", "usage_intake", "audit_intake", "key_seen", "task")
]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(postgres: PostgresServer) -> None:
    """Point Django to the throw-away server before it makes its test database."""
    entry = environment.database(postgres.dsn("weftkit"))
    # Tests that commit empty the tables after themselves, those of the audit trail too.
    entry["OPTIONS"]["options"] += " -c weftkit.throwaway=on"
    # Two folders have this fixture; by the second time the test database is in use.
    if connections.settings["default"]["HOST"] != entry["HOST"]:
        connections.settings["default"].update(entry)


@pytest.fixture(autouse=True)
def _own_files(settings: Any, tmp_path: Path) -> None:
    """Keep the files and backups of each test in a directory of its own."""
    changed = {}
    for name in ("files", "backups"):
        entry = settings.STORAGES[name]
        changed[name] = {**entry, "OPTIONS": {**entry["OPTIONS"], "location": tmp_path / name}}
    settings.STORAGES = {**settings.STORAGES, **changed}


@pytest.fixture(autouse=True)
def _forget_limits() -> None:
    """Begin each test with no request counted."""
    cache.clear()


@pytest.fixture
def cast(db: None) -> Cast:
    """The cast, in an empty database."""
    return Cast.assemble()


@pytest.fixture
def lasting_cast(transactional_db: None) -> Cast:
    """The cast in committed rows, for tests with several connections."""
    with connection.cursor() as cursor:
        # After such a test Django empties the tables of its models, those with seeds too.
        cursor.execute(f"TRUNCATE {', '.join(EXCHANGE)}")
    if not Plan.objects.exists():
        import_module("tenants.usage.migrations.0002_plans").seed(apps, None)
        import_module("tenants.usage.migrations.0003_hibernation").fill(apps, None)
        import_module("tenants.usage.migrations.0004_measured").fill(apps, None)
        import_module("tenants.billing.migrations.0002_prices").seed(apps, None)
    return Cast.assemble()

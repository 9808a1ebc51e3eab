"""A live daphne on the test database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from tests.servers import PostgresServer, RedisServer
from tests.tenants.conftest import cast, django_db_modify_db_settings, lasting_cast
from tests.web import run_web

__all__ = ["cast", "django_db_modify_db_settings", "lasting_cast"]


@pytest.fixture(scope="package")
def live(
    postgres: PostgresServer, redis: RedisServer, servers_home: Path, django_db_setup: None
) -> Iterator[str]:
    """The address of a daphne that serves the test database."""
    with run_web(
        postgres,
        redis,
        servers_home / "fuzz",
        database=str(connection.settings_dict["NAME"]),
        settings="tests.fuzz.live_settings",
    ) as address:
        yield address

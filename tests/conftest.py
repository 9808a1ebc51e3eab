"""Fixtures that every test may use: throw-away servers. Imports nothing of Django."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane import native
from tests.admin import Admin
from tests.servers import PostgresServer, RedisServer, run_postgres, run_redis, temporary_home
from tests.stack import Stack, run_stack

if stale := native.stale():
    raise pytest.UsageError(f"compiled, and changed since: {', '.join(stale)}; run `make native`")


@pytest.fixture(scope="session")
def servers_home() -> Iterator[Path]:
    """A directory for the throw-away servers of this run."""
    with temporary_home() as root:
        yield root


@pytest.fixture(scope="session")
def postgres(servers_home: Path) -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run; make a database of your own in it."""
    with run_postgres(servers_home) as server:
        yield server


@pytest.fixture(scope="session")
def redis(servers_home: Path) -> Iterator[RedisServer]:
    """One redis-server for the whole run; use a database number or flush what you made."""
    with run_redis(servers_home) as server:
        yield server


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The embedded default, started once for the run."""
    with run_stack(WEFTKIT_WORKERS="2") as running:
        yield running


@pytest.fixture(scope="session")
def admin(stack: Stack) -> Iterator[Admin]:
    """The owner of the tenant `demo`, at the REST API."""
    with contextlib.closing(Admin(stack)) as signed_in:
        yield signed_in

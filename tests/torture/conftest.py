"""A stack of the torturers' own, with one worker: what is measured is that worker's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.admin import Admin
from tests.stack import Connection, Stack, run_stack
from tests.torture.watch import Watch


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """The embedded default with a single data-plane worker."""
    with run_stack(WEFTKIT_WORKERS="1") as running:
        yield running


@pytest.fixture(scope="package")
def admin(stack: Stack) -> Iterator[Admin]:
    """The owner of the tenant `demo`, at the REST API."""
    with contextlib.closing(Admin(stack)) as signed_in:
        yield signed_in


@pytest.fixture(scope="package")
def relational(admin: Admin) -> Connection:
    """A relational instance of the torturers' own."""
    return admin.new_instance("relational", plan="unmetered")


@pytest.fixture(scope="package")
def inmemory(admin: Admin) -> Connection:
    """An inmemory instance whose memory holds what slow readers leave unread."""
    return admin.new_instance("inmemory", plan="dedicated")


@pytest.fixture
def watch(stack: Stack, relational: Connection, inmemory: Connection) -> Watch:
    """The worker as it is before the test; both instances exist."""
    return Watch(stack)

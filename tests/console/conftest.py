"""A live daphne on the test database, Debian's Chromium, and a browser for each person."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from playwright.sync_api import Browser, sync_playwright

from tenants.accounts.models import User
from tests.console.browser import CHROMIUM, Person, sign_in
from tests.servers import PostgresServer, RedisServer
from tests.stack import Stack
from tests.tenants.conftest import cast, django_db_modify_db_settings, lasting_cast
from tests.tenants.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, providing
from tests.web import run_web

__all__ = ["cast", "django_db_modify_db_settings", "lasting_cast"]

Browse = Callable[..., Person]


@pytest.fixture(scope="package", autouse=True)
def _playwright_keeps_a_loop() -> Iterator[None]:
    """Let the test use the ORM: Playwright's loop, which runs in this thread, never enters it."""
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    yield
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of this folder."""
    if not os.path.exists(CHROMIUM):
        pytest.skip("Debian's chromium is not installed")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def provider() -> Iterator[Provider]:
    """The OpenID provider that the live daphne knows; a test sets its `claims`."""
    with providing() as found:
        yield found


@pytest.fixture(scope="package")
def live(
    postgres: PostgresServer,
    redis: RedisServer,
    servers_home: Path,
    django_db_setup: None,
    provider: Provider,
) -> Iterator[str]:
    """The address of a daphne that serves the test database."""
    with run_web(
        postgres,
        redis,
        servers_home / "console",
        database=str(connection.settings_dict["NAME"]),
        settings="tests.console.live_settings",
        WEFTKIT_OIDC_ISSUER=provider.url,
        WEFTKIT_OIDC_NAME="Example",
        WEFTKIT_OIDC_CLIENT_ID=CLIENT_ID,
        WEFTKIT_OIDC_CLIENT_SECRET=CLIENT_SECRET,
        WEFTKIT_OIDC_SIGN_UP="yes",
    ) as address:
        yield address


@pytest.fixture
def browse(live: str, chromium: Browser, lasting_cast: Any) -> Iterator[Browse]:
    """Sign somebody in: `browse(cast.alice, scheme="dark", width=390)`; faults fail the test."""
    people: list[Person] = []

    def start(user: User | None, **options: Any) -> Person:
        person = sign_in(chromium, live, user, **options)
        people.append(person)
        return person

    yield start
    for person in people:
        person.context.close()
    assert not [fault for person in people for fault in person.faults]


@pytest.fixture
def owner(stack: Stack, chromium: Browser) -> Iterator[Person]:
    """The owner of `demo`, signed in through the form."""
    console = stack.document["console"]
    person = sign_in(chromium, console["url"].rstrip("/"), None)
    page = person.open("/sign-in")
    page.get_by_label("E-mail").fill(console["user"])
    page.get_by_label("Password", exact=True).fill(console["password"])
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/t/demo/")
    page.close()
    yield person
    person.context.close()
    assert not person.faults

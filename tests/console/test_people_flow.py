"""People in a browser: from sign-up to a tenant, an authenticator app, a passkey, an invitation."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from playwright.sync_api import Browser, Page

from tenants.accounts.invitations import invitation_create, invitation_link
from tenants.accounts.models import MemberRole, Membership, User
from tests.console.browser import Person, sign_in
from tests.console.conftest import Browse
from tests.servers import wait_until
from tests.tenants.cast import PASSWORD, Cast
from tests.tenants.oidc_provider import Provider

NEW_PASSWORD = "a long and quiet evening"


@pytest.fixture
def mails(servers_home: Path) -> Path:
    """The folder in which the live daphne leaves its mails."""
    return servers_home / "console" / "mail"


def link_to(mails: Path, address: str) -> str:
    """Return the path of the link in the newest mail to somebody."""

    def texts() -> list[str]:
        files = sorted(mails.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
        return [text for path in files if f"To: {address}" in (text := path.read_text())]

    wait_until(lambda: bool(texts()), "the mail is there")
    (link, *_) = re.findall(r"https?://\S+", texts()[-1].replace("=\n", ""))
    return urlsplit(link).path


def give_password(page: Page, email: str, password: str = PASSWORD) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def confirm_password(page: Page) -> None:
    page.get_by_label("Password").last.fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()


def test_a_stranger_signs_up_proves_the_address_and_stands_in_their_tenant(
    browse: Browse, mails: Path
) -> None:
    visitor = browse(None)
    page = visitor.open("/sign-in")
    page.get_by_role("link", name="Make an account").click()
    page.get_by_label("E-mail address").fill("erin@example.org")
    page.get_by_label("Organisation").fill("erinco")
    page.get_by_label("Password").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url("**/sign-in/email")
    page = visitor.open(link_to(mails, "erin@example.org"))
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_load_state()
    page = visitor.open("/sign-in")
    if "/sign-in" in page.url:
        give_password(page, "erin@example.org", NEW_PASSWORD)
    page.wait_for_url("**/t/erinco/")
    assert Membership.objects.get(tenant__handle="erinco").role == MemberRole.OWNER


def test_an_authenticator_app_is_set_up_and_asked_for_at_the_next_sign_in(
    browse: Browse, lasting_cast: Cast
) -> None:
    visitor = browse(None)
    page = visitor.open("/sign-in")
    give_password(page, "alice@example.org")
    page.wait_for_url("**/t/acme/")
    page = visitor.open("/account/second-factors/app")
    confirm_password(page)
    secret = page.get_by_label("Authenticator secret").input_value()
    assert page.locator("img.qr").evaluate("image => image.naturalWidth") > 0
    step = int(time.time()) // 30
    page.get_by_role("textbox", name="Code").fill(format_hotp_value(hotp_value(secret, step)))
    page.get_by_role("button", name="Activate").click()
    page.wait_for_url("**/second-factors/codes")
    codes = page.get_by_label("Unused codes").input_value().split()
    assert len(codes) == 10
    page.get_by_role("button", name="Sign out").click()
    again = visitor.open("/sign-in")
    give_password(again, "alice@example.org")
    again.wait_for_url("**/sign-in/second-factor")
    again.get_by_role("textbox", name="Code").fill(codes[0])
    again.get_by_role("button", name="Sign In", exact=True).click()
    again.wait_for_url("**/t/acme/")


@pytest.fixture
def at_localhost(live: str, chromium: Browser, lasting_cast: Cast) -> Iterator[Person]:
    """A browser at a name: passkeys belong to names, not to addresses of IP."""
    person = sign_in(chromium, live.replace("127.0.0.1", "localhost"), None)
    yield person
    person.context.close()
    assert person.faults == []


def with_authenticator(person: Person, path: str) -> Page:
    """Open a page in a browser that has Chromium's virtual authenticator."""
    page = person.open(path)
    devtools = person.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options: dict[str, Any] = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return page


def test_a_passkey_is_added_and_signs_in_without_a_password(at_localhost: Person) -> None:
    page = with_authenticator(at_localhost, "/sign-in")
    give_password(page, "alice@example.org")
    page.wait_for_url("**/t/acme/")
    page.goto(at_localhost.address + "/account/second-factors/passkeys/new")
    confirm_password(page)
    page.get_by_label("Passwordless").check()
    page.get_by_role("button", name="Add").click()
    page.wait_for_url("**/second-factors/codes")
    page.get_by_role("button", name="Sign out").click()
    page.goto(at_localhost.address + "/sign-in")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.wait_for_url("**/t/acme/")
    assert page.locator("h1").count() == 1


def test_an_invited_person_joins_from_the_link(browse: Browse, lasting_cast: Cast) -> None:
    invitation = invitation_create(
        actor=lasting_cast.owner, email="fay@example.org", role=MemberRole.AUDITOR
    )
    page = browse(None).open(urlsplit(invitation_link(invitation)).path)
    page.get_by_label("Name").fill("Fay")
    page.get_by_label("Password").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Make an account and join").click()
    page.wait_for_url("**/t/acme/")
    fay = User.objects.get(email="fay@example.org")
    assert Membership.objects.get(user=fay).role == MemberRole.AUDITOR


def test_a_person_comes_by_an_openid_provider_and_names_their_organisation(
    at_localhost: Person, provider: Provider
) -> None:
    provider.claims = {"sub": "7", "email": "gil@example.org", "email_verified": True}
    page = at_localhost.open("/sign-in")
    page.get_by_role("button", name="Sign in with Example").click()
    page.get_by_label("Organisation").fill("gilco")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url("**/t/gilco/")
    # Its answer is the one thing that another host was asked for.
    asked = [fault for fault in at_localhost.faults if f"{provider.url}/authorize" in fault]
    assert len(asked) == 1
    at_localhost.faults.remove(asked[0])

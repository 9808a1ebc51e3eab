"""Live pages: what changes is seen without a reload, also after the connection was away."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tenants.accounts.models import Membership
from tenants.console.live import RIGHTS_SECONDS
from tests.console.conftest import Browse
from tests.tenants.cast import Cast, make_instance, serving_instance, settle

# A look a second, and a part that is fetched.
SEEN_MS = 6000


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def says(page: Page, text: str, timeout_ms: float = SEEN_MS) -> None:
    """Wait until the page says `text` of its connection."""
    expect(page.locator("#live-state")).to_have_text(text, timeout=timeout_ms)


def closed_with(page: Page, path: str, message: str = "") -> int:
    """Open a websocket in the page, send `message`, and return the code that it is closed with."""
    script = """([path, message]) => new Promise((resolve) => {
        const socket = new WebSocket(`ws://${location.host}${path}`);
        socket.onopen = () => { if (message) socket.send(message); };
        socket.onclose = (event) => resolve(event.code);
    })"""
    return int(page.evaluate(script, [path, message]))


def test_progress_is_seen_while_it_happens(browse: Browse, lasting_cast: Cast) -> None:
    operation = make_instance(lasting_cast.acme, "shop")
    page = browse(lasting_cast.bob).open(f"/t/acme/operations/{operation.pk}")
    says(page, "live")
    assert page.locator("#operation .badge").first.text_content() == "scheduled"
    settle(operation)
    page.locator("#operation .badge", has_text="succeeded").wait_for(timeout=SEEN_MS)
    assert page.locator("#operation .steps li.done").count() == 3


def test_what_was_missed_while_the_connection_was_away_is_caught_up(
    browse: Browse, lasting_cast: Cast
) -> None:
    bob = browse(lasting_cast.bob)
    page = bob.open("/t/acme/instances")
    says(page, "live")
    bob.context.set_offline(True)
    says(page, "reconnecting")
    serving_instance(lasting_cast.acme, "later")
    bob.context.set_offline(False)
    page.get_by_role("link", name="acme-later").wait_for(timeout=SEEN_MS)


def test_who_may_not_hears_nothing(browse: Browse, lasting_cast: Cast) -> None:
    charlie = browse(lasting_cast.charlie)
    page = charlie.open("/t/globex/")
    assert closed_with(page, "/t/acme/live") == 4404
    charlie.context.clear_cookies()
    assert closed_with(page, "/t/globex/live") == 4401


@pytest.mark.parametrize("message", ["{", "[]", '{"watch": 1}', '{"watch": {"a": "' + "x" * 3000])
def test_nonsense_closes_the_socket(browse: Browse, lasting_cast: Cast, message: str) -> None:
    page = browse(lasting_cast.charlie).open("/t/globex/")
    assert closed_with(page, "/t/globex/live", message) == 4400


def test_a_page_of_another_origin_gets_no_socket(browse: Browse, lasting_cast: Cast) -> None:
    page = browse(lasting_cast.alice).open("/t/acme/")
    other = page.context.new_page()
    other.goto("data:text/html,<p>elsewhere")
    address = page.url.replace("http", "ws") + "live"
    script = """(address) => new Promise((resolve) => {
        const socket = new WebSocket(address);
        socket.onopen = () => resolve("open");
        socket.onclose = (event) => resolve(event.code);
    })"""
    assert other.evaluate(script, address) == 1006


def test_a_member_who_is_removed_hears_nothing_more(browse: Browse, lasting_cast: Cast) -> None:
    bob = browse(lasting_cast.bob)
    bob.expected_statuses = {404}
    page = bob.open("/t/acme/")
    says(page, "live")
    Membership.objects.filter(user=lasting_cast.bob).delete()
    says(page, "not live: sign in again", (RIGHTS_SECONDS + 5) * 1000)

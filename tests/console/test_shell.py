"""The shell in a browser: colours, palette, keys, menus on small screens, and who sees what."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.console.conftest import Browse
from tests.tenants.cast import Cast, serving_instance


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def ground(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_colours_follow_the_system_until_somebody_chooses(
    browse: Browse, lasting_cast: Cast
) -> None:
    page = browse(lasting_cast.alice, scheme="dark").open("/")
    dark = ground(page)
    page.get_by_text("alice@example.org").click()
    page.get_by_role("button", name="Colours: light").click()
    assert ground(page) == "rgb(245, 246, 248)" != dark
    page.reload()
    assert ground(page) == "rgb(245, 246, 248)"


def test_the_palette_finds_an_instance_by_keys_alone(browse: Browse, lasting_cast: Cast) -> None:
    serving_instance(lasting_cast.acme, "orders")
    page = browse(lasting_cast.alice).open("/")
    page.keyboard.press("/")
    page.get_by_role("option", name="acme-orders").wait_for()
    page.keyboard.type("orders")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url("**acme-orders**")


def test_single_letters_can_be_switched_off(browse: Browse, lasting_cast: Cast) -> None:
    page = browse(lasting_cast.alice).open("/")
    page.keyboard.press("?")
    page.get_by_label("Single letters are shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("Control+k")
    assert page.locator("#palette[open]").count() == 1


def test_on_a_small_screen_the_side_bar_opens_by_its_button(
    browse: Browse, lasting_cast: Cast
) -> None:
    page = browse(lasting_cast.alice, width=390).open("/")
    assert not page.get_by_role("link", name="Overview", exact=True).is_visible()
    page.get_by_role("button", name="Menu").click()
    assert page.get_by_role("link", name="Overview", exact=True).is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("link", name="Overview", exact=True).is_visible()


def test_another_tenants_page_is_not_found(browse: Browse, lasting_cast: Cast) -> None:
    charlie = browse(lasting_cast.charlie)
    charlie.expected_statuses = {404}
    page = charlie.open("/t/acme/")
    assert page.locator("h1").text_content() == "There is nothing here"
    assert "acme" not in page.content().replace("/t/acme/", "")

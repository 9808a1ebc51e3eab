"""IAM in the browser: a key is made, copied, rerolled without a gap and revoked."""

from __future__ import annotations

import os
from pathlib import Path

from tenants.iam.services import api_key_authenticate
from tests.console.browser import axe_violations, overflow_px
from tests.console.conftest import Browse
from tests.console.pages import iam
from tests.tenants.cast import Cast

HERE = "127.0.0.1"


def works(token: str) -> bool:
    return api_key_authenticate(token=token, address=HERE) is not None


def test_a_service_ids_key_is_made_copied_rerolled_and_revoked(
    browse: Browse, lasting_cast: Cast
) -> None:
    iam(lasting_cast)
    page = browse(lasting_cast.alice, width=390).open("/t/acme/iam")

    def look(name: str) -> None:
        assert page.locator("h1").count() == 1
        assert axe_violations(page) == []
        assert overflow_px(page) == 0
        if folder := os.environ.get("WEFTKIT_SCREENSHOTS"):
            page.screenshot(path=Path(folder, f"{name}-390-light.png"), full_page=True)

    page.get_by_role("link", name="orders-app").click()
    look("iam-service-id")
    page.get_by_role("link", name="Make a key").click()
    page.get_by_label("Name").fill("nightly")
    page.get_by_role("button", name="Make it").click()
    look("iam-key-made")
    page.get_by_role("button", name="Copy").click()
    page.get_by_text("Copied").first.wait_for()
    first = str(page.evaluate("navigator.clipboard.readText()"))
    assert works(first)
    page.get_by_role("link", name="I have it").click()
    page.get_by_role("link", name="nightly").click()
    look("iam-key")
    page.get_by_role("button", name="Issue a new secret").click()
    second = page.locator("#token").inner_text()
    assert second != first
    assert works(first)
    assert works(second)
    page.go_back()
    page.get_by_role("button", name="Revoke", exact=True).click()
    page.get_by_role("button", name="Revoke it").click()
    page.get_by_text("The key is revoked").wait_for()
    assert not works(first)
    assert not works(second)

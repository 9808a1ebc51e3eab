"""Every page of `pages.PAGES` at two widths, in both colour schemes: no serious violation of
accessibility, no sideways scrolling, no layout that jumps while it loads, no error in the browser's
console. With WEFTKIT_SCREENSHOTS
set to a folder (`make screenshots`), a picture of each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest

from engines.kit.records import Role
from tenants.instances.credentials import credential_create
from tests.console.browser import (
    HEIGHT,
    LAYOUT_SHIFT_MAX,
    axe_violations,
    layout_shift,
    overflow_px,
)
from tests.console.conftest import Browse
from tests.console.pages import PAGES, Look
from tests.tenants.cast import Cast, serving_instance

# Width -> scheme: both widths and both schemes in two visits.
VISITS: dict[int, Literal["light", "dark"]] = {390: "dark", 1440: "light"}
WIDEST = 2560


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.mark.parametrize("look", PAGES, ids=str)
def test_a_page_is_accessible_and_fits(browse: Browse, lasting_cast: Cast, look: Look) -> None:
    main = serving_instance(lasting_cast.acme)
    cache = serving_instance(lasting_cast.acme, "cache", engine="inmemory")
    items = serving_instance(lasting_cast.acme, "items", engine="keyvalue")
    look.seed(lasting_cast)
    credential_create(instance=main, actor="test", role=Role.WRITE, label="web shop")
    address = f"/t/{look.tenant}/" + look.address.format(
        instance=main.handle, cache=cache.handle, items=items.handle
    )
    person = browse(getattr(lasting_cast, look.person, None))
    person.expected_statuses = {look.status} - {200}
    page = person.open(address)
    assert layout_shift(page) <= LAYOUT_SHIFT_MAX
    for width, scheme in VISITS.items():
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.emulate_media(color_scheme=scheme)
        assert page.locator("h1").count() == 1
        assert overflow_px(page) == 0
        assert axe_violations(page) == []
        if folder := os.environ.get("WEFTKIT_SCREENSHOTS"):
            page.screenshot(path=Path(folder, f"{look.name}-{width}-{scheme}.png"), full_page=True)
    page.set_viewport_size({"width": WIDEST, "height": HEIGHT})
    assert overflow_px(page) == 0

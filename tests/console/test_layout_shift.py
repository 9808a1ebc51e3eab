"""The measure of jumping layouts sees one: else `test_pages` would find none anywhere."""

from __future__ import annotations

from urllib.parse import quote

from playwright.sync_api import Browser

from tests.console.browser import LAYOUT_SHIFT_MAX, layout_shift

STILL = "<style>body { margin: 0 } p { height: 300px }</style><p id=text>text</p>"
# A box of a third of the window comes late, above what is read.
LATE = """<script>requestAnimationFrame(() => setTimeout(() => {
  document.body.insertAdjacentHTML("afterbegin", "<div style='height: 400px'></div>");
}, 300));</script>"""


def test_a_box_that_comes_late_is_measured_and_a_still_page_is_not(chromium: Browser) -> None:
    page = chromium.new_page(viewport={"width": 800, "height": 600})
    page.goto(f"data:text/html,{quote(STILL)}")
    assert layout_shift(page) == 0
    page.close()
    page = chromium.new_page(viewport={"width": 800, "height": 600})
    page.goto(f"data:text/html,{quote(STILL + LATE)}")
    page.wait_for_selector("div")
    assert layout_shift(page) > LAYOUT_SHIFT_MAX
    page.close()

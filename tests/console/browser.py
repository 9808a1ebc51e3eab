"""One person's browser: a Chromium context that is signed in and notes whatever goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.test import Client
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response

from tenants.accounts.models import User
from tests.clients.node.programs import installed_packages

CHROMIUM = "/usr/bin/chromium"
# A page that is slower than this on two busy cores is broken.
WAIT_MS = 15_000
HEIGHT = 900
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]

# Said in the page's own console, so that a violation is noted like any other error.
NOTE_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@dataclass
class Person:
    """A signed-in person's browser context. `faults` must be empty when the test ends."""

    context: BrowserContext
    address: str
    faults: list[str] = field(default_factory=list)
    # Answers that a test provokes: Chromium writes a line for each 4xx of a page.
    expected_statuses: set[int] = field(default_factory=set)

    def open(self, path: str) -> Page:
        """Open a page and wait until its scripts have run."""
        page = self.context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: {error}"))
        page.on("response", lambda answer: self._answered(page, answer))
        page.add_init_script(NOTE_VIOLATIONS)
        page.goto(self.address + path)
        page.wait_for_selector("body[data-ready]")
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        is_status = "Failed to load resource" in message.text  # `_answered` has its own view of it
        if message.type in ("error", "warning") and not is_status:
            self.faults.append(f"{message.location.get('url')}: {message.text}")

    def _answered(self, page: Page, answer: Response) -> None:
        if not answer.url.startswith(self.address):
            self.faults.append(f"{page.url} asked another host: {answer.url}")
        elif answer.status >= 400 and answer.status not in self.expected_statuses:
            self.faults.append(f"{answer.status} {answer.request.method} {answer.url}")


def sign_in(
    browser: Browser, address: str, user: User | None, *, scheme: str = "light", width: int = 1280
) -> Person:
    """Return a browser in which `user` is signed in; None: nobody is."""
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": HEIGHT},
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
        ignore_https_errors=True,
    )
    if user is not None:
        client = Client()
        client.force_login(user)
        session = client.cookies["sessionid"].value
        context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
    return Person(context, address)


def axe_violations(page: Page) -> list[str]:
    """Return what axe-core calls serious or critical in a page."""
    program = Path(installed_packages(), "axe-core", "axe.min.js").read_text()
    page.evaluate(f"{program};0")
    found: dict[str, Any] = page.evaluate(
        "(tags) => axe.run(document, {runOnly: {type: 'tag', values: tags}})", AXE_RULES
    )
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def overflow_px(page: Page) -> int:
    """Return by how many pixels a page is wider than its window."""
    return max(0, int(page.evaluate("document.documentElement.scrollWidth - innerWidth")))


# What moved under the reader's eyes since the page was opened, without their doing: web.dev's CLS.
LAYOUT_SHIFT = """() => new Promise((resolve) => {
  let sum = 0;
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
  });
  observer.observe({ type: "layout-shift", buffered: true });
  // Entries are told of behind the frame that they are of.
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => resolve(sum), 50)));
})"""
# "Good" ends at 0.1.
LAYOUT_SHIFT_MAX = 0.1


def layout_shift(page: Page) -> float:
    """Return by how much a page's layout has shifted since it was opened."""
    return float(page.evaluate(LAYOUT_SHIFT))

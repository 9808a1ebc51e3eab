"""The audit trail in a browser: search, and export what was found."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

from tests.console.conftest import Browse
from tests.console.pages import audit
from tests.tenants.cast import Cast


def test_what_was_searched_for_is_exported(lasting_cast: Cast, browse: Browse) -> None:
    audit(lasting_cast)
    page = browse(lasting_cast.alice).open("/t/acme/audit")
    page.get_by_label("Action").fill("weftkit.instance.*")
    page.get_by_label("Outcome").select_option("failure")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**outcome=failure**")
    row = page.get_by_role("row").filter(has_text="weftkit.instance.delete")
    assert "instances/acme-shop" in row.inner_text()
    assert page.get_by_text("weftkit.instance.create").count() == 0
    with page.expect_download() as started:
        page.get_by_role("link", name="CSV").click()
    with Path(started.value.path()).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(line["action"], line["sequence"]) for line in rows] == [
        ("weftkit.instance.delete", "3")
    ]
    with page.expect_download() as started:
        page.get_by_role("link", name="JSON Lines").click()
    assert started.value.suggested_filename.endswith(".jsonl.gz")
    (line,) = gzip.decompress(Path(started.value.path()).read_bytes()).splitlines()
    assert json.loads(line)["outcome"] == "failure"

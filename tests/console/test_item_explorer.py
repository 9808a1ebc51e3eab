"""The item explorer of a keyvalue instance, in a browser, beside a client of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from playwright.sync_api import Page, expect

from tests.console.browser import HEIGHT, Person, axe_violations, overflow_px
from tests.console.test_end_to_end import create_credential, create_instance
from tests.stack import Stack

READY_MS = 60_000


@pytest.fixture
def client(stack: Stack) -> Iterator[Any]:
    """A client of demo's instance, which has no table before and after."""
    row = stack.connection("demo", "keyvalue")
    made: Any = botocore.session.Session().create_client(
        "dynamodb", region_name="us-east-1", endpoint_url=row.uri,
        aws_access_key_id=row.user, aws_secret_access_key=row.password,
    )  # fmt: skip
    _without_tables(made)
    yield made
    _without_tables(made)
    made.close()


def _without_tables(client: Any) -> None:
    for name in client.list_tables()["TableNames"]:
        client.delete_table(TableName=name)
        client.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig={"Delay": 1})


def _make_orders(client: Any, count: int) -> None:
    client.create_table(
        TableName="orders",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "buyer", "AttributeType": "S"},
            {"AttributeName": "at", "AttributeType": "N"},
        ],
        KeySchema=[
            {"AttributeName": "buyer", "KeyType": "HASH"},
            {"AttributeName": "at", "KeyType": "RANGE"},
        ],
    )
    client.get_waiter("table_exists").wait(TableName="orders", WaiterConfig={"Delay": 1})
    for at in range(count):
        item = {
            "buyer": {"S": "ann" if at < count - 1 else "bob"},
            "at": {"N": str(at)},
            "state": {"S": "open" if at % 2 else "paid"},
            "seal": {"B": b"\x00\xff"},
        }
        client.put_item(TableName="orders", Item=item)


def _data_page(owner: Person, stack: Stack) -> Page:
    page = owner.open(f"/t/demo/instances/{stack.connection('demo', 'keyvalue').instance}")
    page.get_by_role("link", name="Data", exact=True).click()
    page.wait_for_url("**/data")
    return page


def _settled(page: Page) -> None:
    expect(page.locator(".htmx-swapping, .htmx-settling, .htmx-request")).to_have_count(0)


def _press(page: Page, name: str) -> None:
    """Press a button and wait until its answer stands on the page."""
    with page.expect_response("**/data"):
        page.get_by_role("button", name=name, exact=True).click()
    _settled(page)


def _save(page: Page, item: object) -> None:
    text = item if isinstance(item, str) else json.dumps(item)
    page.locator("#item-json").fill(text)
    _press(page, "Save")


def test_an_instance_without_tables_says_how_to_make_one(
    owner: Person, stack: Stack, client: Any
) -> None:
    page = _data_page(owner, stack)
    expect(page.locator("#tables")).to_contain_text("No tables yet", timeout=READY_MS)
    assert axe_violations(page) == []


def test_items_are_scanned_queried_and_paged(owner: Person, stack: Stack, client: Any) -> None:
    _make_orders(client, 62)
    page = _data_page(owner, stack)
    items = page.locator("#items")
    rows = items.locator("tbody tr")
    expect(rows).to_have_count(50, timeout=READY_MS)
    expect(items).to_contain_text("50 of 50 read match;")
    _press(page, "Further items")
    expect(rows).to_have_count(12)
    _press(page, "From the beginning")
    expect(rows).to_have_count(50)
    page.get_by_label("Partition key").fill("ann")
    page.get_by_text("Sort key, filter, order").click()
    page.get_by_label("Condition").select_option("between")
    page.get_by_label("Sort key value").fill("10")
    page.get_by_label("Upper bound").fill("15")
    page.get_by_label("Attribute", exact=True).fill("state")
    page.get_by_label("Filter value").fill("open")
    page.get_by_label("Order").select_option("descending")
    _press(page, "Search")
    expect(rows.locator("td:nth-child(2)")).to_have_text(["15", "13", "11"])
    expect(items).to_contain_text("3 of 6 read match; 0.5 read units.")
    for width, scheme in ((390, "dark"), (1440, "light")):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        assert axe_violations(page) == []
        assert overflow_px(page) == 0
    page.get_by_label("Sort key value").fill("not a number")
    owner.expected_statuses.add(422)
    _press(page, "Search")
    expect(items.get_by_role("alert")).to_contain_text("ValidationException")
    page.get_by_label("Partition key").fill("")
    _press(page, "Search")
    expect(items.get_by_role("alert")).to_contain_text("a scan has neither")


def test_an_item_is_made_changed_refused_and_deleted(
    owner: Person, stack: Stack, client: Any
) -> None:
    _make_orders(client, 2)
    page = _data_page(owner, stack)
    rows = page.locator("#items tbody tr")
    expect(rows).to_have_count(2, timeout=READY_MS)
    _press(page, "ann")
    text = page.locator("#item-json")
    shown = json.loads(text.input_value())
    assert shown == {
        "at": {"N": "0"}, "buyer": {"S": "ann"}, "seal": {"B": "AP8="}, "state": {"S": "paid"},
    }  # fmt: skip
    _save(page, {**shown, "state": {"S": "sent"}})
    expect(rows.first.or_(rows.last).filter(has_text="sent")).to_have_count(1)
    key = {"buyer": {"S": "ann"}, "at": {"N": "0"}}
    stored = client.get_item(TableName="orders", Key=key)["Item"]
    assert (stored["state"], stored["seal"]) == ({"S": "sent"}, {"B": b"\x00\xff"})
    owner.expected_statuses.add(422)
    alert = page.locator("#item-failure").get_by_role("alert")
    _save(page, "{ not json")
    expect(alert).to_contain_text("this is no JSON")
    expect(text).to_have_value("{ not json")
    _save(page, {**shown, "state": {"X": "what"}})
    expect(alert).to_contain_text("must contain exactly one of the supported datatypes")
    _save(page, {**shown, "at": {"S": "0"}})
    expect(alert).to_contain_text("ValidationException: ")
    expect(alert).to_contain_text("Type mismatch for key at expected: N actual: S")
    _save(page, {**shown, "at": {"N": "77"}})
    expect(alert).to_contain_text("The conditional request failed. A new item needs a key")
    assert client.get_item(TableName="orders", Key=key)["Item"] == stored
    assert axe_violations(page) == []
    _press(page, "New item")
    assert json.loads(text.input_value()) == {"buyer": {"S": ""}, "at": {"N": ""}}
    _save(page, {**key, "state": {"S": "lost"}})
    expect(alert).to_contain_text("ConditionalCheckFailedException")
    _save(page, {"buyer": {"S": "dan"}, "at": {"N": "1e2"}})
    expect(rows).to_have_count(3)
    assert json.loads(text.input_value()) == {"buyer": {"S": "dan"}, "at": {"N": "100"}}
    page.on("dialog", lambda dialog: dialog.accept())
    _press(page, "Delete the item")
    expect(page.locator("#item")).to_contain_text("The item is deleted.")
    expect(rows).to_have_count(2)
    gone = {"buyer": {"S": "dan"}, "at": {"N": "100"}}
    assert "Item" not in client.get_item(TableName="orders", Key=gone)


def test_the_keyboard_alone_finds_and_changes_an_item(
    owner: Person, stack: Stack, client: Any
) -> None:
    _make_orders(client, 3)
    page = _data_page(owner, stack)
    expect(page.locator("#items tbody tr")).to_have_count(3, timeout=READY_MS)
    page.get_by_label("Partition key").focus()
    page.keyboard.type("bob")
    with page.expect_response("**/data"):
        page.keyboard.press("Enter")
    expect(page.locator("#items tbody tr")).to_have_count(1)
    _settled(page)
    found = page.get_by_role("button", name="bob")
    for _ in range(10):
        page.keyboard.press("Tab")
        if found.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    text = page.locator("#item-json")
    expect(text).to_be_visible()
    for _ in range(10):
        page.keyboard.press("Tab")
        if text.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Control+A")
    page.keyboard.insert_text('{"buyer": {"S": "bob"}, "at": {"N": "2"}, "note": {"S": "hi"}}')
    page.keyboard.press("Tab")
    with page.expect_response("**/data"):
        page.keyboard.press("Enter")
    expect(page.locator("#items tbody tr")).to_contain_text("hi")


def test_a_new_instance_connects_with_the_key_that_its_page_shows(
    owner: Person, stack: Stack
) -> None:
    page = create_instance(owner, "shelf", "Key-value")
    create_credential(page, "demo-shelf")
    named = page.locator(".field > .strong")
    expect(named.first).to_have_text("Access key id")
    expect(named.nth(1)).to_have_text("Secret access key")
    username = str(page.locator("#access-key").text_content())
    secret = str(page.locator("#secret").text_content())
    snippet = str(page.locator("#snippet-aws-cli").text_content())
    assert (username in snippet, secret in snippet) == (True, True)
    page.get_by_role("tab", name="Python: boto3", exact=True).click()
    program = str(page.locator("#snippet-boto3").text_content())
    assert (username in program, secret in program) == (True, True)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert axe_violations(page) == []

"""A keyvalue instance in the console, without a data plane: who may change items, how refusals and
further pages come back, and that no page promises what this engine has not.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from django.test import Client

from engines.kit.records import Role
from tenants.accounts.models import MemberRole
from tenants.console.explorer import items
from tenants.console.explorer.items import ItemPage, Key, Search, TableNames, TableShown
from tenants.core.errors import InvalidError
from tenants.iam.policies import Subject, policy_create
from tenants.instances.credentials import credential_create
from tests.tenants.cast import Cast, join, person, serving_instance, signed_in

KEY = Key("", (("id", "S"), ("at", "N")))
BY_STATE = Key("by-state", (("state", "S"), ("seal", "B")))
TABLE = TableShown("orders", (KEY, BY_STATE), 1, 64, "ACTIVE")
ITEM = {"id": {"S": "<b>"}, "at": {"N": "1"}, "seal": {"B": b"\x00\xff"}}
BASE = "/t/acme/instances/acme-kv"


class Shelf:
    """A client of one item, which notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.refusal: Exception | None = None

    def tables(self, start: str) -> TableNames:
        return TableNames([] if start == "last" else ["orders"], "" if start else "orders")

    def table(self, name: str) -> TableShown:
        return TABLE

    def search(self, table: TableShown, wanted: Search) -> ItemPage:
        self.asked.append(wanted)
        return ItemPage([ITEM], {"id": {"S": "<b>"}, "at": {"N": "1"}}, 7, 0.5, KEY)

    def item(self, table: str, key: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(key)
        return ITEM

    def put(self, table: TableShown, item: Mapping[str, Any], *, is_new: bool) -> None:
        self.asked.append((item, is_new))
        if self.refusal is not None:
            raise self.refusal

    def delete(self, table: str, key: Mapping[str, Any]) -> None:
        self.asked.append(key)


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def shelf(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """What stands behind `acme-kv`."""
    found = Shelf()

    @contextlib.contextmanager
    def lent(access: object) -> Iterator[Shelf]:
        yield found

    monkeypatch.setattr(items, "connected", lent)
    serving_instance(cast.acme, "kv", engine="keyvalue")
    return found


@pytest.fixture
def reader(cast: Cast) -> Client:
    """Somebody who may read data and change none."""
    membership = join(cast.acme, erin := person("erin"), MemberRole.READ_ONLY)
    subject = Subject(membership=membership)
    policy_create(actor=cast.owner, subject=subject, roles=["Reader"])
    return signed_in(erin)


def data(client: Client, do: str, **fields: str) -> Any:
    """Ask the explorer for one of its deeds, as HTMX does."""
    given = {"do": do, "table": "orders", **fields}
    return client.post(f"{BASE}/data", given, headers={"HX-Request": "true"})


def packed(key: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def test_who_only_reads_sees_items_and_no_button_that_changes_one(
    cast: Cast, shelf: Shelf, reader: Client
) -> None:
    key = packed({"id": {"S": "<b>"}, "at": {"N": "1"}})
    assert b"New item" not in data(reader, "table").content
    page = data(reader, "show", key=key).content.decode()
    assert "<form" not in page
    assert "&quot;seal&quot;: {\n    &quot;B&quot;: &quot;AP8=&quot;" in page
    shelf.asked.clear()
    for do in ("new", "put", "delete"):
        assert data(reader, do, key=key, item="{}").status_code == 403
    assert shelf.asked == []
    writer = signed_in(cast.alice)
    assert b"New item" in data(writer, "table").content
    assert b"Delete the item" in data(writer, "show", key=key).content


def test_further_items_are_asked_for_with_the_search_they_belong_to(
    cast: Cast, shelf: Shelf
) -> None:
    fields = {"partition": "a&b", "sort_test": ">", "sort": "3", "order": "descending"}
    page = data(signed_in(cast.alice), "search", **fields).content.decode()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "1 of 7 read match; 0.5 read units." in page
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    (start,) = re.findall(r'"start": "([^"]+)"', page)
    hidden["partition"] = hidden["partition"].replace("&amp;", "&")
    hidden["sort_test"] = hidden["sort_test"].replace("&gt;", ">")
    second = data(signed_in(cast.alice), **{**hidden, "start": start}).content.decode()
    assert "From the beginning" in second
    first, then = shelf.asked
    assert first.start is None
    assert then.start == {"id": {"S": "<b>"}, "at": {"N": "1"}}
    assert (then.partition, then.sort_test, then.sort, then.is_descending) == (
        "a&b", ">", "3", True,
    )  # fmt: skip


def test_a_refused_item_is_said_beside_what_was_written(cast: Cast, shelf: Shelf) -> None:
    client = signed_in(cast.alice)
    for text in ("{ not json", "[1]", '{"id": NaN}', "[" * 5000):
        answer = data(client, "put", item=text)
        assert (answer.status_code, answer.headers["HX-Retarget"]) == (422, "#item-failure")
    assert shelf.asked == []
    said = {"Code": "ConditionalCheckFailedException", "Message": "The conditional request failed"}
    shelf.refusal = ClientError({"Error": said}, "PutItem")
    answer = data(client, "put", item='{"id": {"S": "x"}}', is_new="1")
    assert answer.headers["HX-Retarget"] == "#item-failure"
    assert "The conditional request failed. A new item needs a key" in answer.content.decode()
    assert shelf.asked == [({"id": {"S": "x"}}, True)]


def test_a_saved_item_is_shown_as_it_is_now_and_the_list_read_again(
    cast: Cast, shelf: Shelf
) -> None:
    written = {"id": {"S": "x"}, "at": {"N": "1"}, "seal": {"B": "AP8="}}
    answer = data(signed_in(cast.alice), "put", item=json.dumps(written))
    assert json.loads(answer.headers["HX-Trigger"]) == {
        "toast": {"text": "Saved", "level": "success"}, "items-changed": True,
    }  # fmt: skip
    assert shelf.asked == [(written, False), {"id": {"S": "x"}, "at": {"N": "1"}}]
    answer = data(signed_in(cast.alice), "delete", key=packed({"id": {"B": "AP8="}}))
    assert "items-changed" in answer.headers["HX-Trigger"]
    assert shelf.asked[-1] == {"id": {"B": b"\x00\xff"}}
    assert data(signed_in(cast.alice), "show", key="nonsense").status_code == 422


def test_tables_go_on_page_by_page(cast: Cast, shelf: Shelf) -> None:
    client = signed_in(cast.alice)
    first = data(client, "tables").content.decode()
    assert ("Further tables" in first, "First tables" in first) == (True, False)
    second = data(client, "tables", start="orders").content.decode()
    assert ("Further tables" in second, "First tables" in second) == (False, True)
    assert "No tables yet" in data(client, "tables", start="last").content.decode()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Search("orders", sort="1"), "a scan has neither"),
        (Search("orders", is_descending=True), "a scan has neither"),
        (Search("orders", partition="a", sort="1", sort_test="~"), "none of ours"),
        (Search("orders", filter_name="x", filter_type="BOOL", filter_value="1"), "true or false"),
        (Search("orders", index="by-state", partition="a", sort="?"), "base64"),
    ],
)
def test_a_search_that_means_nothing_is_refused_before_it_is_sent(
    wanted: Search, words: str
) -> None:
    key = BY_STATE if wanted.index else KEY
    with pytest.raises(InvalidError, match=words):
        items._request(key, wanted)


def test_a_search_of_an_index_is_a_query_with_typed_values() -> None:
    wanted = Search(
        "orders", index="by-state", partition="open", sort="AP8=", sort_test="between",
        sort_end="/w==", filter_name="n", filter_test=">", filter_type="N", filter_value=" 5 ",
        is_descending=True,
    )  # fmt: skip
    request = items._request(BY_STATE, wanted)
    assert request["KeyConditionExpression"] == "#p = :p AND #s BETWEEN :s AND :t"
    assert request["FilterExpression"] == "#f > :f"
    assert request["ExpressionAttributeNames"] == {"#p": "state", "#s": "seal", "#f": "n"}
    assert request["ExpressionAttributeValues"] == {
        ":p": {"S": "open"}, ":s": {"B": b"\x00\xff"}, ":t": {"B": b"\xff"}, ":f": {"N": "5"},
    }  # fmt: skip
    assert (request["IndexName"], request["ScanIndexForward"]) == ("by-state", False)


def test_a_key_is_called_what_the_clients_call_it(cast: Cast) -> None:
    instance = serving_instance(cast.acme, "kv", engine="keyvalue")
    client = signed_in(cast.alice)
    assert b"an access key id and a secret access key" in client.get(f"{BASE}/credentials").content
    page = client.post(f"{BASE}/credentials", {"role": "write"}).content.decode()
    (made,) = instance.credentials.all()
    (secret,) = re.findall(r'<pre id="secret"[^>]*>([A-Za-z0-9+/]{40})</pre>', page)
    assert re.findall(r'<pre id="access-key"[^>]*>(\w+)</pre>', page) == [made.username]
    assert "Connection string" not in page
    assert f"aws_secret_access_key=&quot;{secret}&quot;" in page
    page = client.get(BASE).content.decode()
    assert secret not in page
    assert "Put the secret access key where <code>PASSWORD</code> stands." in page
    assert f"{BASE}/data" in page


def test_no_page_speaks_of_a_server_that_is_not_there(cast: Cast) -> None:
    instance = serving_instance(cast.acme, "kv", engine="keyvalue")
    credential_create(instance=instance, actor="test", role=Role.READ)
    client = signed_in(cast.alice)
    metrics = client.get(f"{BASE}/metrics").content.decode()
    assert "Memory" not in metrics
    assert "Storage" in metrics
    settings_page = client.get(f"{BASE}/settings").content.decode()
    assert "Suspend: clients are refused. Data stay." in settings_page
    serving_instance(cast.acme, "cache", engine="inmemory")
    assert b"Memory" in client.get("/t/acme/instances/acme-cache/metrics").content

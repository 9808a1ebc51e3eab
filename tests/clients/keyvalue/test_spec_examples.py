"""Every example of the specification's WeftKitKV section, with boto3.

They run twice: with a key of the whole stack, and word for word with the keys "any" against a data
plane that has `[keyvalue] anonymous = true`.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import boto3
import pytest
from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError

from tests.admin import Admin
from tests.clients.keyvalue.stack_clients import (
    SESSIONS,
    client_of,
    keys_of,
    make_table,
    new_instance,
)
from tests.dataplane.keyvalue_plane import access_key
from tests.dataplane.keyvalue_plane import new_instance as new_record
from tests.dataplane.plane import Plane
from tests.stack import Connection

pytestmark = pytest.mark.stack

ORDERS: dict[str, Any] = {
    "AttributeDefinitions": [
        {"AttributeName": "customerId", "AttributeType": "N"},
        {"AttributeName": "orderId", "AttributeType": "S"},
    ],
    "KeySchema": [
        {"AttributeName": "customerId", "KeyType": "HASH"},
        {"AttributeName": "orderId", "KeyType": "RANGE"},
    ],
    "BillingMode": "PAY_PER_REQUEST",
}
THREADS = 8
INCREMENTS = 8


@pytest.fixture(scope="module")
def known(admin: Admin) -> Connection:
    """An instance of this module's own, with a real key."""
    return new_instance(admin)


@pytest.fixture(scope="module")
def anybody(plane: Plane) -> Connection:
    """The default instance of `default`, with keys that are nobody's."""
    record = new_record(plane, access_key(), tenant="default", is_default=True)
    asyncio.run(plane.know(record))
    return Connection(
        "default", "keyvalue", "default-keyvalue", "", "localhost", plane.port, "any", "any"
    )


@pytest.fixture(scope="module", params=["known", "anybody"])
def row(request: pytest.FixtureRequest) -> Connection:
    """Each of the two ways in."""
    found: Connection = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def client(row: Connection) -> Any:
    """The client that the specification makes, and the two tables that its examples use."""
    made = boto3.client("dynamodb", region_name="us-east-1", **keys_of(row))
    make_table(made, "sessions", SESSIONS)
    make_table(made, "orders", ORDERS)
    return made


def session(name: str) -> dict[str, Any]:
    return {"sessionId": {"S": name}}


def test_put_get_and_delete_an_item(client: Any) -> None:
    item = {
        "sessionId": {"S": "abc123"},
        "userId": {"N": "42"},
        "data": {"S": '{"theme":"dark"}'},
        "ttl": {"N": str(int(time.time()) + 3600)},
    }
    client.put_item(TableName="sessions", Item=item)
    response = client.get_item(TableName="sessions", Key=session("abc123"))
    assert response.get("Item") == item
    client.delete_item(TableName="sessions", Key=session("abc123"))
    response = client.get_item(TableName="sessions", Key=session("abc123"))
    assert response.get("Item") is None


def test_query_by_partition_key(client: Any) -> None:
    for customer, order in (("42", "b"), ("42", "a"), ("43", "a"), ("420", "a")):
        item = {"customerId": {"N": customer}, "orderId": {"S": order}}
        client.put_item(TableName="orders", Item=item)
    response = client.query(
        TableName="orders",
        KeyConditionExpression="customerId = :cid",
        ExpressionAttributeValues={":cid": {"N": "42"}},
    )
    assert response["Items"] == [
        {"customerId": {"N": "42"}, "orderId": {"S": order}} for order in ("a", "b")
    ]
    assert (response["Count"], response["ScannedCount"]) == (2, 2)


def test_batch_write_and_batch_get(client: Any) -> None:
    client.put_item(TableName="sessions", Item=session("old123"))
    x1 = {**session("x1"), "data": {"S": "{}"}}
    written = client.batch_write_item(
        RequestItems={
            "sessions": [
                {"PutRequest": {"Item": x1}},
                {"DeleteRequest": {"Key": session("old123")}},
            ]
        }
    )
    assert written["UnprocessedItems"] == {}
    response = client.batch_get_item(
        RequestItems={"sessions": {"Keys": [session("x1"), session("x2"), session("old123")]}}
    )
    assert response["Responses"] == {"sessions": [x1]}
    assert response["UnprocessedKeys"] == {}


def test_a_batch_takes_25_writes_and_100_keys_and_no_more(client: Any) -> None:
    names = [f"many{number:03}" for number in range(101)]
    puts = [{"PutRequest": {"Item": session(name)}} for name in names]
    for first in range(0, 100, 25):
        client.batch_write_item(RequestItems={"sessions": puts[first : first + 25]})
    keys = [session(name) for name in names]
    response = client.batch_get_item(RequestItems={"sessions": {"Keys": keys[:100]}})
    found = {item["sessionId"]["S"] for item in response["Responses"]["sessions"]}
    assert found == set(names[:100])
    with pytest.raises(ClientError, match="less than or equal to 25"):
        client.batch_write_item(RequestItems={"sessions": puts[:26]})
    with pytest.raises(ClientError, match="less than or equal to 100"):
        client.batch_get_item(RequestItems={"sessions": {"Keys": keys}})


def test_time_to_live_is_enabled(client: Any) -> None:
    make_table(client, "expiring", SESSIONS)
    specification = {"Enabled": True, "AttributeName": "ttl"}
    response = client.update_time_to_live(
        TableName="expiring", TimeToLiveSpecification=specification
    )
    assert response["TimeToLiveSpecification"] == specification
    described = client.describe_time_to_live(TableName="expiring")["TimeToLiveDescription"]
    assert described["AttributeName"] == "ttl"
    assert described["TimeToLiveStatus"] in ("ENABLING", "ENABLED")
    client.delete_table(TableName="expiring")
    client.get_waiter("table_not_exists").wait(TableName="expiring")


def test_the_resource_writes_and_reads_python_values(row: Connection, client: Any) -> None:
    tables = boto3.resource("dynamodb", region_name="us-east-1", **keys_of(row))
    table = tables.create_table(TableName="resourceful", **ORDERS)
    table.wait_until_exists()
    item = {
        "customerId": Decimal(42), "orderId": "a", "price": Decimal("19.99"), "paid": True,
        "tags": {"x", "y"}, "sizes": {Decimal(1), Decimal("2.5")}, "lines": [{"n": Decimal(1)}],
        "note": None,
    }  # fmt: skip
    with table.batch_writer() as batch:
        batch.put_item(Item=item)
        for number in range(60):
            batch.put_item(Item={"customerId": 7, "orderId": f"{number:02}", "n": number})
    assert table.get_item(Key={"customerId": 42, "orderId": "a"})["Item"] == item
    found = table.query(
        KeyConditionExpression=Key("customerId").eq(7) & Key("orderId").between("10", "19"),
        FilterExpression=Attr("n").gte(15),
    )
    assert [int(each["n"]) for each in found["Items"]] == [15, 16, 17, 18, 19]
    changed = table.update_item(
        Key={"customerId": 42, "orderId": "a"},
        UpdateExpression="SET price = price + :more REMOVE note",
        ConditionExpression=Attr("paid").eq(True),
        ExpressionAttributeValues={":more": Decimal("0.01")},
        ReturnValues="UPDATED_NEW",
    )
    assert changed["Attributes"] == {"price": Decimal(20)}
    assert "resourceful" in {each.name for each in tables.tables.all()}
    table.delete()
    table.wait_until_not_exists()


def test_paginators_see_every_table_and_every_item_once(client: Any) -> None:
    names = [f"page{number}" for number in range(5)]
    for name in names:
        make_table(client, name, ORDERS)
    pages = client.get_paginator("list_tables").paginate(PaginationConfig={"PageSize": 2})
    listed = [name for page in pages for name in page["TableNames"]]
    assert set(names) <= set(listed)
    assert listed == sorted(set(listed))
    for number in range(30):
        item = {"customerId": {"N": str(number % 3)}, "orderId": {"S": f"{number:02}"}}
        client.put_item(TableName="page0", Item=item)
    query = client.get_paginator("query").paginate(
        TableName="page0",
        KeyConditionExpression="customerId = :cid",
        ExpressionAttributeValues={":cid": {"N": "1"}},
        PaginationConfig={"PageSize": 3},
    )
    queried = [page["Items"] for page in query]
    assert max(map(len, queried)) == 3
    assert [item["orderId"]["S"] for page in queried for item in page] == [
        f"{number:02}" for number in range(1, 30, 3)
    ]
    scan = client.get_paginator("scan").paginate(
        TableName="page0", PaginationConfig={"PageSize": 7}
    )
    scanned = [item["orderId"]["S"] for page in scan for item in page["Items"]]
    assert sorted(scanned) == [f"{number:02}" for number in range(30)]
    for name in names:
        client.delete_table(TableName=name)
        client.get_waiter("table_not_exists").wait(TableName=name)
    assert not set(names) & set(client.list_tables()["TableNames"])


def test_eight_threads_of_conditional_writes_stay_exact(row: Connection, client: Any) -> None:
    client.put_item(TableName="sessions", Item={**session("counter"), "n": {"N": "0"}})
    clients = [client_of(row, attempts=3) for _ in range(THREADS)]

    def count(own: Any) -> int:
        """Read, then write one more if nobody else has; return how often somebody had."""
        lost = done = 0
        while done < INCREMENTS:
            got = own.get_item(TableName="sessions", Key=session("counter"), ConsistentRead=True)
            seen = got["Item"]["n"]
            try:
                own.put_item(
                    TableName="sessions",
                    Item={**session("counter"), "n": {"N": str(int(seen["N"]) + 1)}},
                    ConditionExpression="n = :seen",
                    ExpressionAttributeValues={":seen": seen},
                )
            except own.exceptions.ConditionalCheckFailedException:
                lost += 1
            else:
                done += 1
        return lost

    with ThreadPoolExecutor(THREADS) as pool:
        lost = sum(pool.map(count, clients))
    item = client.get_item(TableName="sessions", Key=session("counter"))["Item"]
    assert item["n"] == {"N": str(THREADS * INCREMENTS)}
    # They did meet.
    assert lost > 0

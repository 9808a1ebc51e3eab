"""boto3 with a credential whose owner's policies name tables; they change while it is connected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from engines.kit.records import Credential, ScopedGrant
from tests.clients.keyvalue.clients import Clients
from tests.servers import wait_until

SCHEMA: dict[str, Any] = {
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
ITEM = {"id": {"S": "x"}}
WRITER = ScopedGrant(("Writer",), (), "table", "orders-*", is_pattern=True)
READER = ScopedGrant(("Reader",), (), "table", "orders-*", is_pattern=True)


def published(kv: Clients, *grants: ScopedGrant) -> None:
    """Publish the instance with other grants for its only credential."""
    credential: Credential = replace(kv.record.credentials[0], grants=grants)
    kv.record = replace(kv.record, credentials=(credential,), version=kv.record.version + 1)
    kv.plane.database.publish(kv.record)


def is_denied(ask: Callable[[], Any]) -> bool:
    try:
        ask()
    except ClientError as error:
        return bool(error.response["Error"]["Code"] == "AccessDeniedException")
    return False


def test_a_policy_that_changes_holds_at_once_for_connections_that_are_open(kv: Clients) -> None:
    for name in ("orders-eu", "carts"):
        kv.client.create_table(TableName=name, **SCHEMA)
        kv.client.get_waiter("table_exists").wait(TableName=name)
    published(kv, WRITER)

    def put(table: str) -> Any:
        return kv.client.put_item(TableName=table, Item=ITEM)

    wait_until(lambda: is_denied(lambda: put("carts")), "the new grants hold")
    put("orders-eu")
    with pytest.raises(ClientError, match=r"not authorized to perform: dynamodb:ListTables"):
        kv.client.list_tables()
    published(kv, READER)
    wait_until(lambda: is_denied(lambda: put("orders-eu")), "writing is refused")
    found = kv.client.get_item(TableName="orders-eu", Key=ITEM)
    assert found["Item"] == ITEM
    published(kv, WRITER)
    wait_until(lambda: not is_denied(lambda: put("orders-eu")), "writing is allowed again")
    # Nothing was written there while it was refused.
    assert is_denied(lambda: kv.client.scan(TableName="carts"))

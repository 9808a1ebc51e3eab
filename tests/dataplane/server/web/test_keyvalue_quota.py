"""Over the storage quota keyvalue refuses what grows, and nothing else; a larger plan lifts it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engines.kit.records import InstanceRecord, Limits
from tests.dataplane.keyvalue_plane import Signer, access_key, keyvalue_plane, new_instance
from tests.dataplane.plane import Plane, until
from tests.dataplane.server.web.http_client import Answer, RawClient
from tests.servers import PostgresServer, RedisServer, temporary_home

QUOTA_BYTES = 1_000_000
REFUSAL = (
    "storage quota exceeded: only requests that do not grow the data are accepted. "
    "Delete data, or choose a plan with more storage."
)
TABLE = {
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
KEY = {"id": {"S": "x"}}
PUT = {"TableName": "kept", "Item": KEY}
INDEX = {
    "IndexName": "again",
    "KeySchema": TABLE["KeySchema"],
    "Projection": {"ProjectionType": "ALL"},
}
GROWING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("PutItem", PUT),
    ("UpdateItem", {"TableName": "kept", "Key": KEY}),
    ("BatchWriteItem", {"RequestItems": {"kept": [{"PutRequest": {"Item": KEY}}]}}),
    ("TransactWriteItems", {"TransactItems": [{"Put": PUT}]}),
    ("ExecuteStatement", {"Statement": "INSERT INTO kept VALUE {'id': 'y'}"}),
    ("CreateTable", {"TableName": "another", **TABLE}),
    (
        "UpdateTable",
        {
            "TableName": "kept",
            "AttributeDefinitions": TABLE["AttributeDefinitions"],
            "GlobalSecondaryIndexUpdates": [{"Create": INDEX}],
        },
    ),
    ("CreateBackup", {"TableName": "kept", "BackupName": "copy"}),
)
GOES_ON: tuple[tuple[str, dict[str, Any]], ...] = (
    ("GetItem", {"TableName": "kept", "Key": KEY}),
    ("Scan", {"TableName": "kept"}),
    ("DeleteItem", {"TableName": "kept", "Key": KEY}),
    ("BatchWriteItem", {"RequestItems": {"kept": [{"DeleteRequest": {"Key": KEY}}]}}),
    ("TransactWriteItems", {"TransactItems": [{"Delete": {"TableName": "kept", "Key": KEY}}]}),
    ("ExecuteStatement", {"Statement": "DELETE FROM kept WHERE id = 'x'"}),
    ("DeleteTable", {"TableName": "doomed"}),
)


@pytest.fixture(scope="module")
def served(postgres: PostgresServer, redis: RedisServer) -> Iterator[Plane]:
    with temporary_home("wkd") as home, keyvalue_plane(home, postgres, redis, "kv_quota") as plane:
        yield plane


def with_limits(record: InstanceRecord, limits: Limits) -> InstanceRecord:
    return dataclasses.replace(record, limits=limits)


async def test_what_grows_is_refused_over_the_quota_and_lifted_by_a_larger_plan(
    served: Plane,
) -> None:
    served.begin_test()
    credential = access_key()
    limits = Limits(storage_bytes=QUOTA_BYTES)
    record = await served.know(new_instance(served, credential, limits=limits))
    signer = Signer.of(credential)
    client = await RawClient.open(served)

    async def ask(operation: str, fields: dict[str, Any]) -> Answer:
        return await client.ask(signer.request(operation, fields))

    for name in ("kept", "doomed"):
        assert (await ask("CreateTable", {"TableName": name, **TABLE})).status == 200
    served.database.observe(record, QUOTA_BYTES + 1)
    deadline = time.monotonic() + 10
    while (answer := await ask("PutItem", PUT)).status == 200:
        assert time.monotonic() < deadline, "growth is not refused"
    for operation, fields in GROWING:
        answer = await ask(operation, fields)
        assert answer.status == 400, (operation, answer.json)
        assert answer.json["__type"].endswith("#LimitExceededException"), operation
        assert answer.json["message"] == REFUSAL, operation
    for operation, fields in GOES_ON:
        answer = await ask(operation, fields)
        assert answer.status == 200, (operation, answer.json)
    await until(
        lambda: served.database.usage(record)["refused"] >= len(GROWING), "refusals are metered"
    )
    began = time.monotonic()
    served.database.publish(with_limits(record, Limits()))
    while (await ask("PutItem", PUT)).status != 200:
        assert time.monotonic() < began + 1, "a larger plan lifts it within a second"
    for operation, fields in GROWING:
        answer = await ask(operation, fields)
        assert answer.status == 200, (operation, answer.json)
    await client.close()
    await served.close_parts()

"""A credential whose grants name some tables reaches these, and no other by any operation.

`REQUESTS` has every operation that names a table; one that comes must be added, or the test fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.session.elsewhere import OPERATIONS_ELSEWHERE
from engines.keyvalue.session.service import OPERATIONS
from engines.kit.ports import Candidate, Grant
from engines.kit.records import Role, ScopedGrant
from tests.engines.keyvalue.made_tables import refused
from tests.engines.keyvalue.rig import Rig, running
from tests.servers import PostgresServer

MINE, THEIRS = "orders-eu", "carts"
KEY = {"a": {"S": "x"}}
# Of the instance, not of a table; the last says where the client is already.
OF_THE_INSTANCE = {"ListTables", "DescribeLimits", "DescribeEndpoints"}


@dataclass(frozen=True, slots=True)
class Known:
    """What an owner knows of a table, and somebody else may have got hold of."""

    name: str
    arn: str
    stream: str
    iterator: str
    backup: str


def statement(known: Known) -> dict[str, Any]:
    return {"Statement": f"SELECT * FROM \"{known.name}\" WHERE a = 'x'"}


REQUESTS: Mapping[str, Callable[[Known], dict[str, Any]]] = {
    "BatchExecuteStatement": lambda t: {"Statements": [statement(t)]},
    "BatchGetItem": lambda t: {"RequestItems": {t.name: {"Keys": [KEY]}}},
    "BatchWriteItem": lambda t: {"RequestItems": {t.name: [{"PutRequest": {"Item": KEY}}]}},
    "CreateBackup": lambda t: {"TableName": t.name, "BackupName": "again"},
    "CreateTable": lambda t: new_table(f"{t.name}-x"),
    "DeleteItem": lambda t: {"TableName": t.name, "Key": KEY},
    "DescribeBackup": lambda t: {"BackupArn": t.backup},
    "DescribeStream": lambda t: {"StreamArn": t.stream},
    "DescribeTable": lambda t: {"TableName": t.name},
    "DescribeTimeToLive": lambda t: {"TableName": t.name},
    "ExecuteStatement": statement,
    "ExecuteTransaction": lambda t: {"TransactStatements": [statement(t)]},
    "GetItem": lambda t: {"TableName": t.name, "Key": KEY},
    "GetRecords": lambda t: {"ShardIterator": t.iterator},
    "GetShardIterator": lambda t: {
        "StreamArn": t.stream,
        "ShardId": "shardId-00000000000000000000-00000000",
        "ShardIteratorType": "TRIM_HORIZON",
    },
    "ListBackups": lambda t: {"TableName": t.name},
    "ListStreams": lambda t: {"TableName": t.name},
    "ListTagsOfResource": lambda t: {"ResourceArn": t.arn},
    "PutItem": lambda t: {"TableName": t.name, "Item": KEY},
    "Query": lambda t: {
        "TableName": t.name,
        "KeyConditionExpression": "a = :a",
        "ExpressionAttributeValues": {":a": {"S": "x"}},
    },
    "RestoreTableFromBackup": lambda t: {
        "TargetTableName": f"{MINE}-back",
        "BackupArn": t.backup,
    },
    "Scan": lambda t: {"TableName": t.name},
    "TagResource": lambda t: {"ResourceArn": t.arn, "Tags": [{"Key": "k", "Value": "v"}]},
    "TransactGetItems": lambda t: {
        "TransactItems": [{"Get": {"TableName": t.name, "Key": KEY}}],
    },
    "TransactWriteItems": lambda t: {
        "TransactItems": [{"Put": {"TableName": t.name, "Item": KEY}}],
    },
    "UntagResource": lambda t: {"ResourceArn": t.arn, "TagKeys": ["k"]},
    "UpdateItem": lambda t: {"TableName": t.name, "Key": KEY},
    "UpdateTable": lambda t: {"TableName": t.name, "DeletionProtectionEnabled": False},
    "UpdateTimeToLive": lambda t: {
        "TableName": t.name,
        "TimeToLiveSpecification": {"AttributeName": "e", "Enabled": True},
    },
    # The last ones: what they are asked about is gone then.
    "DeleteBackup": lambda t: {"BackupArn": t.backup},
    "DeleteTable": lambda t: {"TableName": t.name},
}


def new_table(name: str) -> dict[str, Any]:
    return {
        "TableName": name,
        "KeySchema": [{"AttributeName": "a", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "a", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    }


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_rights")


@pytest_asyncio.fixture
async def rig(dsn: str) -> AsyncIterator[Rig]:
    async with running(dsn) as rigs:
        yield rigs[0]


async def made(rig: Rig, name: str) -> Known:
    """Make a table with an item, a stream and a backup; whoever holds the rig may do so."""
    shown = (await rig.perform("CreateTable", **new_table(name)))["TableDescription"]
    await rig.perform("PutItem", TableName=name, Item=KEY)
    backup = await rig.perform("CreateBackup", TableName=name, BackupName="first")
    for task in list(rig.tasks.values()):
        await task
    stream = shown["LatestStreamArn"]
    shards = await rig.perform("DescribeStream", StreamArn=stream)
    found = await rig.perform(
        "GetShardIterator",
        StreamArn=stream,
        ShardId=shards["StreamDescription"]["Shards"][0]["ShardId"],
        ShardIteratorType="TRIM_HORIZON",
    )
    return Known(
        name,
        shown["TableArn"],
        stream,
        found["ShardIterator"],
        backup["BackupDetails"]["BackupArn"],
    )


def held(rig: Rig, *grants: ScopedGrant, role: Role = Role.ADMIN) -> None:
    """Have the rig's client hold these grants from now on."""
    credential = replace(rig.record.credentials[0], role=role, grants=grants)
    rig.grant_ = Grant(Candidate(rig.record, credential, is_mock=False), rig.gate)


ORDERS = ScopedGrant(("Manager",), (), "table", "orders-*", is_pattern=True)


def test_every_operation_that_names_a_table_is_asked() -> None:
    asked = REQUESTS.keys() | OF_THE_INSTANCE | OPERATIONS_ELSEWHERE.keys()
    assert OPERATIONS.keys() <= asked


async def test_no_operation_reaches_a_table_that_no_grant_names(rig: Rig) -> None:
    theirs = await made(rig, THEIRS)
    held(rig, ORDERS)
    for name in REQUESTS.keys() & OPERATIONS.keys() - {"BatchExecuteStatement"}:
        error = await refused(rig, name, **REQUESTS[name](theirs))
        assert error.code == "AccessDeniedException", name
        assert theirs.name in error.message, name
        # In the same words whether it is there or not.
        gone = replace(theirs, name="ghost", arn=theirs.arn.replace(THEIRS, "ghost"))
        if name in ("GetItem", "DescribeTable", "ListTagsOfResource"):
            absent = await refused(rig, name, **REQUESTS[name](gone))
            assert absent.message == error.message.replace(THEIRS, "ghost")
    batch = await rig.perform("BatchExecuteStatement", **REQUESTS["BatchExecuteStatement"](theirs))
    assert [each["Error"]["Code"] for each in batch["Responses"]] == ["AccessDenied"]
    for name in ("ListTables", "DescribeLimits"):
        assert (await refused(rig, name)).code == "AccessDeniedException", name


async def test_every_operation_reaches_a_table_that_a_pattern_names(rig: Rig) -> None:
    mine = await made(rig, MINE)
    held(rig, ORDERS)
    for name, request in REQUESTS.items():
        if name in OPERATIONS:
            try:
                await rig.perform(name, **request(mine))
            except DynamoError as error:
                assert error.code != "AccessDeniedException", (name, error.message)


async def test_what_names_two_tables_needs_both(rig: Rig) -> None:
    mine, theirs = await made(rig, MINE), await made(rig, THEIRS)
    held(rig, ORDERS)
    put = {"Put": {"TableName": mine.name, "Item": {"a": {"S": "new"}}}}
    check = {
        "ConditionCheck": {
            "TableName": theirs.name,
            "Key": KEY,
            "ConditionExpression": "attribute_exists(a)",
        }
    }
    requests: list[tuple[str, dict[str, Any]]] = [
        ("TransactWriteItems", {"TransactItems": [put, check]}),
        (
            "BatchGetItem",
            {"RequestItems": {mine.name: {"Keys": [KEY]}, theirs.name: {"Keys": [KEY]}}},
        ),
        (
            "RestoreTableFromBackup",
            {"TargetTableName": f"{THEIRS}-back", "BackupArn": mine.backup},
        ),
    ]
    for name, fields in requests:
        assert (await refused(rig, name, **fields)).code == "AccessDeniedException", name
    found = await rig.perform("GetItem", TableName=mine.name, Key={"a": {"S": "new"}})
    assert found == {}


async def test_a_reader_of_some_tables_who_writes_others_does_not_write_the_first(rig: Rig) -> None:
    mine, theirs = await made(rig, MINE), await made(rig, THEIRS)
    held(rig, ORDERS, ScopedGrant(("Reader",), (), "table", THEIRS), role=Role.WRITE)
    await rig.perform("PutItem", TableName=mine.name, Item=KEY)
    await rig.perform("GetItem", TableName=theirs.name, Key=KEY)
    for name in ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"):
        error = await refused(rig, name, **REQUESTS[name](theirs))
        assert error.code == "AccessDeniedException", name
    insert = {"Statement": f"INSERT INTO \"{THEIRS}\" VALUE {{'a': 'y'}}"}
    for name, fields in (
        ("ExecuteStatement", insert),
        ("ExecuteTransaction", {"TransactStatements": [insert]}),
    ):
        assert (await refused(rig, name, **fields)).code == "AccessDeniedException", name
    batch = await rig.perform("BatchExecuteStatement", Statements=[insert])
    assert batch["Responses"][0]["Error"]["Code"] == "AccessDenied"
    scanned = await rig.perform("Scan", TableName=THEIRS)
    assert scanned["Items"] == [KEY]
    # The credential's own role bounds what a grant says.
    for name in ("UpdateTable", "CreateBackup", "DeleteTable", "TagResource"):
        error = await refused(rig, name, **REQUESTS[name](mine))
        assert error.code == "AccessDeniedException", name

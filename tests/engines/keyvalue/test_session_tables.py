"""Tables are made, described, listed and deleted as DynamoDB's documentation says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.session import tables
from tests.engines.keyvalue.made_tables import (
    HASH,
    ON_DEMAND,
    UNITS,
    definitions,
    index,
    refused,
    table,
)
from tests.engines.keyvalue.rig import Rig, running
from tests.servers import PostgresServer


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_tables")


@pytest_asyncio.fixture
async def rigs(dsn: str) -> AsyncIterator[list[Rig]]:
    async with running(dsn, workers=2) as both:
        yield both


@pytest.fixture
def rig(rigs: list[Rig]) -> Rig:
    return rigs[0]


async def test_a_new_table_is_answered_as_creating_and_is_active_at_once(rig: Rig) -> None:
    wanted = table("music", BillingMode="PROVISIONED", ProvisionedThroughput=UNITS)
    answer = await rig.perform("CreateTable", **wanted)
    made = answer["TableDescription"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-.{17}", made.pop("TableId"))
    assert abs(made.pop("CreationDateTime") - rig.clock.now()) < 5
    arn = made.pop("TableArn")
    assert re.fullmatch(r"arn:aws:dynamodb:us-east-1:[0-9]{12}:table/music", arn)
    assert made == {
        "TableName": "music",
        "AttributeDefinitions": definitions(a="S"),
        "KeySchema": [HASH],
        "ProvisionedThroughput": UNITS | {"NumberOfDecreasesToday": 0},
        "BillingModeSummary": {"BillingMode": "PROVISIONED"},
        "ItemCount": 0,
        "TableSizeBytes": 0,
        "TableStatus": "CREATING",
    }
    shown = (await rig.perform("DescribeTable", TableName="music"))["Table"]
    assert shown["TableStatus"] == "ACTIVE"
    assert shown["TableArn"] == arn
    by_arn = await rig.perform("DescribeTable", TableName=arn)
    assert by_arn["Table"] == shown


async def test_a_table_on_demand_has_no_units(rig: Rig) -> None:
    made = (await rig.perform("CreateTable", **table("songs")))["TableDescription"]
    none = {"ReadCapacityUnits": 0, "WriteCapacityUnits": 0, "NumberOfDecreasesToday": 0}
    assert made["ProvisionedThroughput"] == none
    assert made["BillingModeSummary"] == {"BillingMode": ON_DEMAND}
    assert "BillingMode" not in made


async def test_indexes_are_described_and_can_be_read(rig: Rig) -> None:
    ranged = {"AttributeName": "b", "KeyType": "RANGE"}
    made = await rig.perform(
        "CreateTable",
        **table(
            "songs",
            AttributeDefinitions=definitions(a="S", b="N", c="S"),
            KeySchema=[HASH, ranged],
            LocalSecondaryIndexes=[index("by_c", "a", "c")],
            GlobalSecondaryIndexes=[index("of_c", "c", kind="KEYS_ONLY"), index("of_b", "b")],
        ),
    )
    shown = made["TableDescription"]
    assert [each["IndexStatus"] for each in shown["GlobalSecondaryIndexes"]] == ["CREATING"] * 2
    assert shown["LocalSecondaryIndexes"] == [
        index("by_c", "a", "c")
        | {
            "IndexArn": shown["TableArn"] + "/index/by_c",
            "ItemCount": 0,
            "IndexSizeBytes": 0,
        }
    ]
    for number in range(3):
        item = {"a": {"S": "x"}, "b": {"N": str(number)}, "d": {"S": "y" * 100}}
        if number:
            item["c"] = {"S": "z"}
        await rig.perform("PutItem", TableName="songs", Item=item)
    for name in ("by_c", "of_c"):
        got = await rig.perform("Scan", TableName="songs", IndexName=name)
        assert got["Count"] == 2
    shown = (await rig.perform("DescribeTable", TableName="songs"))["Table"]
    counts = {
        each["IndexName"]: (each["ItemCount"], each["IndexSizeBytes"])
        for each in shown["LocalSecondaryIndexes"] + shown["GlobalSecondaryIndexes"]
    }
    assert (shown["ItemCount"], shown["TableSizeBytes"]) == (3, 3 * 106 - 1 + 2 * 2)
    assert counts["by_c"] == (2, 2 * 106 + 2 * 2)
    assert counts["of_b"] == (3, shown["TableSizeBytes"])
    assert counts["of_c"][0] == 2
    assert 0 < counts["of_c"][1] < 100
    assert {each["IndexStatus"] for each in shown["GlobalSecondaryIndexes"]} == {"ACTIVE"}


async def test_of_two_workers_that_make_one_table_one_is_refused(rigs: list[Rig]) -> None:
    for number in range(5):
        wanted = table(f"twice{number}")
        answers = await asyncio.gather(
            *(rig.perform("CreateTable", **wanted) for rig in rigs), return_exceptions=True
        )
        errors = [answer for answer in answers if isinstance(answer, DynamoError)]
        assert len(errors) == 1
        assert errors[0].code == "ResourceInUseException"
        assert errors[0].message == f"Table already exists: twice{number}"


async def test_a_deleted_table_is_gone_for_every_worker(rigs: list[Rig]) -> None:
    one, two = rigs
    await one.perform("CreateTable", **table("songs", GlobalSecondaryIndexes=[index("i_a", "a")]))
    await two.perform("PutItem", TableName="songs", Item={"a": {"S": "x"}})
    gone = (await one.perform("DeleteTable", TableName="songs"))["TableDescription"]
    assert gone["TableStatus"] == "DELETING"
    assert gone["ItemCount"] == 1
    assert "GlobalSecondaryIndexes" not in gone
    for rig in rigs:
        error = await refused(rig, "GetItem", TableName="songs", Key={"a": {"S": "x"}})
        assert error.code == "ResourceNotFoundException"
        error = await refused(rig, "DescribeTable", TableName="songs")
        assert error.message == "Requested resource not found: Table: songs not found"
    await two.perform("CreateTable", **table("songs"))
    for rig in rigs:
        assert await rig.perform("GetItem", TableName="songs", Key={"a": {"S": "x"}}) == {}


async def test_a_protected_table_is_not_deleted(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs", DeletionProtectionEnabled=True))
    error = await refused(rig, "DeleteTable", TableName="songs")
    assert error.code == "ValidationException"
    assert "protected against deletion" in error.message
    assert (await rig.perform("ListTables"))["TableNames"] == ["songs"]


async def test_tables_are_listed_by_name_in_pages(rig: Rig) -> None:
    for name in ("Bbb", "aaa", "ccc", "a-b"):
        await rig.perform("CreateTable", **table(name))
    assert await rig.perform("ListTables") == {"TableNames": ["Bbb", "a-b", "aaa", "ccc"]}
    page = await rig.perform("ListTables", Limit=2, ExclusiveStartTableName="Bbb")
    assert page == {"TableNames": ["a-b", "aaa"], "LastEvaluatedTableName": "aaa"}
    page = await rig.perform("ListTables", Limit=2, ExclusiveStartTableName="aaa")
    assert page == {"TableNames": ["ccc"]}
    assert await rig.perform("ListTables", Limit=4) == {"TableNames": ["Bbb", "a-b", "aaa", "ccc"]}


async def test_there_is_a_limit_of_tables(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TABLES_MAX", 1)
    await rig.perform("CreateTable", **table("one"))
    error = await refused(rig, "CreateTable", **table("two"))
    assert error.code == "LimitExceededException"
    assert (await rig.perform("ListTables"))["TableNames"] == ["one"]


@pytest.mark.parametrize(
    "member",
    [
        {"ResourcePolicy": "{}"},
        {"OnDemandThroughput": {"MaxReadRequestUnits": 5}},
        {"SSESpecification": {"Enabled": True, "KMSMasterKeyId": "k"}},
    ],
)
async def test_what_is_not_supported_is_refused(rig: Rig, member: dict[str, Any]) -> None:
    error = await refused(rig, "CreateTable", **table("songs", **member))
    assert error.code == "ValidationException"
    assert error.message.startswith("WeftKit does not support ")
    assert (await rig.perform("ListTables"))["TableNames"] == []


async def test_the_number_of_items_of_a_larger_table_is_an_estimate(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.keyvalue.sql.sizes.COUNTED_MAX", 150)
    await rig.perform("CreateTable", **table("songs"))
    for number in range(400):
        item = {"a": {"S": f"{number:03}"}, "b": {"S": "x" * 96}}
        await rig.perform("PutItem", TableName="songs", Item=item)
    # Nothing has analysed the table yet, and then something has.
    for _ in range(3):
        shown = (await rig.perform("DescribeTable", TableName="songs"))["Table"]
        assert 300 <= shown["ItemCount"] <= 500
    store = rig.store(rig.record)
    known = rig.service._tables[rig.record.instance_id].known("songs")
    assert known is not None
    await store.execute(f"ANALYZE {known.table.sql_name}")
    shown = (await rig.perform("DescribeTable", TableName="songs"))["Table"]
    assert 350 <= shown["ItemCount"] <= 450
    assert 35_000 <= shown["TableSizeBytes"] <= 45_000

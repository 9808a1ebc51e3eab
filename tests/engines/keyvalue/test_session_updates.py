"""UpdateTable, indexes that are added to tables with items, and time to live."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.session import backfill
from engines.keyvalue.sql import filling
from tests.engines.keyvalue.made_tables import (
    HASH,
    UNITS,
    definitions,
    described,
    given_up,
    index,
    look,
    new_index,
    put,
    refused,
    settled,
    table,
)
from tests.engines.keyvalue.rig import Rig, running
from tests.servers import PostgresServer


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_updates")


@pytest_asyncio.fixture
async def rigs(dsn: str) -> AsyncIterator[list[Rig]]:
    async with running(dsn, workers=2) as both:
        yield both


@pytest.fixture
def rig(rigs: list[Rig]) -> Rig:
    return rigs[0]


async def test_units_are_in_force_once_the_table_is_active_again(rig: Rig) -> None:
    await rig.perform(
        "CreateTable",
        **table("songs", BillingMode="PROVISIONED", ProvisionedThroughput=UNITS),
    )
    more = {"ReadCapacityUnits": 3, "WriteCapacityUnits": 2}
    answer = await rig.perform("UpdateTable", TableName="songs", ProvisionedThroughput=more)
    units = answer["TableDescription"]["ProvisionedThroughput"]
    assert answer["TableDescription"]["TableStatus"] == "UPDATING"
    assert (units["ReadCapacityUnits"], units["WriteCapacityUnits"]) == (1, 1)
    shown = await described(rig, "songs")
    assert shown["TableStatus"] == "ACTIVE"
    after = shown["ProvisionedThroughput"]
    assert (after["ReadCapacityUnits"], after["WriteCapacityUnits"]) == (3, 2)
    assert after["LastIncreaseDateTime"] > units["LastIncreaseDateTime"]
    await rig.perform("UpdateTable", TableName="songs", ProvisionedThroughput=UNITS)
    after = (await described(rig, "songs"))["ProvisionedThroughput"]
    assert (after["NumberOfDecreasesToday"], after["ReadCapacityUnits"]) == (1, 1)
    error = await refused(rig, "UpdateTable", TableName="songs", ProvisionedThroughput=UNITS)
    assert error.message.startswith("The provisioned throughput for the table will not change.")
    rig.clock.ahead_s += 86_400
    after = (await described(rig, "songs"))["ProvisionedThroughput"]
    assert after["NumberOfDecreasesToday"] == 0


async def test_the_billing_mode_goes_there_and_back(rig: Rig) -> None:
    made = index("of_a", "a") | {"ProvisionedThroughput": UNITS}
    fields = table("songs", BillingMode="PROVISIONED", ProvisionedThroughput=UNITS)
    await rig.perform("CreateTable", **fields, GlobalSecondaryIndexes=[made])
    await rig.perform("UpdateTable", TableName="songs", BillingMode="PAY_PER_REQUEST")
    shown = await described(rig, "songs")
    assert shown["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert shown["ProvisionedThroughput"]["ReadCapacityUnits"] == 0
    assert shown["GlobalSecondaryIndexes"][0]["ProvisionedThroughput"]["ReadCapacityUnits"] == 0
    back = {"TableName": "songs", "BillingMode": "PROVISIONED", "ProvisionedThroughput": UNITS}
    error = await refused(rig, "UpdateTable", **back)
    assert error.message.endswith("ProvisionedThroughput must be specified for index: of_a")
    update = {"Update": {"IndexName": "of_a", "ProvisionedThroughput": UNITS}}
    await rig.perform("UpdateTable", **back, GlobalSecondaryIndexUpdates=[update])
    shown = await described(rig, "songs")
    assert shown["ProvisionedThroughput"]["ReadCapacityUnits"] == 1
    assert shown["GlobalSecondaryIndexes"][0]["ProvisionedThroughput"]["ReadCapacityUnits"] == 1


async def test_protection_class_and_encryption_are_kept(rig: Rig) -> None:
    await rig.perform("CreateTable", **table("songs"))
    await rig.perform(
        "UpdateTable",
        TableName="songs",
        DeletionProtectionEnabled=True,
        TableClass="STANDARD_INFREQUENT_ACCESS",
        SSESpecification={"Enabled": True, "SSEType": "KMS"},
    )
    shown = await described(rig, "songs")
    assert shown["DeletionProtectionEnabled"] is True
    assert shown["TableClassSummary"]["TableClass"] == "STANDARD_INFREQUENT_ACCESS"
    assert shown["SSEDescription"] == {"Status": "ENABLED", "SSEType": "KMS"}
    await rig.perform("UpdateTable", TableName="songs", DeletionProtectionEnabled=False)
    await rig.perform("DeleteTable", TableName="songs")


async def test_an_index_of_an_empty_table_is_active_at_once(rigs: list[Rig]) -> None:
    one, two = rigs
    await one.perform("CreateTable", **table("songs"))
    await put(two, "songs", {"a": {"S": "x"}})
    await two.perform("DeleteItem", TableName="songs", Key={"a": {"S": "x"}})
    answer = await one.perform("UpdateTable", **new_index("songs", index("of_g", "g"), g="N"))
    (shown,) = answer["TableDescription"]["GlobalSecondaryIndexes"]
    assert (shown["IndexStatus"], shown["Backfilling"]) == ("CREATING", False)
    assert (await described(one, "songs"))["TableStatus"] == "ACTIVE"
    await put(two, "songs", {"a": {"S": "x"}, "g": {"N": "1"}})
    for rig in rigs:
        assert (await rig.perform("Scan", TableName="songs", IndexName="of_g"))["Count"] == 1


async def test_a_new_index_holds_what_fits_and_leaves_out_the_rest(rigs: list[Rig]) -> None:
    one, two = rigs
    await one.perform("CreateTable", **table("songs"))
    misfits: list[dict[str, Any]] = [
        {"g": {"N": "1"}},
        {"g": {"S": ""}},
        {"g": {"S": "x" * 2049}},
        {"h": {"S": "no g"}},
    ]
    await put(one, "songs", *({"a": {"S": f"m{n}"}} | each for n, each in enumerate(misfits)))
    fits = [{"a": {"S": f"f{n}"}, "g": {"S": str(n % 2)}} for n in range(20)]
    await put(two, "songs", *fits)
    answer = await one.perform("UpdateTable", **new_index("songs", index("of_g", "g"), g="S"))
    assert answer["TableDescription"]["TableStatus"] == "UPDATING"
    await settled(one)
    (shown,) = (await described(one, "songs"))["GlobalSecondaryIndexes"]
    assert (shown["IndexStatus"], shown["ItemCount"]) == ("ACTIVE", 20)
    assert "Backfilling" not in shown
    for rig in rigs:
        got = await rig.perform(
            "Query",
            TableName="songs",
            IndexName="of_g",
            KeyConditionExpression="g = :g",
            ExpressionAttributeValues={":g": {"S": "1"}},
        )
        assert sorted(item["a"]["S"] for item in got["Items"]) == sorted(
            item["a"]["S"] for item in fits if item["g"]["S"] == "1"
        )


async def test_items_written_while_an_index_is_filled_are_in_it_as_they_are(
    rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "ROWS_MAX", 7)
    one, two = rigs
    await one.perform("CreateTable", **table("songs"))
    await put(one, "songs", *({"a": {"S": str(n)}, "g": {"N": "0"}} for n in range(150)))

    async def write() -> None:
        for n in range(150):
            key = {"a": {"S": str(n)}}
            if n % 3 == 0:
                await two.perform("DeleteItem", TableName="songs", Key=key)
            else:
                await two.perform(
                    "UpdateItem",
                    TableName="songs",
                    Key=key,
                    UpdateExpression="SET g = :g",
                    ExpressionAttributeValues={":g": {"N": str(n)}},
                )

    writing = asyncio.ensure_future(write())
    await one.perform("UpdateTable", **new_index("songs", index("of_g", "g"), g="N"))
    await asyncio.gather(writing, settled(one))
    got = await two.perform("Scan", TableName="songs", IndexName="of_g")
    assert {item["a"]["S"]: item["g"]["N"] for item in got["Items"]} == {
        str(n): str(n) for n in range(150) if n % 3
    }
    for n in (1, 149):
        got = await one.perform(
            "Query",
            TableName="songs",
            IndexName="of_g",
            KeyConditionExpression="g = :g",
            ExpressionAttributeValues={":g": {"N": str(n)}},
        )
        assert got["Count"] == 1


VALUES: list[dict[str, Any]] = [
    {"S": "x"}, {"S": "y" * 1024}, {"S": "y" * 1025}, {"S": "y" * 2049}, {"S": ""},
    {"N": "0"}, {"N": "-12.5"}, {"N": "1e100"}, {"B": "AAE="}, {"B": ""}, {"BOOL": True},
    {"NULL": True}, {"L": []}, {"M": {}}, {"SS": ["x"]},
]  # fmt: skip


@pytest.mark.parametrize("kinds", ["SS", "SN", "NB", "BS"])
async def test_filled_columns_are_those_that_writers_make(rig: Rig, kinds: str) -> None:
    """Two tables with the same items, an index after and before them: the same rows."""
    made = index("of_g_h", "g", "h")
    known = definitions(g=kinds[0], h=kinds[1])
    await rig.perform("CreateTable", **table("after"))
    await rig.perform(
        "CreateTable",
        **table(
            "before",
            AttributeDefinitions=definitions(a="S") + known,
            GlobalSecondaryIndexes=[made],
        ),
    )
    pairs: list[tuple[Any, Any]] = list(itertools.product([None, *VALUES], repeat=2))
    for number, (g, h) in enumerate(pairs):
        item = {"a": {"S": str(number)}}
        item |= {name: value for name, value in (("g", g), ("h", h)) if value is not None}
        await put(rig, "after", item)
        try:
            await put(rig, "before", item)
        except DynamoError:
            await put(rig, "before", {"a": item["a"]})
    update = new_index("after", made) | {"AttributeDefinitions": known}
    await rig.perform("UpdateTable", **update)
    await settled(rig)
    rows = [await index_rows(rig, name) for name in ("after", "before")]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 1


async def index_rows(rig: Rig, name: str) -> list[Any]:
    """Return key and columns of the only index of a table, where it has an entry."""
    known = await rig.service._tables[rig.record.instance_id].read(rig.store(rig.record), name)
    assert known is not None
    text = f"SELECT pk, tie, k1, r1 FROM {known.table.sql_name} WHERE k1 IS NOT NULL ORDER BY pk"
    return [tuple(row) for row in await rig.store(rig.record).fetch(text)]


async def test_a_table_is_busy_while_its_index_is_made(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig, "spawn", lambda *_: None)
    await rig.perform("CreateTable", **table("songs"))
    await put(rig, "songs", {"a": {"S": "x"}, "g": {"S": "y"}})
    await rig.perform("UpdateTable", **new_index("songs", index("of_g", "g"), g="S"))
    shown = await described(rig, "songs")
    assert shown["TableStatus"] == "UPDATING"
    assert shown["GlobalSecondaryIndexes"][0]["Backfilling"] is True
    error = await refused(rig, "Scan", TableName="songs", IndexName="of_g")
    assert error.message == "Cannot read from backfilling global secondary index: of_g"
    for operation, fields in (
        ("DeleteTable", {}),
        ("UpdateTable", {"DeletionProtectionEnabled": True}),
    ):
        error = await refused(rig, operation, TableName="songs", **fields)
        assert error.code == "ResourceInUseException"
    drop = [{"Delete": {"IndexName": "of_g"}}]
    answer = await rig.perform("UpdateTable", TableName="songs", GlobalSecondaryIndexUpdates=drop)
    assert answer["TableDescription"]["GlobalSecondaryIndexes"][0]["IndexStatus"] == "DELETING"
    shown = await described(rig, "songs")
    assert "GlobalSecondaryIndexes" not in shown
    assert shown["AttributeDefinitions"] == definitions(a="S")
    await look(rig)
    await rig.perform("DeleteTable", TableName="songs")


async def test_indexes_come_and_go_and_leave_the_others_as_they_are(rig: Rig) -> None:
    fields = table("songs", AttributeDefinitions=definitions(a="S", g="S"), KeySchema=[HASH])
    await rig.perform("CreateTable", **fields, GlobalSecondaryIndexes=[index("of_g", "g")])
    await put(rig, "songs", {"a": {"S": "x"}, "g": {"S": "y"}, "h": {"N": "1"}})
    await rig.perform("UpdateTable", **new_index("songs", index("of_h", "h"), h="N"))
    await settled(rig)
    drop = [{"Delete": {"IndexName": "of_g"}}]
    await rig.perform("UpdateTable", TableName="songs", GlobalSecondaryIndexUpdates=drop)
    await rig.perform("UpdateTable", **new_index("songs", index("of_g2", "g", "h"), g="S", h="N"))
    await settled(rig)
    for name in ("of_h", "of_g2"):
        assert (await rig.perform("Scan", TableName="songs", IndexName=name))["Count"] == 1
    error = await refused(rig, "Scan", TableName="songs", IndexName="of_g")
    assert error.message == "The table does not have the specified index: of_g"


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        (
            {"GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "none"}}]},
            "ResourceNotFoundException",
            "Requested resource not found",
        ),
        (
            {
                "AttributeDefinitions": definitions(a="S"),
                "GlobalSecondaryIndexUpdates": [{"Create": index("of_a", "a")}],
            },
            "ValidationException",
            "Attempting to create an index which already exists",
        ),
        (
            {"StreamSpecification": {"StreamEnabled": False}},
            "ValidationException",
            "Table has no stream to disable: songs",
        ),
        (
            {
                "GlobalSecondaryIndexUpdates": [
                    {"Update": {"IndexName": "none", "ProvisionedThroughput": UNITS}}
                ]
            },
            "ValidationException",
            "This operation cannot be performed with given input values. Please contact DynamoDB "
            "service team for more info: Action Blocked: IndexUpdate",
        ),
    ],
)
async def test_what_the_table_does_not_allow(
    rig: Rig, fields: dict[str, Any], code: str, message: str
) -> None:
    made = table("songs", GlobalSecondaryIndexes=[index("of_a", "a")])
    await rig.perform("CreateTable", **made)
    error = await refused(rig, "UpdateTable", TableName="songs", **fields)
    assert (error.code, error.message) == (code, message)


async def test_work_whose_lease_has_passed_goes_on_at_another_worker(
    rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = rigs
    monkeypatch.setattr(filling, "ROWS_MAX", 10)
    await one.perform("CreateTable", **table("songs"))
    await put(one, "songs", *({"a": {"S": str(n)}, "g": {"N": str(n)}} for n in range(100)))
    real, pages = backfill._fill, 0

    async def dies(*args: Any) -> None:
        nonlocal pages
        pages += 1
        if pages == 4:
            raise asyncio.CancelledError
        await real(*args)

    monkeypatch.setattr(backfill, "_fill", dies)
    await one.perform("UpdateTable", **new_index("songs", index("of_g", "g"), g="N"))
    await given_up(one)
    monkeypatch.setattr(backfill, "_fill", real)
    await look(two)
    assert (await described(two, "songs"))["TableStatus"] == "UPDATING"
    await pass_leases(two)
    await look(two)
    (shown,) = (await described(two, "songs"))["GlobalSecondaryIndexes"]
    assert (shown["IndexStatus"], shown["ItemCount"]) == ("ACTIVE", 100)


async def test_a_half_built_b_tree_is_built_again(
    rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = rigs
    await one.perform("CreateTable", **table("songs"))
    await put(one, "songs", *({"a": {"S": str(n)}, "g": {"N": str(n)}} for n in range(10)))
    monkeypatch.setattr(one, "spawn", lambda *_: None)
    await one.perform("UpdateTable", **new_index("songs", index("of_g", "g"), g="N"))
    store, schema = one.store(one.record), one.record.schema
    rows = await store.fetch(f"SELECT body ->> 'SqlName' FROM \"{schema}\".work")
    (row,) = await store.fetch(f'SELECT table_id, shape FROM "{schema}".catalogue')
    await store.execute(
        f'CREATE INDEX "{rows[0][0]}" ON "{schema}"."t{row[0]}_{row[1]}" (k1) WHERE k1 IS NULL'
    )
    await store.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = "
        f'\'"{schema}"."{rows[0][0]}"\'::regclass'
    )
    await look(two)
    got = await two.perform("Scan", TableName="songs", IndexName="of_g")
    assert got["Count"] == 10
    rows = await store.fetch(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = "
        f'\'"{schema}"."{rows[0][0]}"\'::regclass'
    )
    assert rows[0][0] is True


async def test_transactions_stay_whole_while_their_tables_change_form(rigs: list[Rig]) -> None:
    one, two = rigs
    for name in ("left", "right"):
        await one.perform("CreateTable", **table(name))
    stop = False
    acknowledged = Counter[str]()

    async def count(rig: Rig, seed: int) -> None:
        chosen = random.Random(seed)
        while not stop:
            key, names = str(chosen.randrange(3)), ["left", "right"]
            chosen.shuffle(names)
            adds = [
                {
                    "Update": {
                        "TableName": name,
                        "Key": {"a": {"S": key}},
                        "UpdateExpression": "ADD n :one",
                        "ExpressionAttributeValues": {":one": {"N": "1"}},
                    }
                }
                for name in names
            ]
            with contextlib.suppress(DynamoError):
                await rig.perform("TransactWriteItems", TransactItems=adds)
                acknowledged[key] += 1

    counting = [asyncio.ensure_future(count(rigs[seed % 2], seed)) for seed in range(4)]
    changes: list[dict[str, Any]] = [
        {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}},
        new_index("", index("of_n", "n"), n="N"),
        {"StreamSpecification": {"StreamEnabled": False}},
        {"GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "of_n"}}]},
    ]
    for name, change in itertools.product(("left", "right", "left"), changes):
        before = acknowledged.total()
        while acknowledged.total() < before + 5:
            await asyncio.wait(counting, timeout=0.01)
        await one.perform("UpdateTable", **(change | {"TableName": name}))
        await settled(one)
    stop = True
    await asyncio.gather(*counting)
    for name in ("left", "right"):
        items = (await two.perform("Scan", TableName=name))["Items"]
        assert {item["a"]["S"]: int(item["n"]["N"]) for item in items} == acknowledged


async def pass_leases(rig: Rig) -> None:
    """Let the time of all leases pass."""
    text = f"UPDATE \"{rig.record.schema}\".work SET lease_until = 'epoch'"
    await rig.store(rig.record).execute(text)

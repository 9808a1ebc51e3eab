"""Operations on items over a real PostgreSQL: what is written is read, whatever the way."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.session.context import account_id
from engines.keyvalue.storage import stream_log
from engines.keyvalue.values import decode
from engines.kit.changelog import Position
from engines.kit.errors import Reason, RequestError, rate_error
from engines.kit.ports import RequestClass
from tests.engines.keyvalue.rig import Rig, running
from tests.engines.keyvalue.tables import body, make_table
from tests.servers import PostgresServer

ALL = {"ProjectionType": "ALL"}
KINDS = {"a": "S", "b": "N", "g": "S", "l": "S"}


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue")


@pytest_asyncio.fixture
async def rig(dsn: str) -> AsyncIterator[Rig]:
    async with running(dsn) as rigs:
        await make_table(rigs[0], "items", body({"a": "S"}, has_range=False))
        await make_table(
            rigs[0],
            "ranged",
            body(
                KINDS,
                local={"by_l:a,l": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x"]}},
                global_={"by_g:g,b": ALL, "keys_g:g": {"ProjectionType": "KEYS_ONLY"}},
            ),
            table_id=2,
        )
        await make_table(
            rigs[0],
            "streamed",
            body({"a": "S"}, has_range=False, stream="NEW_AND_OLD_IMAGES"),
            table_id=3,
        )
        yield rigs[0]


def key(text: str) -> dict[str, Any]:
    return {"a": {"S": text}}


def row(a: str, b: int, **more: str) -> dict[str, Any]:
    return {"a": {"S": a}, "b": {"N": str(b)}} | {name: {"S": text} for name, text in more.items()}


async def refused(rig: Rig, operation: str, **fields: Any) -> DynamoError:
    with pytest.raises(DynamoError) as error:
        await rig.perform(operation, **fields)
    return error.value


@pytest.mark.asyncio
async def test_an_item_is_read_as_it_was_put(rig: Rig) -> None:
    item = key("x") | {
        "n": {"N": "1.50"},
        "m": {"M": {"l": {"L": [{"BOOL": True}, {"NULL": True}]}}},
        "s": {"SS": ["p", "q"]},
    }
    assert await rig.perform("PutItem", TableName="items", Item=item) == {}
    got = await rig.perform("GetItem", TableName="items", Key=key("x"))
    assert got == {"Item": item | {"n": {"N": "1.5"}}}
    assert await rig.perform("GetItem", TableName="items", Key=key("y")) == {}


@pytest.mark.asyncio
async def test_projection_and_capacity_of_a_read(rig: Rig) -> None:
    await rig.perform("PutItem", TableName="items", Item=key("x") | {"c": {"S": "y" * 5000}})
    got = await rig.perform(
        "GetItem",
        TableName="items",
        Key=key("x"),
        ProjectionExpression="a",
        ConsistentRead=True,
        ReturnConsumedCapacity="TOTAL",
    )
    assert got == {
        "Item": key("x"),
        "ConsumedCapacity": {"TableName": "items", "CapacityUnits": 2.0},
    }
    assert rig.gate.units[RequestClass.READ] == 2


@pytest.mark.asyncio
async def test_old_values_are_returned_and_conditions_decide(rig: Rig) -> None:
    first = key("x") | {"v": {"N": "1"}}
    await rig.perform("PutItem", TableName="items", Item=first)
    error = await refused(
        rig,
        "PutItem",
        TableName="items",
        Item=key("x"),
        ConditionExpression="attribute_not_exists(a)",
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    assert error.code == "ConditionalCheckFailedException"
    assert error.extra == {"Item": first}
    changed = await rig.perform(
        "UpdateItem",
        TableName="items",
        Key=key("x"),
        UpdateExpression="SET v = v + :one, w = :w",
        ConditionExpression="v = :one",
        ExpressionAttributeValues={":one": {"N": "1"}, ":w": {"S": "w"}},
        ReturnValues="UPDATED_NEW",
    )
    assert changed == {"Attributes": {"v": {"N": "2"}, "w": {"S": "w"}}}
    gone = await rig.perform("DeleteItem", TableName="items", Key=key("x"), ReturnValues="ALL_OLD")
    assert gone == {"Attributes": key("x") | {"v": {"N": "2"}, "w": {"S": "w"}}}
    assert await rig.perform("GetItem", TableName="items", Key=key("x")) == {}


@pytest.mark.asyncio
async def test_an_update_makes_an_absent_item(rig: Rig) -> None:
    await rig.perform(
        "UpdateItem",
        TableName="items",
        Key=key("new"),
        UpdateExpression="ADD n :n",
        ExpressionAttributeValues={":n": {"N": "3"}},
    )
    got = await rig.perform("GetItem", TableName="items", Key=key("new"))
    assert got["Item"] == key("new") | {"n": {"N": "3"}}


@pytest.mark.asyncio
async def test_counters_of_two_workers_are_exact(dsn: str) -> None:
    async with running(dsn, workers=2) as rigs:
        await make_table(rigs[0], "items", body({"a": "S"}, has_range=False))

        async def count(worker: Rig) -> None:
            for _ in range(20):
                await worker.perform(
                    "UpdateItem",
                    TableName="items",
                    Key=key("n"),
                    UpdateExpression="ADD n :one",
                    ExpressionAttributeValues={":one": {"N": "1"}},
                )

        await asyncio.gather(*(count(rig) for rig in rigs for _ in range(4)))
        got = await rigs[0].perform("GetItem", TableName="items", Key=key("n"))
        assert got["Item"]["n"] == {"N": "160"}


@pytest.mark.asyncio
async def test_one_of_many_conditional_puts_wins(dsn: str) -> None:
    async with running(dsn, workers=2) as rigs:
        await make_table(rigs[0], "items", body({"a": "S"}, has_range=False))

        async def put(worker: Rig, number: int) -> bool:
            try:
                await worker.perform(
                    "PutItem",
                    TableName="items",
                    Item=key("one") | {"n": {"N": str(number)}},
                    ConditionExpression="attribute_not_exists(a)",
                )
            except DynamoError as error:
                assert error.code == "ConditionalCheckFailedException"
                return False
            return True

        won = await asyncio.gather(*(put(rigs[n % 2], n) for n in range(16)))
        assert sum(won) == 1
        got = await rigs[1].perform("GetItem", TableName="items", Key=key("one"))
        assert got["Item"]["n"] == {"N": str(won.index(True))}


@pytest.mark.asyncio
@pytest.mark.parametrize("is_forward", [True, False])
async def test_queries_page_through_a_partition_in_order(rig: Rig, is_forward: bool) -> None:
    numbers = [-7, -1, 0, 2, 10, 11, 100]
    for number in random.Random(5).sample(numbers, len(numbers)):
        await rig.perform("PutItem", TableName="ranged", Item=row("p", number))
    await rig.perform("PutItem", TableName="ranged", Item=row("other", 3))
    found, start = [], {}
    for _ in range(10):
        page = await rig.perform(
            "Query",
            TableName="ranged",
            KeyConditionExpression="a = :p AND b > :low",
            ExpressionAttributeValues={":p": {"S": "p"}, ":low": {"N": "-5"}},
            ScanIndexForward=is_forward,
            Limit=2,
            **start,
        )
        found += [int(item["b"]["N"]) for item in page["Items"]]
        if "LastEvaluatedKey" not in page:
            break
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    wanted = sorted(numbers[1:])
    assert found == (wanted if is_forward else wanted[::-1])


@pytest.mark.asyncio
async def test_secondary_indexes_follow_every_write(rig: Rig) -> None:
    async def by_g(value: str, index: str = "by_g") -> list[dict[str, Any]]:
        page = await rig.perform(
            "Query",
            TableName="ranged",
            IndexName=index,
            KeyConditionExpression="g = :g",
            ExpressionAttributeValues={":g": {"S": value}},
        )
        return list(page["Items"])

    await rig.perform("PutItem", TableName="ranged", Item=row("p", 1, g="red", l="z", y="1"))
    await rig.perform("PutItem", TableName="ranged", Item=row("q", 2, g="red"))
    await rig.perform("PutItem", TableName="ranged", Item=row("q", 3))
    assert [item["a"]["S"] for item in await by_g("red")] == ["p", "q"]
    assert sorted(map(sorted, await by_g("red", "keys_g"))) == [["a", "b", "g"], ["a", "b", "g"]]
    await rig.perform(
        "UpdateItem",
        TableName="ranged",
        Key=row("p", 1),
        UpdateExpression="SET g = :g",
        ExpressionAttributeValues={":g": {"S": "blue"}},
    )
    assert [item["a"]["S"] for item in await by_g("red")] == ["q"]
    assert [item["a"]["S"] for item in await by_g("blue")] == ["p"]
    await rig.perform("DeleteItem", TableName="ranged", Key=row("p", 1))
    assert await by_g("blue") == []
    scanned = await rig.perform("Scan", TableName="ranged", IndexName="by_g")
    assert [item["a"]["S"] for item in scanned["Items"]] == ["q"]


@pytest.mark.asyncio
async def test_a_local_index_gives_its_part_or_the_whole(rig: Rig) -> None:
    item = row("p", 1, l="z", x="in", y="out")
    await rig.perform("PutItem", TableName="ranged", Item=item)

    async def query(**more: Any) -> dict[str, Any]:
        return await rig.perform(
            "Query",
            TableName="ranged",
            IndexName="by_l",
            KeyConditionExpression="a = :p AND begins_with(l, :z)",
            ExpressionAttributeValues={":p": {"S": "p"}, ":z": {"S": "z"}},
            **more,
        )

    assert (await query())["Items"] == [row("p", 1, l="z", x="in")]
    assert (await query(Select="ALL_ATTRIBUTES"))["Items"] == [item]
    assert (await query(Select="COUNT"))["Count"] == 1
    assert "Items" not in await query(Select="COUNT")


@pytest.mark.asyncio
async def test_a_page_ends_at_a_megabyte_and_the_next_one_goes_on(rig: Rig) -> None:
    for number in range(8):
        await rig.perform("PutItem", TableName="ranged", Item=row("p", number, big="x" * 300_000))
    fields: dict[str, Any] = {
        "TableName": "ranged",
        "KeyConditionExpression": "a = :p",
        "ExpressionAttributeValues": {":p": {"S": "p"}},
    }
    first = await rig.perform("Query", **fields)
    assert first["Count"] == 4
    second = await rig.perform("Query", **fields, ExclusiveStartKey=first["LastEvaluatedKey"])
    assert [item["b"]["N"] for item in second["Items"]] == ["4", "5", "6", "7"]


@pytest.mark.asyncio
async def test_a_filter_counts_what_was_read(rig: Rig) -> None:
    for number in range(5):
        await rig.perform(
            "PutItem", TableName="items", Item=key(f"k{number}") | {"n": {"N": str(number)}}
        )
    page = await rig.perform(
        "Scan",
        TableName="items",
        FilterExpression="n >= :three",
        ExpressionAttributeValues={":three": {"N": "3"}},
    )
    assert (page["Count"], page["ScannedCount"]) == (2, 5)


@pytest.mark.asyncio
async def test_segments_of_a_scan_share_all_items(rig: Rig) -> None:
    names = {f"k{number}" for number in range(40)}
    for name in names:
        await rig.perform("PutItem", TableName="items", Item=key(name))
    found = [
        [item["a"]["S"] for item in page["Items"]]
        for page in [
            await rig.perform("Scan", TableName="items", Segment=segment, TotalSegments=3)
            for segment in range(3)
        ]
    ]
    assert sorted(itertools.chain(*found)) == sorted(names)
    assert all(found)


@pytest.mark.asyncio
async def test_batches_write_and_read_many_tables(rig: Rig) -> None:
    puts = [{"PutRequest": {"Item": key(f"k{number}")}} for number in range(10)]
    answer = await rig.perform(
        "BatchWriteItem",
        RequestItems={
            "items": puts,
            "ranged": [{"PutRequest": {"Item": row("p", 1, g="red")}}],
            "streamed": [{"PutRequest": {"Item": key("s")}}],
        },
        ReturnConsumedCapacity="TOTAL",
    )
    assert answer["UnprocessedItems"] == {}
    assert {each["TableName"]: each["CapacityUnits"] for each in answer["ConsumedCapacity"]} == {
        "items": 10.0,
        "ranged": 3.0,
        "streamed": 1.0,
    }
    await rig.perform(
        "BatchWriteItem", RequestItems={"items": [{"DeleteRequest": {"Key": key("k3")}}]}
    )
    got = await rig.perform(
        "BatchGetItem",
        RequestItems={
            "items": {"Keys": [key(f"k{number}") for number in range(4)]},
            "ranged": {"Keys": [row("p", 1)], "ProjectionExpression": "g"},
        },
    )
    assert sorted(item["a"]["S"] for item in got["Responses"]["items"]) == ["k0", "k1", "k2"]
    assert got["Responses"]["ranged"] == [{"g": {"S": "red"}}]
    assert got["UnprocessedKeys"] == {}


@pytest.mark.asyncio
async def test_the_stream_holds_each_change_once(rig: Rig) -> None:
    await rig.perform("PutItem", TableName="streamed", Item=key("x"))
    await rig.perform("PutItem", TableName="streamed", Item=key("x"))
    await rig.perform("PutItem", TableName="streamed", Item=key("x") | {"n": {"N": "1"}})
    await rig.perform("DeleteItem", TableName="streamed", Key=key("x"))
    await rig.perform("DeleteItem", TableName="streamed", Key=key("x"))
    log = stream_log(rig.record.schema)
    statement = log.read(Position(), 100, 3)
    rows = await rig.store(rig.record).fetch(statement.text, *statement.params)
    page = log.page([tuple(row) for row in rows], Position(), 100)
    events = [decode(entry.body) for entry in page.entries]
    assert [event["e"] for event in events] == ["INSERT", "MODIFY", "REMOVE"]
    assert events[1]["o"] == key("x")
    assert events[2]["o"] == key("x") | {"n": {"N": "1"}}


@pytest.mark.asyncio
async def test_a_table_that_changed_its_form_is_read_again(rig: Rig) -> None:
    await rig.perform("PutItem", TableName="items", Item=key("x"))
    schema = rig.record.schema
    async with rig.store(rig.record).transaction() as statements:
        await statements.execute(f'ALTER TABLE "{schema}".t1_1 RENAME TO t1_2')
        await statements.execute(
            f"UPDATE \"{schema}\".catalogue SET shape = 2 WHERE name = 'items'"
        )
    assert await rig.perform("GetItem", TableName="items", Key=key("x")) == {"Item": key("x")}


@pytest.mark.asyncio
async def test_a_table_that_is_gone_is_not_found(rig: Rig) -> None:
    await rig.perform("PutItem", TableName="items", Item=key("x"))
    schema = rig.record.schema
    async with rig.store(rig.record).transaction() as statements:
        await statements.execute(f'DROP TABLE "{schema}".t1_1')
        await statements.execute(f"DELETE FROM \"{schema}\".catalogue WHERE name = 'items'")
    error = await refused(rig, "GetItem", TableName="items", Key=key("x"))
    assert error.code == "ResourceNotFoundException"


@pytest.mark.asyncio
async def test_over_the_plan_the_batch_leaves_the_rest(rig: Rig) -> None:
    rig.gate.refusal = rate_error("write", 5, 0.5)
    with pytest.raises(RequestError) as error:
        await rig.perform("PutItem", TableName="items", Item=key("x"))
    assert error.value.reason is Reason.RATE


@pytest.mark.asyncio
async def test_a_table_is_named_by_its_arn_too_but_by_no_other_accounts(rig: Rig) -> None:
    own = account_id(rig.record.instance_id)
    arn = f"arn:aws:dynamodb:us-east-1:{own}:table/items"
    await rig.perform("PutItem", TableName=arn, Item=key("x"))
    assert await rig.perform("GetItem", TableName="items", Key=key("x")) == {"Item": key("x")}
    other = arn.replace(own, "000000000000")
    error = await refused(rig, "GetItem", TableName=other, Key=key("x"))
    assert error.code == "AccessDeniedException"
    assert error.message.endswith(f"dynamodb:GetItem on resource: {other}")


@pytest.mark.asyncio
async def test_a_batch_speaks_of_keys_where_a_put_speaks_of_the_item(rig: Rig) -> None:
    for item in ({"c": {"S": "x"}}, {"a": {"N": "1"}}):
        request = {"items": [{"PutRequest": {"Item": item}}]}
        error = await refused(rig, "BatchWriteItem", RequestItems=request)
        assert error.message == "The provided key element does not match the schema"


@pytest.mark.asyncio
async def test_what_is_wrong_with_a_start_key_and_what_an_index_has_come_in_order(
    rig: Rig,
) -> None:
    select = "Select type ALL_ATTRIBUTES is not supported"
    keys = {"b": {"N": "1"}, "g": {"S": "x"}}
    for start, words in (
        ({"g": {"S": "x"}}, "The provided starting key is invalid"),
        ({"z": {"S": "x"}, **keys}, select),
    ):
        error = await refused(
            rig, "Scan", TableName="ranged", IndexName="keys_g", Select="ALL_ATTRIBUTES",
            ExclusiveStartKey=start,
        )  # fmt: skip
        assert words in error.message


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["REMOVE c", "REMOVE c DELETE d :s"])
async def test_taking_away_makes_no_item(rig: Rig, text: str) -> None:
    values = {"ExpressionAttributeValues": {":s": {"SS": ["x"]}}} if ":s" in text else {}
    answer = await rig.perform(
        "UpdateItem", TableName="items", Key=key("x"), UpdateExpression=text,
        ReturnValues="ALL_NEW", **values,
    )  # fmt: skip
    assert answer == {}
    assert await rig.perform("GetItem", TableName="items", Key=key("x")) == {}
    change = {"TableName": "items", "Key": key("x"), "UpdateExpression": text, **values}
    await rig.perform("TransactWriteItems", TransactItems=[{"Update": change}])
    assert await rig.perform("GetItem", TableName="items", Key=key("x")) == {}
    # One that does nothing at all does make it.
    await rig.perform("UpdateItem", TableName="items", Key=key("x"), AttributeUpdates={})
    assert await rig.perform("GetItem", TableName="items", Key=key("x")) == {"Item": key("x")}

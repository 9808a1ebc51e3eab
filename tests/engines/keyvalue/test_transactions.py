"""TransactWriteItems and TransactGetItems over a real PostgreSQL: all of it, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.plan import checks
from engines.keyvalue.storage import stream_log
from engines.keyvalue.values import decode
from engines.kit.changelog import Position
from engines.kit.errors import rate_error
from engines.kit.ports import RequestClass
from tests.engines.keyvalue.rig import Clock, Rig, running
from tests.engines.keyvalue.tables import body, make_table
from tests.servers import PostgresServer

ALL = {"ProjectionType": "ALL"}
NONE = {"Code": "None"}
CONFLICT = {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
FAILED = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
ABSENT = {"ConditionExpression": "attribute_not_exists(a)"}
PRESENT = {"ConditionExpression": "attribute_exists(a)"}


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_transactions")


async def make_tables(rig: Rig) -> None:
    await make_table(rig, "items", body({"a": "S"}, has_range=False))
    indexed = body(
        {"a": "S", "b": "N", "g": "S", "l": "S"}, local={"by_l:a,l": ALL}, global_={"by_g:g": ALL}
    )
    await make_table(rig, "ranged", indexed, table_id=2)
    streamed = body({"a": "S"}, has_range=False, stream="NEW_AND_OLD_IMAGES")
    await make_table(rig, "streamed", streamed, table_id=3)


@pytest_asyncio.fixture
async def rig(dsn: str) -> AsyncIterator[Rig]:
    async with running(dsn) as rigs:
        await make_tables(rigs[0])
        yield rigs[0]


def key(text: str) -> dict[str, Any]:
    return {"a": {"S": text}}


def put(item: dict[str, Any], table: str = "items", **more: Any) -> dict[str, Any]:
    return {"Put": {"TableName": table, "Item": item} | more}


def delete(name: str, table: str = "items", **more: Any) -> dict[str, Any]:
    return {"Delete": {"TableName": table, "Key": key(name)} | more}


def check(name: str, table: str = "items", **more: Any) -> dict[str, Any]:
    return {"ConditionCheck": {"TableName": table, "Key": key(name)} | more}


def add(name: str, number: int, table: str = "items", **more: Any) -> dict[str, Any]:
    values = {":n": {"N": str(number)}} | more.pop("values", {})
    update = {"UpdateExpression": "ADD n :n", "ExpressionAttributeValues": values}
    return {"Update": {"TableName": table, "Key": key(name)} | update | more}


async def write(rig: Rig, *entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return await rig.perform("TransactWriteItems", TransactItems=list(entries), **more)


async def get(rig: Rig, name: str, table: str = "items") -> dict[str, Any] | None:
    got = await rig.perform("GetItem", TableName=table, Key=key(name))
    return got.get("Item")


async def refused(rig: Rig, *entries: dict[str, Any], **more: Any) -> DynamoError:
    with pytest.raises(DynamoError) as error:
        await write(rig, *entries, **more)
    return error.value


async def canceled(rig: Rig, *entries: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    error = await refused(rig, *entries, **more)
    assert error.code == "TransactionCanceledException"
    reasons: list[dict[str, Any]] = error.extra["CancellationReasons"]
    shown = ", ".join(reason["Code"] for reason in reasons)
    assert error.message == (
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{shown}]"
    )
    return reasons


async def row_count(rig: Rig, table: str = "t1_1") -> int:
    rows = await rig.store(rig.record).fetch(
        f'SELECT count(*)::int4 FROM "{rig.record.schema}".{table}'
    )
    return int(rows[0][0])


@pytest.mark.asyncio
async def test_all_kinds_of_entries_are_committed_together(rig: Rig) -> None:
    await rig.perform("PutItem", TableName="items", Item=key("old"))
    await rig.perform("PutItem", TableName="items", Item=key("seen"))
    ranged = {"a": {"S": "p"}, "b": {"N": "1"}, "g": {"S": "red"}, "l": {"S": "z"}}
    answer = await write(
        rig,
        put(ranged, "ranged"),
        add("n", 3),
        delete("old", **PRESENT),
        check("seen", **PRESENT),
        check("unseen", **ABSENT),
    )
    assert answer == {}
    assert await get(rig, "n") == key("n") | {"n": {"N": "3"}}
    assert await get(rig, "old") is None
    assert await get(rig, "seen") == key("seen")
    assert await get(rig, "unseen") is None
    assert await row_count(rig) == 2
    for index, name, value in (("by_g", "g", "red"), ("by_l", "a", "p")):
        page = await rig.perform(
            "Query",
            TableName="ranged",
            IndexName=index,
            KeyConditionExpression=f"{name} = :v",
            ExpressionAttributeValues={":v": {"S": value}},
        )
        assert page["Items"] == [ranged]


@pytest.mark.asyncio
async def test_one_false_condition_cancels_all_and_says_why_for_each(rig: Rig) -> None:
    old = key("there") | {"n": {"N": "1"}}
    await rig.perform("PutItem", TableName="items", Item=old)
    shown = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    reasons = await canceled(
        rig,
        put(key("new")),
        put(key("there"), **ABSENT, **shown),
        delete("gone", **PRESENT, **shown),
        add("other", 1),
    )
    assert reasons == [NONE, FAILED | {"Item": old}, FAILED, NONE]
    assert await get(rig, "new") is None
    assert await get(rig, "there") == old
    assert await row_count(rig) == 1


@pytest.mark.asyncio
async def test_what_a_table_cannot_take_is_the_reason_of_its_entry(rig: Rig) -> None:
    wrong_key = {"Delete": {"TableName": "items", "Key": {"b": {"S": "x"}}}}
    assert await canceled(rig, put(key("x")), wrong_key) == [
        NONE,
        {
            "Code": "ValidationError",
            "Message": "The provided key element does not match the schema",
        },
    ]
    await rig.perform("PutItem", TableName="items", Item=key("text") | {"n": {"S": "no number"}})
    (reason,) = await canceled(rig, add("text", 1))
    assert reason["Code"] == "ValidationError"
    assert "type" in reason["Message"]
    assert await row_count(rig) == 1


@pytest.mark.asyncio
async def test_one_item_has_one_entry(rig: Rig) -> None:
    twice = "Transaction request cannot include multiple operations on one item"
    error = await refused(rig, put(key("x")), delete("x"))
    assert (error.code, error.message) == ("ValidationException", twice)
    await write(rig, put(key("x")), put(key("x"), "streamed"))
    get_twice = [{"Get": {"TableName": "items", "Key": key("x")}}] * 2
    with pytest.raises(DynamoError) as read:
        await rig.perform("TransactGetItems", TransactItems=get_twice)
    assert read.value.message == twice


@pytest.mark.asyncio
async def test_a_table_that_is_not_there_is_not_found(rig: Rig) -> None:
    error = await refused(rig, put(key("x")), put(key("x"), "nothing"))
    assert error.code == "ResourceNotFoundException"
    assert await row_count(rig) == 0


@pytest.mark.asyncio
async def test_a_token_performs_its_request_once(rig: Rig) -> None:
    wanted = {"ClientRequestToken": "token-1", "ReturnConsumedCapacity": "TOTAL"}
    first = await write(rig, add("n", 1), **wanted)
    assert first["ConsumedCapacity"] == [
        {"TableName": "items", "CapacityUnits": 2.0, "WriteCapacityUnits": 2.0}
    ]
    again = await write(rig, add("n", 1), **wanted)
    assert again["ConsumedCapacity"] == [
        {"TableName": "items", "CapacityUnits": 2.0, "ReadCapacityUnits": 2.0}
    ]
    assert (rig.gate.units[RequestClass.WRITE], rig.gate.units[RequestClass.READ]) == (2, 2)
    error = await refused(rig, add("n", 2), **wanted)
    assert error.code == "IdempotentParameterMismatchException"
    assert await get(rig, "n") == key("n") | {"n": {"N": "1"}}


@pytest.mark.asyncio
async def test_a_token_is_free_again_after_ten_minutes_and_old_ones_are_swept(rig: Rig) -> None:
    store, token = rig.store(rig.record), f'"{rig.record.schema}".token'
    for number in range(3):
        await write(rig, add("n", 1), ClientRequestToken=f"token-{number}")
    await store.execute(f"UPDATE {token} SET at = now() - interval '9 minutes'")
    await write(rig, add("n", 1), ClientRequestToken="token-0")
    assert await get(rig, "n") == key("n") | {"n": {"N": "3"}}
    await store.execute(f"UPDATE {token} SET at = now() - interval '601 seconds'")
    await write(rig, add("n", 5), ClientRequestToken="token-0")
    assert await get(rig, "n") == key("n") | {"n": {"N": "8"}}
    rows = await store.fetch(f"SELECT token FROM {token}")
    assert [bytes(row[0]) for row in rows] == [b"token-0"]


@pytest.mark.asyncio
async def test_a_canceled_transaction_leaves_its_token_free(rig: Rig) -> None:
    entry = put(key("x"), **ABSENT)
    await rig.perform("PutItem", TableName="items", Item=key("x"))
    assert await canceled(rig, entry, ClientRequestToken="t") == [FAILED]
    await rig.perform("DeleteItem", TableName="items", Key=key("x"))
    assert await write(rig, entry, ClientRequestToken="t") == {}
    assert await get(rig, "x") == key("x")


@pytest.mark.asyncio
async def test_the_same_token_at_the_same_time_is_performed_once(dsn: str) -> None:
    async with running(dsn, workers=2) as rigs:
        await make_tables(rigs[0])
        for number in range(10):
            token = f"token-{number}"
            await asyncio.gather(
                *(write(rig, add("n", 1), ClientRequestToken=token) for rig in rigs * 3)
            )
            assert await get(rigs[0], "n") == key("n") | {"n": {"N": str(number + 1)}}


@pytest.mark.asyncio
async def test_a_token_whose_transaction_goes_on_is_in_progress(rig: Rig, dsn: str) -> None:
    other = await asyncpg.connect(dsn)
    async with other.transaction():
        await other.execute(
            f"INSERT INTO \"{rig.record.schema}\".token (token, digest) VALUES ('t', 'x')"
        )
        error = await refused(rig, add("n", 1), ClientRequestToken="t")
        assert error.code == "TransactionInProgressException"
    await other.close()
    assert await get(rig, "n") is None


@pytest.mark.asyncio
async def test_the_stream_holds_what_a_transaction_changed(rig: Rig) -> None:
    await rig.perform("PutItem", TableName="streamed", Item=key("same"))
    await rig.perform("PutItem", TableName="streamed", Item=key("gone"))
    await write(
        rig,
        add("n", 1, "streamed"),
        put(key("same"), "streamed"),
        delete("gone", "streamed"),
        delete("never", "streamed"),
        check("free", "streamed", **ABSENT),
        put(key("x")),
    )
    await canceled(rig, add("n", 1, "streamed"), check("x", **ABSENT))
    log = stream_log(rig.record.schema)
    statement = log.read(Position(), 100, 3)
    rows = await rig.store(rig.record).fetch(statement.text, *statement.params)
    page = log.page([tuple(row) for row in rows], Position(), 100)
    events = [decode(entry.body) for entry in page.entries][2:]
    shown = {(event["e"], event["k"]["a"]["S"]) for event in events}
    assert len(events) == 2
    assert shown == {("INSERT", "n"), ("REMOVE", "gone")}


@pytest.mark.asyncio
async def test_units_are_twice_those_of_single_writes(rig: Rig) -> None:
    ranged = {"a": {"S": "p"}, "b": {"N": "1"}, "g": {"S": "x" * 1500}}
    answer = await write(
        rig,
        put(ranged, "ranged"),
        put(key("x")),
        check("y", **ABSENT),
        ReturnConsumedCapacity="INDEXES",
    )
    four = {"CapacityUnits": 4.0, "WriteCapacityUnits": 4.0}
    assert answer["ConsumedCapacity"] == [
        {"TableName": "ranged", "CapacityUnits": 8.0, "WriteCapacityUnits": 8.0, "Table": four}
        | {"GlobalSecondaryIndexes": {"by_g": four}},
        {"TableName": "items", "CapacityUnits": 4.0, "WriteCapacityUnits": 4.0, "Table": four},
    ]
    assert rig.gate.units[RequestClass.WRITE] == 12
    read = await rig.perform(
        "TransactGetItems",
        TransactItems=[{"Get": {"TableName": "items", "Key": key(n)}} for n in ("x", "absent")],
        ReturnConsumedCapacity="INDEXES",
    )
    four = {"CapacityUnits": 4.0, "ReadCapacityUnits": 4.0}
    assert read["ConsumedCapacity"] == [{"TableName": "items", "Table": four} | four]
    assert rig.gate.units[RequestClass.READ] == 4


@pytest.mark.asyncio
async def test_metrics_of_collections_are_told_for_tables_with_local_indexes(rig: Rig) -> None:
    answer = await write(
        rig,
        put({"a": {"S": "p"}, "b": {"N": "1"}}, "ranged"),
        put({"a": {"S": "p"}, "b": {"N": "2"}}, "ranged"),
        put(key("x")),
        ReturnItemCollectionMetrics="SIZE",
    )
    assert answer == {
        "ItemCollectionMetrics": {
            "ranged": [{"ItemCollectionKey": {"a": {"S": "p"}}, "SizeEstimateRangeGB": [0.0, 1.0]}]
        }
    }


@pytest.mark.asyncio
async def test_over_the_plan_every_entry_of_the_table_says_so(rig: Rig) -> None:
    rig.gate.refusal = rate_error("write", 5, 0.5)
    (reason,) = await canceled(rig, put(key("x")))
    assert reason["Code"] == "ThrottlingError"
    assert rig.gate.units[RequestClass.WRITE] == 0
    rig.gate.refusal = None
    assert await row_count(rig) == 0


@pytest.mark.asyncio
async def test_a_transaction_of_many_tables_is_admitted_at_once(rig: Rig) -> None:
    asked: list[int] = []
    admit = rig.gate.admit

    def noted(request_class: RequestClass, units: int = 1, grows: bool = False) -> Any:
        asked.append(units)
        return admit(request_class, units, grows)

    rig.gate.admit = noted  # type: ignore[method-assign]
    await write(rig, put(key("x")), put(key("x"), "streamed"), delete("y"))
    assert asked == [6]


@pytest.mark.asyncio
async def test_who_stands_in_line_for_too_long_gives_up(rig: Rig) -> None:
    await write(rig, put(key("x")))
    table = await rig_table(rig)
    x = checks.key_bytes(table, key("x"))
    entries = sorted([add("x", 1), add("y", 1)], key=lambda entry: str(entry))
    rig.clock = WaitingClock()
    async with rig.hold((rig.record.instance_id, table.table_id, x.pk, x.rk)):
        writing = asyncio.ensure_future(canceled(rig, *entries))
        await rig.clock.was_read.wait()
        rig.clock.seconds += 6
    assert await writing == [CONFLICT, NONE]
    assert await get(rig, "x") == key("x")


class WaitingClock(Clock):
    """A monotonic time that the test moves, and that tells when it was looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.was_read = asyncio.Event()

    def monotonic(self) -> float:
        self.was_read.set()
        return self.seconds


@pytest.mark.asyncio
async def test_more_than_four_megabytes_are_refused(rig: Rig) -> None:
    big = {"x": {"S": "x" * 390_000}}
    error = await refused(rig, *(put(key(f"k{n}") | big) for n in range(11)))
    assert error.code == "ValidationException"
    assert await row_count(rig) == 0
    for number in range(11):
        await rig.perform("PutItem", TableName="items", Item=key(f"k{number}") | big)
    error = await refused(rig, *(add(f"k{n}", 1) for n in range(11)))
    assert error.code == "ValidationException"
    gets = [{"Get": {"TableName": "items", "Key": key(f"k{n}")}} for n in range(11)]
    with pytest.raises(DynamoError) as read:
        await rig.perform("TransactGetItems", TransactItems=gets)
    assert read.value.code == "ValidationException"
    got = await rig.perform("TransactGetItems", TransactItems=gets[:10])
    assert [response["Item"]["a"]["S"] for response in got["Responses"]] == [
        f"k{n}" for n in range(10)
    ]


@pytest.mark.asyncio
async def test_items_are_read_in_the_order_asked_for(rig: Rig) -> None:
    await write(rig, put(key("x") | {"n": {"N": "1"}, "m": {"N": "2"}}), put(key("y"), "streamed"))
    got = await rig.perform(
        "TransactGetItems",
        TransactItems=[
            {"Get": {"TableName": "streamed", "Key": key("y")}},
            {"Get": {"TableName": "items", "Key": key("absent")}},
            {"Get": {"TableName": "items", "Key": key("x"), "ProjectionExpression": "m"}},
        ],
    )
    assert got == {"Responses": [{"Item": key("y")}, {}, {"Item": {"m": {"N": "2"}}}]}


@pytest.mark.asyncio
async def test_who_waits_too_long_is_told_which_item_is_taken(rig: Rig, dsn: str) -> None:
    await write(rig, put(key("x")), put(key("y")))
    table = f'"{rig.record.schema}".t1_1'
    other = await asyncpg.connect(dsn)
    entries = [add("x", 1), add("y", 1), add("z", 1), add("n", 1, "streamed")]
    async with other.transaction():
        await other.execute(f"SELECT FROM {table} WHERE pk = 'y' FOR UPDATE")
        assert await canceled(rig, *entries) == [NONE, CONFLICT, NONE, NONE]
    key_bytes = checks.key_bytes((await rig_table(rig)), key("z"))
    async with other.transaction():
        await other.execute(
            f"INSERT INTO {table} (sk, pk, ver, size_bytes, page_bytes, tie, item) "
            "VALUES ($1, 'z', 0, 0, 0, 0, '{}')",
            key_bytes.sk,
        )
        assert await canceled(rig, *entries) == [NONE, NONE, CONFLICT, NONE]
        assert await get(rig, "x") == key("x")
    await other.close()


async def rig_table(rig: Rig) -> Any:
    known = await rig.service._tables[rig.record.instance_id].read(rig.store(rig.record), "items")
    assert known is not None
    return known.table

"""PartiQL over a real PostgreSQL: statements, batches and transactions of them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from engines.keyvalue.errors import DynamoError
from engines.kit.ports import Candidate, Grant, RequestClass
from engines.kit.records import Role
from tests.engines.keyvalue.rig import Rig, new_record, running
from tests.engines.keyvalue.tables import body, make_table
from tests.servers import PostgresServer

ALL = {"ProjectionType": "ALL"}
INCLUDE = {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x"]}
NO_KEY = "Where clause does not contain a mandatory equality on all key attributes"


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> str:
    return postgres.create_database("keyvalue_statements")


@pytest_asyncio.fixture
async def rig(dsn: str) -> AsyncIterator[Rig]:
    async with running(dsn) as rigs:
        await make_table(rigs[0], "items", body({"a": "S"}, has_range=False))
        kinds = {"a": "S", "b": "N", "g": "S", "l": "S"}
        indexes = body(kinds, local={"by_l:a,l": INCLUDE}, global_={"by_g:g,b": INCLUDE})
        await make_table(rigs[0], "ranged", indexes, table_id=2)
        yield rigs[0]


def plain(value: dict[str, Any]) -> Any:
    """Return what an attribute value stands for in Python."""
    ((kind, content),) = value.items()
    if kind == "M":
        return {name: plain(each) for name, each in content.items()}
    if kind == "L":
        return [plain(each) for each in content]
    if kind == "NULL":
        return None
    return int(content) if kind == "N" else content


async def execute(rig: Rig, statement: str, *parameters: Any, **more: Any) -> list[Any]:
    """Execute a statement and return its items in plain Python."""
    given = {"Parameters": list(parameters)} if parameters else {}
    answer = await rig.perform("ExecuteStatement", Statement=statement, **given, **more)
    return [plain({"M": item}) for item in answer["Items"]]


async def refused(rig: Rig, statement: str, *parameters: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(DynamoError) as error:
        await execute(rig, statement, *parameters, **more)
    return error.value.code, error.value.message


async def fill(rig: Rig) -> None:
    """Put partitions p and q with the sort keys 1 to 4; `n` is ten times that, `g` red or blue."""
    for partition in "pq":
        for number in range(1, 5):
            colour = "red" if number % 2 else "blue"
            await execute(
                rig,
                f"INSERT INTO ranged VALUE {{'a': '{partition}', 'b': {number}, 'g': '{colour}', "
                f"'n': {number * 10}, 'l': 'l{9 - number}', 'x': 'in', 'm': {{'deep': ['z', 7]}}}}",
            )


def keys(items: list[Any]) -> list[tuple[str, int]]:
    return [(item["a"], item["b"]) for item in items]


@pytest.mark.asyncio
async def test_an_item_is_inserted_once_and_selected(rig: Rig) -> None:
    insert = "INSERT INTO \"items\" VALUE {'a': 'it''s', 'set': <<2, 1.0>>, 'more': ?}"
    assert await execute(rig, insert, {"L": [{"NULL": True}]}) == []
    got = await rig.perform("GetItem", TableName="items", Key={"a": {"S": "it's"}})
    assert got["Item"] == {
        "a": {"S": "it's"},
        "set": {"NS": ["2", "1"]},
        "more": {"L": [{"NULL": True}]},
    }
    assert await refused(rig, insert, {"S": "x"}) == (
        "DuplicateItemException",
        "Duplicate primary key exists in table",
    )
    assert len(await execute(rig, "SELECT * FROM items WHERE a = ?", {"S": "it's"})) == 1
    assert await execute(rig, "SELECT * FROM items WHERE a = 'other'") == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("a = 'p'", [("p", n) for n in (1, 2, 3, 4)]),
        ("'p' = a AND 3 <= b", [("p", 3), ("p", 4)]),
        ("a = 'p' AND b BETWEEN 2 AND 3", [("p", 2), ("p", 3)]),
        ("a = 'p' AND b > 1 AND b < 4", [("p", 2), ("p", 3)]),
        ("a = 'p' AND b > 1 ORDER BY b DESC", [("p", 4), ("p", 3), ("p", 2)]),
        ("a = 'p' AND (g = 'red' AND n <> 10)", [("p", 3)]),
        ("a = 'p' AND (b = 1 OR b = 4)", [("p", 1), ("p", 4)]),
        ("a IN ['q', 'p', 'q'] AND b = 2", [("q", 2), ("p", 2)]),
        ("a IN ('p', 'q') AND b < 2 ORDER BY a DESC", [("q", 1), ("p", 1)]),
        ("(a = 'q' OR a = 'p') AND b = 4", [("q", 4), ("p", 4)]),
        ("a = 'p' AND NOT b IN (1, 2)", [("p", 3), ("p", 4)]),
        ("a = 'p' AND b NOT IN [1, 2, 3]", [("p", 4)]),
        ("a = 'p' AND m.deep[1] = 7 AND size(m.deep) = 2 AND b = 1", [("p", 1)]),
        ("a = 'p' AND contains(m.deep, 'z') AND begins_with(g, 'bl')", [("p", 2), ("p", 4)]),
        ("a = 'p' AND attribute_type(n, 'N') AND y IS MISSING AND b = 1", [("p", 1)]),
        ("a = 'p' AND n IS NOT MISSING AND n IS NOT NULL AND b = 1", [("p", 1)]),
        ("a = 'p' AND n IS NULL", []),
        ("a = 'p' AND b = 1.0e0", [("p", 1)]),
    ],
)
async def test_a_select_with_a_partition_key_is_a_query(
    rig: Rig, where: str, found: list[tuple[str, int]]
) -> None:
    await fill(rig)
    before = rig.gate.units[RequestClass.READ]
    assert keys(await execute(rig, f"SELECT * FROM ranged WHERE {where}")) == found
    assert rig.gate.units[RequestClass.READ] - before == 1


@pytest.mark.asyncio
async def test_a_select_without_one_is_a_scan(rig: Rig) -> None:
    await fill(rig)
    everything = await execute(rig, "SELECT * FROM ranged")
    assert sorted(keys(everything)) == [(a, b) for a in "pq" for b in (1, 2, 3, 4)]
    some = await execute(rig, "SELECT a, b FROM ranged WHERE n >= 30 AND NOT a = 'q'")
    assert sorted(keys(some)) == [("p", 3), ("p", 4)]


@pytest.mark.asyncio
async def test_a_path_is_returned_under_its_last_name(rig: Rig) -> None:
    await fill(rig)
    found = await execute(rig, "SELECT m.deep, m.deep[0], none FROM ranged WHERE a='p' AND b=1")
    assert found == [{"deep": ["z", 7], "_2": "z"}]


@pytest.mark.asyncio
async def test_an_index_gives_what_it_holds(rig: Rig) -> None:
    await fill(rig)
    found = await execute(rig, 'SELECT * FROM "ranged"."by_g" WHERE g = \'red\' AND b > 2')
    assert sorted(keys(found)) == [("p", 3), ("q", 3)]
    assert set(found[0]) == {"a", "b", "g", "x"}
    ordered = "SELECT b, n FROM ranged.by_l WHERE a = 'p' ORDER BY l"
    assert await execute(rig, ordered) == [{"b": n, "n": n * 10} for n in (4, 3, 2, 1)]
    code, message = await refused(rig, "SELECT n FROM ranged.by_g WHERE g = 'red'")
    assert message.endswith("Global secondary index by_g does not project [n]")
    assert (await refused(rig, "SELECT * FROM ranged.none"))[1] == (
        "The table does not have the specified index: none"
    )
    assert code == "ValidationException"
    _, consistent = await refused(
        rig, "SELECT * FROM ranged.by_g WHERE g = 'red'", ConsistentRead=True
    )
    assert consistent == "Consistent reads are not supported on global secondary indexes"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM ranged",
        "SELECT b FROM ranged WHERE a IN ['q', 'p'] AND n > 0",
        "SELECT * FROM ranged WHERE a IN ['q', 'p'] ORDER BY a ASC, b DESC",
        "SELECT * FROM ranged.by_g WHERE g IN ['red', 'blue']",
    ],
)
async def test_pages_together_are_the_whole(rig: Rig, statement: str) -> None:
    await fill(rig)
    whole = await rig.perform("ExecuteStatement", Statement=statement)
    assert "NextToken" not in whole
    for limit in (1, 3, 4):
        found: list[Any] = []
        token: dict[str, Any] = {}
        for _ in range(12):
            page = await rig.perform("ExecuteStatement", Statement=statement, Limit=limit, **token)
            assert len(page["Items"]) <= limit
            found += page["Items"]
            if "NextToken" not in page:
                break
            token = {"NextToken": page["NextToken"]}
        assert found == whole["Items"]


@pytest.mark.asyncio
async def test_a_token_is_of_its_statement_alone(rig: Rig) -> None:
    await fill(rig)
    statement = "SELECT * FROM ranged WHERE a = ?"
    given: dict[str, Any] = {"Statement": statement, "Parameters": [{"S": "p"}], "Limit": 1}
    token = (await rig.perform("ExecuteStatement", **given))["NextToken"]
    invalid = ("ValidationException", "Invalid NextToken: it does not belong to this statement")
    assert await refused(rig, statement, {"S": "q"}, NextToken=token) == invalid
    assert await refused(rig, "SELECT * FROM ranged", NextToken=token) == invalid
    content = orjson.loads(base64.b64decode(token))
    forged: list[Any] = [
        content | {"k": {"a": {"S": 5}}},
        content | {"k": {"a": {"S": "p"}}},
        content | {"k": {"a": {"S": "p"}, "b": {"B": "?"}}},
        content | {"k": [], "p": -1},
        content | {"p": 7},
        [],
    ]
    for each in forged:
        text = base64.b64encode(orjson.dumps(each)).decode()
        code, _ = await refused(rig, statement, {"S": "p"}, NextToken=text)
        assert code == "ValidationException"
    assert await refused(rig, statement, {"S": "p"}, NextToken="no base64!") == invalid


@pytest.mark.asyncio
async def test_an_update_changes_one_item_that_is_there(rig: Rig) -> None:
    await fill(rig)
    update = (
        "UPDATE ranged SET n = n + 5, m.deep = list_append(m.deep, ['y']) SET s = set_add(s, ?) "
        "REMOVE x WHERE a = 'p' AND b = 1 RETURNING {} *"
    )
    (old,) = await execute(rig, update.format("MODIFIED OLD"), {"SS": ["one"]})
    assert old == {"n": 10, "m": {"deep": ["z", 7]}, "x": "in"}
    (new,) = await execute(
        rig, update.format("MODIFIED NEW").replace(" REMOVE x", ""), {"SS": ["two"]}
    )
    assert new == {"n": 20, "m": {"deep": ["z", 7, "y", "y"]}, "s": ["one", "two"]}
    (whole,) = await execute(
        rig, update.format("ALL NEW").replace("set_add", "set_delete"), {"SS": ["one"]}
    )
    assert (whole["n"], whole["s"], "x" in whole) == (25, ["two"], False)
    assert await execute(rig, "UPDATE ranged SET n = 1 WHERE a = 'p' AND b = 1") == []


@pytest.mark.asyncio
async def test_what_where_says_of_other_attributes_is_a_condition(rig: Rig) -> None:
    await fill(rig)
    failed = ("ConditionalCheckFailedException", "The conditional request failed")
    for statement in (
        "UPDATE ranged SET n = 1 WHERE a = 'p' AND b = 9",
        "UPDATE ranged SET n = 1 WHERE a = 'p' AND b = 1 AND n > 10",
        "DELETE FROM ranged WHERE a = 'p' AND b = 1 AND g = 'blue'",
    ):
        assert await refused(rig, statement) == failed
    assert await execute(rig, "DELETE FROM ranged WHERE a = 'p' AND b = 9") == []
    (gone,) = await execute(
        rig, "DELETE FROM ranged WHERE b = 1 AND a = 'p' AND g = 'red' RETURNING ALL OLD *"
    )
    assert gone["n"] == 10
    assert len(await execute(rig, "SELECT * FROM ranged WHERE a = 'p'")) == 3


@pytest.mark.asyncio
async def test_a_failed_condition_shows_the_item_where_asked(rig: Rig) -> None:
    await execute(rig, "INSERT INTO items VALUE {'a': 'x', 'n': 1}")
    with pytest.raises(DynamoError) as error:
        await execute(
            rig,
            "DELETE FROM items WHERE a = 'x' AND n = 2",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert error.value.extra == {"Item": {"a": {"S": "x"}, "n": {"N": "1"}}}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE ranged SET n = 1 WHERE a = 'p'", NO_KEY),
        ("DELETE FROM ranged WHERE a = 'p' AND b > 1", NO_KEY),
        ("DELETE FROM ranged WHERE a = 'p' OR b = 1", NO_KEY),
        ("DELETE FROM items WHERE a = 1", "The provided key element does not match the schema"),
        (
            "SELECT * FROM items WHERE a = 1",
            "One or more parameter values were invalid: Condition parameter type does not match "
            "schema type",
        ),
        (
            "UPDATE items SET a = 'y' WHERE a = 'x'",
            "One or more parameter values were invalid: Cannot update attribute a. This attribute "
            "is part of the key",
        ),
        (
            "SELECT * FROM ranged WHERE a = 'p' ORDER BY n",
            "Variable reference n in ORDER BY clause must be part of the primary key",
        ),
        (
            "SELECT * FROM ranged WHERE b = 1 ORDER BY b",
            "Must have at least one non-optional hash key condition in WHERE clause when using "
            "ORDER BY clause.",
        ),
        (
            "SELECT * FROM ranged ORDER BY b",
            "Must have WHERE clause in the statement when using ORDER BY clause.",
        ),
        (
            "INSERT INTO items VALUE {'b': 1}",
            "One or more parameter values were invalid: Missing the key a in the item",
        ),
        ("EXISTS(SELECT * FROM items WHERE a = 'x')", "EXISTS is only allowed in transactions"),
    ],
)
async def test_what_a_table_does_not_allow(rig: Rig, statement: str, message: str) -> None:
    assert await refused(rig, statement) == ("ValidationException", message)


@pytest.mark.asyncio
async def test_a_reader_may_select_and_nothing_else(rig: Rig) -> None:
    await execute(rig, "INSERT INTO items VALUE {'a': 'x'}")
    reader = new_record(Role.READ)
    rig.grant_ = Grant(Candidate(rig.record, reader.credentials[0], is_mock=False), rig.gate)
    assert await execute(rig, "SELECT * FROM items") == [{"a": "x"}]
    for statement in (
        "INSERT INTO items VALUE {'a': 'y'}",
        "UPDATE items SET n = 1 WHERE a = 'x'",
        "DELETE FROM items WHERE a = 'x'",
    ):
        assert (await refused(rig, statement))[0] == "AccessDeniedException"
        (response,) = await batch(rig, statement)
        assert response["Error"]["Code"] == "AccessDenied"
        with pytest.raises(DynamoError) as error:
            await transact(rig, statement)
        assert error.value.code == "AccessDeniedException"
    assert await execute(rig, "SELECT * FROM items") == [{"a": "x"}]


@pytest.mark.asyncio
async def test_only_a_select_has_pages(rig: Rig) -> None:
    assert (await refused(rig, "SELECT * FROM nothing"))[0] == "ResourceNotFoundException"
    assert (await refused(rig, "INSERT INTO items VALUE {'a': 'x'}", Limit=1))[1] == (
        "Limit is only allowed with SELECT"
    )


@pytest.mark.asyncio
async def test_units_are_those_of_the_operations_on_items(rig: Rig) -> None:
    insert = "INSERT INTO items VALUE {'a': 'x', 'big': ?}"
    answer = await rig.perform(
        "ExecuteStatement",
        Statement=insert,
        Parameters=[{"S": "y" * 5000}],
        ReturnConsumedCapacity="TOTAL",
    )
    assert answer["ConsumedCapacity"] == {"TableName": "items", "CapacityUnits": 5.0}
    answer = await rig.perform(
        "ExecuteStatement",
        Statement="SELECT a FROM items WHERE a = 'x'",
        ConsistentRead=True,
        ReturnConsumedCapacity="TOTAL",
    )
    assert answer == {
        "Items": [{"a": {"S": "x"}}],
        "ConsumedCapacity": {"TableName": "items", "CapacityUnits": 2.0},
    }
    assert (rig.gate.units[RequestClass.WRITE], rig.gate.units[RequestClass.READ]) == (5, 2)


async def batch(rig: Rig, *statements: str, **more: Any) -> list[Any]:
    answer = await rig.perform(
        "BatchExecuteStatement", Statements=[{"Statement": each} for each in statements], **more
    )
    return list(answer["Responses"])


@pytest.mark.asyncio
async def test_a_batch_refuses_one_statement_and_performs_the_others(rig: Rig) -> None:
    responses = await batch(
        rig,
        "INSERT INTO items VALUE {'a': 'x', 'n': 1}",
        "INSERT INTO items VALUE {'a': 'x'}",
        "UPDATE items SET n = n + 1 WHERE a = 'x' RETURNING ALL NEW *",
        "UPDATE items SET n = 1 WHERE a = 'none'",
        "DELETE FROM nothing WHERE a = 'x'",
        "DELETE items",
    )
    assert responses[0] == {"TableName": "items"}
    assert responses[2]["Item"]["n"] == {"N": "2"}
    assert [response.get("Error", {}).get("Code") for response in responses] == [
        None,
        "DuplicateItem",
        None,
        "ConditionalCheckFailed",
        "ResourceNotFound",
        "ValidationError",
    ]
    got = await batch(
        rig,
        "SELECT n FROM items WHERE a = 'x'",
        "SELECT n FROM items WHERE a = 'x' AND n = 5",
        "SELECT n FROM items WHERE n = 2",
    )
    assert got[:2] == [{"TableName": "items", "Item": {"n": {"N": "2"}}}, {"TableName": "items"}]
    assert got[2]["Error"]["Message"] == (
        "Select statements within BatchExecuteStatement must specify the primary key in the "
        "where clause."
    )


@pytest.mark.asyncio
async def test_a_batch_reads_or_writes(rig: Rig) -> None:
    with pytest.raises(DynamoError) as error:
        await batch(rig, "SELECT * FROM items WHERE a = 'x'", "INSERT INTO items VALUE {'a': 'x'}")
    assert error.value.code == "ValidationException"
    assert await execute(rig, "SELECT * FROM items") == []


@pytest.mark.asyncio
async def test_a_batch_goes_on_where_a_table_changes_its_form(rig: Rig) -> None:
    await execute(rig, "INSERT INTO items VALUE {'a': 'x', 'n': 1}")
    await execute(rig, "INSERT INTO ranged VALUE {'a': 'x', 'b': 1}")
    schema = rig.record.schema
    async with rig.store(rig.record).transaction() as statements:
        await statements.execute(f'ALTER TABLE "{schema}".t1_1 RENAME TO t1_2')
        await statements.execute(
            f"UPDATE \"{schema}\".catalogue SET shape = 2 WHERE name = 'items'"
        )
    responses = await batch(
        rig,
        "INSERT INTO ranged VALUE {'a': 'x', 'b': 2}",
        "UPDATE items SET n = n + 1 WHERE a = 'x'",
    )
    assert responses == [{"TableName": "ranged"}, {"TableName": "items"}]
    assert await execute(rig, "SELECT n FROM items") == [{"n": 2}]


async def transact(rig: Rig, *statements: str, **more: Any) -> dict[str, Any]:
    given = [{"Statement": each} for each in statements]
    return await rig.perform("ExecuteTransaction", TransactStatements=given, **more)


async def canceled(rig: Rig, *statements: str) -> list[str]:
    with pytest.raises(DynamoError) as error:
        await transact(rig, *statements)
    assert error.value.code == "TransactionCanceledException"
    return [reason["Code"] for reason in error.value.extra["CancellationReasons"]]


@pytest.mark.asyncio
async def test_a_transaction_performs_all_statements_or_none(rig: Rig) -> None:
    await execute(rig, "INSERT INTO items VALUE {'a': 'x', 'n': 1}")
    exists = "EXISTS(SELECT * FROM items WHERE a = 'x' AND n = {})"
    entries = (
        "INSERT INTO items VALUE {'a': 'new'}",
        "UPDATE ranged SET n = 1 WHERE a = 'p' AND b = 1",
        "DELETE FROM ranged WHERE a = 'p' AND b = 2",
    )
    assert await canceled(rig, *entries, exists.format(1)) == [
        "None", "ConditionalCheckFailed", "None", "None",
    ]  # fmt: skip
    await execute(rig, "INSERT INTO ranged VALUE {'a': 'p', 'b': 1}")
    assert await canceled(rig, *entries, exists.format(2)) == [
        "None", "None", "None", "ConditionalCheckFailed",
    ]  # fmt: skip
    assert await transact(rig, *entries, exists.format(1)) == {"Responses": [{}, {}, {}, {}]}
    assert await canceled(rig, "INSERT INTO items VALUE {'a': 'new'}") == ["DuplicateItem"]
    assert await canceled(rig, entries[1], "INSERT items") == ["None", "ValidationError"]
    assert await execute(rig, "SELECT n FROM ranged WHERE a = 'p' AND b = 1") == [{"n": 1}]


@pytest.mark.asyncio
async def test_a_transaction_of_selects_answers_in_order(rig: Rig) -> None:
    await execute(rig, "INSERT INTO items VALUE {'a': 'x', 'n': 1}")
    await execute(rig, "INSERT INTO ranged VALUE {'a': 'p', 'b': 1, 'm': {'d': 2}}")
    answer = await transact(
        rig,
        "SELECT m.d FROM ranged WHERE a = 'p' AND b = 1",
        "SELECT * FROM items WHERE a = 'none'",
        "SELECT n FROM items WHERE a = 'x' AND n = 1",
        ReturnConsumedCapacity="TOTAL",
    )
    assert answer["Responses"] == [{"Item": {"d": {"N": "2"}}}, {}, {"Item": {"n": {"N": "1"}}}]
    assert answer["ConsumedCapacity"] == [
        {"TableName": "ranged", "CapacityUnits": 2.0, "ReadCapacityUnits": 2.0},
        {"TableName": "items", "CapacityUnits": 4.0, "ReadCapacityUnits": 4.0},
    ]
    with pytest.raises(DynamoError) as error:
        await transact(
            rig, "SELECT * FROM items WHERE a = 'x'", "INSERT INTO items VALUE {'a': 'y'}"
        )
    assert error.value.code == "ValidationException"


@pytest.mark.asyncio
async def test_a_token_performs_a_transaction_of_statements_once(rig: Rig) -> None:
    await execute(rig, "INSERT INTO items VALUE {'a': 'x', 'n': 1}")
    add = "UPDATE items SET n = n + 1 WHERE a = 'x'"
    for _ in range(3):
        await transact(rig, add, ClientRequestToken="once")
    assert await execute(rig, "SELECT n FROM items") == [{"n": 2}]

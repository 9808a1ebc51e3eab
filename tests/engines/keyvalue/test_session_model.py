"""Random tables, items and reads against a plain dictionary: whatever the way, the same answer."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engines.keyvalue.rig import Rig, running
from tests.engines.keyvalue.tables import body, make_table
from tests.servers import PostgresServer

TEXTS = st.text(st.sampled_from("ab\x01\x7f\u00e9\U0001f600"), min_size=1, max_size=4)
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.integers(-(10**37), 10**37).map(str),
    st.sampled_from(["0.1", "-0.1", "0.0000000001", "1.5", "-12.25", "9007199254740993"]),
)
BINARIES = st.binary(min_size=1, max_size=4).map(lambda data: base64.b64encode(data).decode())
CONTENTS = {"S": TEXTS, "N": NUMBERS, "B": BINARIES}
KINDS = st.sampled_from("SNB")


@dataclass
class Model:
    """The documented semantics over a dictionary: items by key, sorted when asked."""

    kinds: dict[str, str]
    items: dict[tuple[Any, Any], dict[str, Any]] = field(default_factory=dict)

    def value(self, name: str, item: dict[str, Any]) -> Any:
        """Return what an attribute is ordered by."""
        kind = self.kinds[name]
        content = item[name][kind]
        if kind == "N":
            return Decimal(content)
        return base64.b64decode(content) if kind == "B" else content.encode()

    def put(self, item: dict[str, Any]) -> None:
        self.items[self.value("a", item), self.value("b", item)] = item

    def delete(self, key: dict[str, Any]) -> None:
        self.items.pop((self.value("a", key), self.value("b", key)), None)

    def query(self, by: tuple[str, str], partition: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a partition of the table or an index in the order of its sort key."""
        hashed, sorted_by = by
        wanted = self.value(hashed, partition)
        found = [
            item
            for item in self.items.values()
            if all(self.kinds[name] in item.get(name, ()) for name in by)
            and self.value(hashed, item) == wanted
        ]
        return sorted(found, key=lambda item: self.value(sorted_by, item))


@st.composite
def scripts(draw: st.DrawFn) -> tuple[dict[str, str], list[tuple[str, dict[str, Any]]]]:
    """A table's key types, and writes to it; few different keys, so that they meet."""
    kinds = {name: draw(KINDS) for name in "abgl"}
    partitions = draw(st.lists(CONTENTS[kinds["a"]], min_size=1, max_size=3, unique=True))
    sorts = draw(st.lists(CONTENTS[kinds["b"]], min_size=1, max_size=6, unique=True))
    writes = []
    for number in range(draw(st.integers(1, 25))):
        item: dict[str, Any] = {
            "a": {kinds["a"]: draw(st.sampled_from(partitions))},
            "b": {kinds["b"]: draw(st.sampled_from(sorts))},
        }
        deed = draw(st.sampled_from(["put", "put", "put", "batch", "update", "delete"]))
        if deed != "delete":
            for name in "gl":
                if draw(st.booleans()):
                    item[name] = {kinds[name]: draw(CONTENTS[kinds[name]])}
            item["v"] = {"N": str(number)}
        writes.append((deed, item))
    return kinds, writes


async def write(rig: Rig, model: Model, table: str, deed: str, item: dict[str, Any]) -> None:
    key = {name: item[name] for name in "ab"}
    if deed == "put":
        await rig.perform("PutItem", TableName=table, Item=item)
        model.put(item)
    elif deed == "batch":
        await rig.perform("BatchWriteItem", RequestItems={table: [{"PutRequest": {"Item": item}}]})
        model.put(item)
    elif deed == "delete":
        await rig.perform("DeleteItem", TableName=table, Key=key)
        model.delete(key)
    else:
        rest = {name: value for name, value in item.items() if name not in key}
        await rig.perform(
            "UpdateItem",
            TableName=table,
            Key=key,
            UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in rest),
            ExpressionAttributeValues={f":{name}": value for name, value in rest.items()},
        )
        model.put(model.items.get((model.value("a", key), model.value("b", key)), key) | rest)


async def pages(
    rig: Rig, operation: str, fields: dict[str, Any], limit: int
) -> list[dict[str, Any]]:
    """Read all pages; a page of so few items that there are several."""
    found: list[dict[str, Any]] = []
    start: dict[str, Any] = {}
    for _ in range(100):
        page = await rig.perform(operation, **fields, Limit=limit, **start)
        found += page["Items"]
        if "LastEvaluatedKey" not in page:
            return found
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    raise AssertionError("the pages never end")


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Say whether two lists hold the same items, in any order."""
    return sorted(map(repr, map(ordered, found))) == sorted(map(repr, map(ordered, wanted)))


def ordered(item: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(item.items())


async def check(rig: Rig, model: Model, table: str) -> None:
    everything = list(model.items.values())
    for total in (1, 3):
        parts = [
            await pages(
                rig, "Scan", {"TableName": table, "Segment": number, "TotalSegments": total}, 3
            )
            for number in range(total)
        ]
        assert same(list(itertools.chain(*parts)), everything)
    for index, by in ((None, ("a", "b")), ("by_l", ("a", "l")), ("by_g", ("g", "l"))):
        holders = [item for item in everything if by[0] in item]
        for partition in holders[:4]:
            wanted = model.query(by, partition)
            fields: dict[str, Any] = {
                "TableName": table,
                "KeyConditionExpression": f"{by[0]} = :p",
                "ExpressionAttributeValues": {":p": partition[by[0]]},
            }
            if index:
                fields["IndexName"] = index
            found = await pages(rig, "Query", fields, 2)
            assert same(found, wanted)
            order = [model.value(by[1], item) for item in found]
            assert order == sorted(order)
            backwards = await pages(rig, "Query", fields | {"ScanIndexForward": False}, 2)
            assert backwards == found[::-1]
    for item in everything[:5]:
        await check_ranges(rig, model, table, item)


async def check_ranges(rig: Rig, model: Model, table: str, pivot: dict[str, Any]) -> None:
    """Each operator on the sort key, with a sort key that is there."""
    wanted = model.query(("a", "b"), pivot)
    at = model.value("b", pivot)
    tests: dict[str, Callable[[Any], bool]] = {
        "b = :b": lambda value: bool(value == at),
        "b < :b": lambda value: bool(value < at),
        "b <= :b": lambda value: bool(value <= at),
        "b > :b": lambda value: bool(value > at),
        "b >= :b": lambda value: bool(value >= at),
    }
    if model.kinds["b"] != "N":
        tests["begins_with(b, :b)"] = lambda value: bool(value.startswith(at))
    for test, holds in tests.items():
        found = await rig.perform(
            "Query",
            TableName=table,
            KeyConditionExpression=f"a = :a AND {test}",
            ExpressionAttributeValues={":a": pivot["a"], ":b": pivot["b"]},
        )
        assert found["Items"] == [item for item in wanted if holds(model.value("b", item))]


@pytest.fixture(scope="module")
def served(postgres: PostgresServer) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Run a coroutine with the rig of this module's instance, all in one loop."""
    dsn = postgres.create_database("keyvalue_model")
    loop = asyncio.new_event_loop()
    instance = running(dsn)
    rigs = loop.run_until_complete(instance.__aenter__())
    numbers = itertools.count(1)

    def serve(script: Callable[[Rig, int], Awaitable[None]]) -> None:
        loop.run_until_complete(script(rigs[0], next(numbers)))

    yield serve  # type: ignore[misc]
    loop.run_until_complete(instance.__aexit__(None, None, None))
    loop.close()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(script=scripts())
def test_every_way_of_reading_sees_what_a_dictionary_would_hold(
    served: Callable[[Callable[[Rig, int], Awaitable[None]]], None],
    script: tuple[dict[str, str], list[tuple[str, dict[str, Any]]]],
) -> None:
    kinds, writes = script

    async def play(rig: Rig, number: int) -> None:
        table, model = f"table{number}", Model(kinds)
        projection = {"ProjectionType": "ALL"}
        described = body(kinds, local={"by_l:a,l": projection}, global_={"by_g:g,l": projection})
        await make_table(rig, table, described, table_id=number)
        for deed, item in writes:
            await write(rig, model, table, deed, item)
        await check(rig, model, table)

    served(play)

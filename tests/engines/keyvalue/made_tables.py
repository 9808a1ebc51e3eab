"""Requests of CreateTable for tests, and what waits for work in the background."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.session.background import run
from engines.kit.http.whole import HttpPorts
from tests.engines.keyvalue.rig import Rig

UNITS = {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}
HASH = {"AttributeName": "a", "KeyType": "HASH"}
RANGE = {"AttributeName": "b", "KeyType": "RANGE"}
ON_DEMAND = "PAY_PER_REQUEST"


def definitions(**kinds: str) -> list[dict[str, str]]:
    """Return AttributeDefinitions."""
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in kinds.items()]


def table(name: str, **more: Any) -> dict[str, Any]:
    """Return a table of the partition key `a`, a string, on demand."""
    fields = {
        "TableName": name,
        "AttributeDefinitions": definitions(a="S"),
        "KeySchema": [HASH],
        "BillingMode": ON_DEMAND,
    }
    return fields | more


def index(name: str, *keys: str, kind: str = "ALL") -> dict[str, Any]:
    """Return a secondary index."""
    return {
        "IndexName": name,
        "KeySchema": [
            {"AttributeName": key, "KeyType": word}
            for key, word in zip(keys, ("HASH", "RANGE"), strict=False)
        ],
        "Projection": {"ProjectionType": kind},
    }


def new_index(table_name: str, made: dict[str, Any], **kinds: str) -> dict[str, Any]:
    """Return an UpdateTable that adds an index."""
    return {
        "TableName": table_name,
        "AttributeDefinitions": definitions(**kinds),
        "GlobalSecondaryIndexUpdates": [{"Create": made}],
    }


async def put(rig: Rig, name: str, *items: dict[str, Any]) -> None:
    """Put items."""
    for item in items:
        await rig.perform("PutItem", TableName=name, Item=item)


async def described(rig: Rig, name: str) -> dict[str, Any]:
    """Return DescribeTable's answer."""
    shown: dict[str, Any] = (await rig.perform("DescribeTable", TableName=name))["Table"]
    return shown


async def settled(rig: Rig) -> None:
    """Wait until the worker's background work has ended."""
    while going := [task for task in rig.tasks.values() if not task.done()]:
        await asyncio.gather(*going)


async def given_up(rig: Rig) -> None:
    """Wait until the worker's background work has ended, whatever way."""
    while going := [task for task in rig.tasks.values() if not task.done()]:
        await asyncio.gather(*going, return_exceptions=True)


async def look(rig: Rig) -> None:
    """Do what the worker does now and then: whatever is due."""
    await run(cast(HttpPorts, rig), rig.record)
    await settled(rig)


async def refused(rig: Rig, operation: str, **fields: Any) -> DynamoError:
    """Perform what is refused and return how."""
    with pytest.raises(DynamoError) as error:
        await rig.perform(operation, **fields)
    return error.value

"""ConsumedCapacity: what a write costs its table and the indexes that it changes."""

from __future__ import annotations

from typing import Any

import pytest

from engines.keyvalue.plan.catalogue import Table, table_of
from engines.keyvalue.reply import collection_metrics, consumed_by_write, index_writes, projected
from tests.engines.keyvalue.tables import body

TABLE: Table = table_of(
    "s",
    "t",
    1,
    1,
    body(
        {"a": "S", "g": "S"},
        has_range=False,
        global_={
            "all:g": {"ProjectionType": "ALL"},
            "keys:g": {"ProjectionType": "KEYS_ONLY"},
        },
    ),
)


def item(**texts: str) -> dict[str, Any]:
    return {"a": {"S": "x"}} | {name: {"S": text} for name, text in texts.items()}


@pytest.mark.parametrize(
    ("old", "new", "units"),
    [
        (None, item(), {}),
        (None, item(g="1"), {"all": 1.0, "keys": 1.0}),
        (item(g="1"), item(g="1"), {}),
        (item(g="1"), item(g="1", y="z"), {"all": 1.0}),
        (item(g="1"), item(g="2"), {"all": 2.0, "keys": 2.0}),
        (item(g="1", y="z" * 3000), None, {"all": 3.0, "keys": 1.0}),
    ],
)
def test_units_of_the_indexes_that_a_write_changes(
    old: dict[str, Any] | None, new: dict[str, Any] | None, units: dict[str, float]
) -> None:
    assert index_writes(TABLE, old, new) == units


def test_capacity_is_told_as_it_is_asked_for() -> None:
    assert consumed_by_write({}, TABLE, 1.0, None, item(g="1")) == ({}, 3.0)
    told, _ = consumed_by_write(
        {"ReturnConsumedCapacity": "INDEXES"}, TABLE, 1.0, None, item(g="1")
    )
    assert told == {
        "ConsumedCapacity": {
            "TableName": "t",
            "CapacityUnits": 3.0,
            "Table": {"CapacityUnits": 1.0},
            "GlobalSecondaryIndexes": {
                "all": {"CapacityUnits": 1.0},
                "keys": {"CapacityUnits": 1.0},
            },
        }
    }


def test_an_index_holds_its_projection_of_items_with_its_keys() -> None:
    assert projected(TABLE.indexes["keys"], item(g="1", y="z")) == item(g="1")
    assert projected(TABLE.indexes["keys"], item(y="z")) is None


def test_the_size_of_a_collection_is_between_two_gigabytes() -> None:
    assert collection_metrics(TABLE, item(), 3 * 2**30 + 5) == {
        "ItemCollectionKey": {"a": {"S": "x"}},
        "SizeEstimateRangeGB": [3.0, 4.0],
    }

"""CreateTable and UpdateTable: keys, indexes and throughput that do not go together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.requests import read

INVALID = "One or more parameter values were invalid: "
UNITS = {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}
ALL = {"ProjectionType": "ALL"}


def schema(*keys: str) -> list[dict[str, str]]:
    """Return a key schema: "a" is a hash key, "b/RANGE" a range key."""
    pairs = (key.partition("/") for key in keys)
    return [{"AttributeName": name, "KeyType": kind or "HASH"} for name, _, kind in pairs]


def index(name: str, *keys: str, **more: Any) -> dict[str, Any]:
    """Return an index of all attributes."""
    return {"IndexName": name, "KeySchema": schema(*keys), "Projection": ALL, **more}


def defined(names: str) -> list[dict[str, str]]:
    """Define strings of one letter each."""
    return [{"AttributeName": name, "AttributeType": "S"} for name in names]


def table(names: str, *keys: str, **more: Any) -> dict[str, Any]:
    """Return a CreateTable."""
    return {
        "TableName": "abc",
        "AttributeDefinitions": defined(names),
        "KeySchema": schema(*keys),
        "BillingMode": "PAY_PER_REQUEST",
        **more,
    }


def refusal(operation: str, body: dict[str, Any]) -> str:
    """Return the words with which a body is refused."""
    with pytest.raises(DynamoError) as caught:
        read(operation, json.dumps(body).encode())
    assert caught.value.code == "ValidationException"
    return caught.value.message


PROVISIONED: dict[str, Any] = {"BillingMode": "PROVISIONED"}
KEYS = "a", "b/RANGE"
TOO_MANY_UNITS = {"ReadCapacityUnits": 10**12, "WriteCapacityUnits": 10**12 + 1}
CASES: list[tuple[dict[str, Any], str]] = [
    (table("a", "a", ProvisionedThroughput=UNITS), INVALID + "Neither ReadCapacityUnits nor "
     "WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"),
    (table("a", "a", **PROVISIONED), INVALID + "ReadCapacityUnits and WriteCapacityUnits must both "
     "be specified when BillingMode is PROVISIONED"),
    (table("a", "a", **PROVISIONED, ProvisionedThroughput=TOO_MANY_UNITS),
     "Given value 1000000000001 for WriteCapacityUnits is out of bounds"),
    (table("aa", "a"), INVALID + "Duplicate AttributeName in AttributeDefinitions: a"),
    (table("a", "a", "b"), "Invalid KeySchema: Some index key attribute have no definition"),
    (table("b", "a"), INVALID + "Some index key attributes are not defined in "
     "AttributeDefinitions. Keys: [a], AttributeDefinitions: [b]"),
    (table("a", "a/RANGE"), "Invalid KeySchema: The first KeySchemaElement is not a HASH key type"),
    (table("ab", "a", "a/RANGE"),
     "Both the Hash Key and the Range Key element in the KeySchema have the same name"),
    (table("ab", "a", "b"),
     "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type"),
    (table("ab", "a"), INVALID + "Number of attributes in KeySchema does not exactly match number "
     "of attributes defined in AttributeDefinitions"),
    (table("ab", *KEYS, LocalSecondaryIndexes=[]),
     INVALID + "List of LocalSecondaryIndexes is empty"),
    (table("ab", "a", LocalSecondaryIndexes=[index("abc", *KEYS)]), INVALID + "Table KeySchema "
     "does not have a range key, which is required when specifying a LocalSecondaryIndex"),
    (table("ab", *KEYS, LocalSecondaryIndexes=[index("abc", "a")]),
     INVALID + "Index KeySchema does not have a range key for index: abc"),
    (table("ab", *KEYS, LocalSecondaryIndexes=[index("abc", "b", "a/RANGE")]), INVALID + "Index "
     "KeySchema does not have the same leading hash key as table KeySchema for index: abc. index "
     "hash key: b, table hash key: a"),
    (table("ab", *KEYS, LocalSecondaryIndexes=[index(f"abc{n}", *KEYS) for n in range(6)]),
     INVALID + "Number of LocalSecondaryIndexes exceeds per-table limit of 5"),
    (table("ab", *KEYS, GlobalSecondaryIndexes=[]),
     INVALID + "List of GlobalSecondaryIndexes is empty"),
    (table("ab", *KEYS, GlobalSecondaryIndexes=[index("abc", "c")]), INVALID + "Some index key "
     "attributes are not defined in AttributeDefinitions. Keys: [c], AttributeDefinitions: [a, b]"),
    (table("ab", *KEYS, GlobalSecondaryIndexes=[index("abc", "b", ProvisionedThroughput=UNITS)]),
     INVALID + "ProvisionedThroughput should not be specified for index: abc when BillingMode is "
     "PAY_PER_REQUEST"),
    (table("ab", *KEYS, ProvisionedThroughput=UNITS, **PROVISIONED,
           GlobalSecondaryIndexes=[index("abc", "b")]),
     INVALID + "ProvisionedThroughput must be specified for index: abc"),
    (table("ab", *KEYS, ProvisionedThroughput=UNITS, **PROVISIONED,
           GlobalSecondaryIndexes=[index("abc", "b", ProvisionedThroughput=TOO_MANY_UNITS)]),
     "Given value 1000000000001 for WriteCapacityUnits is out of bounds for index abc"),
    (table("ab", *KEYS, GlobalSecondaryIndexes=[index(f"abc{n}", "b") for n in range(21)]),
     INVALID + "GlobalSecondaryIndex count exceeds the per-table limit of 20"),
    (table("ab", *KEYS, LocalSecondaryIndexes=[index("abc", *KEYS)],
           GlobalSecondaryIndexes=[index("abc", "b")]), INVALID + "Duplicate index name: abc"),
    (table("abc", *KEYS, GlobalSecondaryIndexes=[index("abc", "b")]), INVALID + "Some "
     "AttributeDefinitions are not used. AttributeDefinitions: [a, b, c], keys used: [a, b]"),
    (table("a", "a", StreamSpecification={"StreamEnabled": True}),
     INVALID + "StreamViewType must be specified when StreamEnabled is true"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message"), CASES)
def test_a_table_that_cannot_be_is_refused(body: dict[str, Any], message: str) -> None:
    assert refusal("CreateTable", body) == message


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        ({}, "Unknown ProjectionType: null"),
        ({"ProjectionType": "ALL", "NonKeyAttributes": ["x"]},
         "ProjectionType is ALL, but NonKeyAttributes is specified"),
        ({"ProjectionType": "KEYS_ONLY", "NonKeyAttributes": ["x"]},
         "ProjectionType is KEYS_ONLY, but NonKeyAttributes is specified"),
        ({"ProjectionType": "INCLUDE"},
         "ProjectionType is INCLUDE, but NonKeyAttributes is not specified"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("member", ["LocalSecondaryIndexes", "GlobalSecondaryIndexes"])
def test_a_projection_names_attributes_or_not(
    member: str, projection: dict[str, Any], message: str
) -> None:
    body = table("ab", *KEYS, **{member: [index("abc", *KEYS, Projection=projection)]})
    assert refusal("CreateTable", body) == INVALID + message


ACTIONS = (
    "One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, "
    "GlobalSecondaryIndexUpdate.Delete must not be null"
)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, "
         "GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required"),
        ({"BillingMode": "PROVISIONED"},
         INVALID + "ProvisionedThroughput must be specified when BillingMode is PROVISIONED"),
        ({"GlobalSecondaryIndexUpdates": [{}]}, INVALID + ACTIONS),
        ({"GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "abc"}}] * 2}, INVALID + "Only "
         "one global secondary index update per index is allowed simultaneously. Index: abc"),
        ({"GlobalSecondaryIndexUpdates": [{"Create": index("abc", "x")}]}, INVALID + "Some index "
         "key attributes are not defined in AttributeDefinitions. Keys: [x], "
         "AttributeDefinitions: []"),
    ],
)  # fmt: skip
def test_an_update_that_says_nothing_or_too_much_is_refused(
    more: dict[str, Any], message: str
) -> None:
    assert refusal("UpdateTable", {"TableName": "abc", **more}) == message


def test_a_table_with_everything_is_read_as_it_is() -> None:
    body = table(
        "abc", *KEYS, ProvisionedThroughput=UNITS, **PROVISIONED,
        LocalSecondaryIndexes=[index("local", "a", "c/RANGE")],
        GlobalSecondaryIndexes=[index("global", "c", ProvisionedThroughput=UNITS)],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
        Tags=[{"Key": "k", "Value": ""}],
    )  # fmt: skip
    assert read("CreateTable", json.dumps(body).encode()).fields == body


def test_many_indexes_and_definitions_cost_what_their_bytes_cost() -> None:
    many = [{"AttributeName": f"n{n}", "AttributeType": "S"} for n in range(100_000)]
    body = table("ab", *KEYS, GlobalSecondaryIndexes=[index("abc", "b")] * 20_000)
    body["AttributeDefinitions"] += many
    assert "Duplicate index name" in refusal("CreateTable", body)

"""Constraints of the service model: collected, worded by the framework, ten at the most."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.requests import read

NAME = "satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
SHORT = "have length greater than or equal to 3"
NOT_NULL = "not be null"
CAPACITY = "satisfy enum value set: [INDEXES, TOTAL, NONE]"
OPERATORS = (
    "satisfy enum value set: [IN, NULL, BETWEEN, LT, NOT_CONTAINS, EQ, GT, NOT_NULL, NE, LE, "
    "BEGINS_WITH, GE, CONTAINS]"
)
TABLE_KEYS = (
    "satisfy constraint: [Member must have length less than or equal to 255, Member must have "
    f"length greater than or equal to 3, Member must {NAME}]"
)
LONG = "x" * 256


def refusal(operation: str, body: dict[str, Any]) -> str:
    """Return the words with which a body is refused."""
    with pytest.raises(DynamoError) as caught:
        read(operation, json.dumps(body).encode())
    assert caught.value.code == "ValidationException"
    return caught.value.message


def told(shown: str, path: str, constraint: str, subject: str = "Member") -> str:
    """One constraint that failed."""
    return f"Value {shown} at '{path}' failed to satisfy constraint: {subject} must {constraint}"


# operation, body, (value, path, constraint) of each error
CASES: list[tuple[str, dict[str, Any], list[tuple[str, str, str]]]] = [
    ("GetItem", {}, [("null", "tableName", NOT_NULL), ("null", "key", NOT_NULL)]),
    ("PutItem", {}, [("null", "tableName", NOT_NULL), ("null", "item", NOT_NULL)]),
    ("DeleteItem", {"TableName": "abc"}, [("null", "key", NOT_NULL)]),
    ("Query", {}, [("null", "tableName", NOT_NULL)]),
    (
        "Scan",
        {"TableName": "a;"},
        [("'a;'", "tableName", NAME), ("'a;'", "tableName", SHORT)],
    ),
    (
        "Scan",
        {"TableName": LONG},
        [(f"'{LONG}'", "tableName", "have length less than or equal to 255")],
    ),
    (
        "Scan",
        {"TableName": "abc", "Limit": 0, "Segment": -1, "TotalSegments": 1000001},
        [
            ("'0'", "limit", "have value greater than or equal to 1"),
            ("'-1'", "segment", "have value greater than or equal to 0"),
            ("'1000001'", "totalSegments", "have value less than or equal to 1000000"),
        ],
    ),
    (
        "Scan",
        {
            "TableName": "abc",
            "ConditionalOperator": "XOR",
            "Select": "all",
            "ScanFilter": {"a": {}, "b": {"ComparisonOperator": "="}},
        },
        [
            ("'XOR'", "conditionalOperator", "satisfy enum value set: [OR, AND]"),
            (
                "'all'",
                "select",
                "satisfy enum value set: [SPECIFIC_ATTRIBUTES, COUNT, ALL_ATTRIBUTES, "
                "ALL_PROJECTED_ATTRIBUTES]",
            ),
            ("null", "scanFilter.a.member.comparisonOperator", NOT_NULL),
            ("'='", "scanFilter.b.member.comparisonOperator", OPERATORS),
        ],
    ),
    (
        "UpdateItem",
        {
            "TableName": "abc",
            "Key": {},
            "ReturnValues": "ALL",
            "ReturnConsumedCapacity": "ALL",
            "ReturnItemCollectionMetrics": "ALL",
        },
        [
            (
                "'ALL'",
                "returnValues",
                "satisfy enum value set: [ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW]",
            ),
            ("'ALL'", "returnConsumedCapacity", CAPACITY),
            ("'ALL'", "returnItemCollectionMetrics", "satisfy enum value set: [SIZE, NONE]"),
        ],
    ),
    (
        "GetItem",
        {"TableName": "abc", "Key": {}, "AttributesToGet": []},
        [("'[]'", "attributesToGet", "have length greater than or equal to 1")],
    ),
    (
        "GetItem",
        {"TableName": "abc", "Key": {}, "AttributesToGet": ["a", None]},
        [("null", "attributesToGet.2.member", NOT_NULL)],
    ),
    ("BatchGetItem", {}, [("null", "requestItems", NOT_NULL)]),
    (
        "BatchGetItem",
        {"RequestItems": {}},
        [("'{}'", "requestItems", "have length greater than or equal to 1")],
    ),
    (
        "BatchGetItem",
        {"RequestItems": {"abc": {"Keys": []}, "abd": {}}},
        [
            ("'[]'", "requestItems.abc.member.keys", "have length greater than or equal to 1"),
            ("null", "requestItems.abd.member.keys", NOT_NULL),
        ],
    ),
    (
        "BatchWriteItem",
        {"RequestItems": {"abc": [{"PutRequest": {}}, {"DeleteRequest": {}}]}},
        [
            ("null", "requestItems.abc.member.1.member.putRequest.item", NOT_NULL),
            ("null", "requestItems.abc.member.2.member.deleteRequest.key", NOT_NULL),
        ],
    ),
    (
        "ListTables",
        {"ExclusiveStartTableName": "", "Limit": 101},
        [
            ("''", "exclusiveStartTableName", NAME),
            ("''", "exclusiveStartTableName", SHORT),
            ("'101'", "limit", "have value less than or equal to 100"),
        ],
    ),
    (
        "CreateTable",
        {"TableName": "a_;", "ProvisionedThroughput": {"ReadCapacityUnits": 0}},
        [
            ("null", "attributeDefinitions", NOT_NULL),
            ("'a_;'", "tableName", NAME),
            ("null", "keySchema", NOT_NULL),
            ("null", "provisionedThroughput.writeCapacityUnits", NOT_NULL),
            (
                "'0'",
                "provisionedThroughput.readCapacityUnits",
                "have value greater than or equal to 1",
            ),
        ],
    ),
    (
        "CreateTable",
        {
            "TableName": "abc",
            "AttributeDefinitions": [{"AttributeName": "a", "AttributeType": "SS"}, {}],
            "KeySchema": [{"KeyType": "SORT"}],
            "GlobalSecondaryIndexes": [{"IndexName": "ab;"}],
        },
        [
            (
                "'SS'",
                "attributeDefinitions.1.member.attributeType",
                "satisfy enum value set: [B, N, S]",
            ),
            ("null", "attributeDefinitions.2.member.attributeName", NOT_NULL),
            ("null", "attributeDefinitions.2.member.attributeType", NOT_NULL),
            ("null", "keySchema.1.member.attributeName", NOT_NULL),
            ("'SORT'", "keySchema.1.member.keyType", "satisfy enum value set: [HASH, RANGE]"),
            ("'ab;'", "globalSecondaryIndexes.1.member.indexName", NAME),
            ("null", "globalSecondaryIndexes.1.member.keySchema", NOT_NULL),
            ("null", "globalSecondaryIndexes.1.member.projection", NOT_NULL),
        ],
    ),
    (
        "UpdateTable",
        {"TableName": "abc", "GlobalSecondaryIndexUpdates": [{"Update": {}}]},
        [
            ("null", "globalSecondaryIndexUpdates.1.member.update.indexName", NOT_NULL),
            ("null", "globalSecondaryIndexUpdates.1.member.update.provisionedThroughput", NOT_NULL),
        ],
    ),
    (
        "TransactWriteItems",
        {"TransactItems": [{"Update": {"TableName": "abc", "Key": {}}}]},
        [("null", "transactItems.1.member.update.updateExpression", NOT_NULL)],
    ),
    (
        "ExecuteStatement",
        {"Statement": "", "Parameters": []},
        [
            ("''", "statement", "have length greater than or equal to 1"),
            ("'[]'", "parameters", "have length greater than or equal to 1"),
        ],
    ),
    ("GetRecords", {}, [("null", "shardIterator", NOT_NULL)]),
]


@pytest.mark.parametrize(("operation", "body", "expected"), CASES)
def test_all_constraints_that_fail_are_told_of(
    operation: str, body: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    message = refusal(operation, body)
    plural = "s" if len(expected) > 1 else ""
    prefix = f"{len(expected)} validation error{plural} detected: "
    assert message.startswith(prefix)
    assert set(message.removeprefix(prefix).split("; ")) == {told(*each) for each in expected}


def test_ten_are_told_of_at_the_most() -> None:
    message = refusal(
        "BatchGetItem", {"RequestItems": {f"table{number}": {} for number in range(30)}}
    )
    assert message.startswith("10 validation errors detected: ")
    assert message.count(" failed to satisfy constraint: ") == 10


def test_names_and_sizes_in_a_batch_are_told_of_as_the_maps() -> None:
    body = {"RequestItems": {"a;": [], "abc": [{}]}}
    map_value = (
        "satisfy constraint: [Member must have length less than or equal to 25, Member must have "
        "length greater than or equal to 1]"
    )
    assert refusal("BatchWriteItem", body) == "2 validation errors detected: " + "; ".join(
        (
            told("'{a;=[], abc=[WriteRequest()]}'", "requestItems", TABLE_KEYS, "Map keys"),
            told("'{a;=[], abc=[WriteRequest()]}'", "requestItems", map_value, "Map value"),
        )
    )
    twentysix = {"RequestItems": {"abc": [{"DeleteRequest": {"Key": {}}}] * 26}}
    assert "Map value must" in refusal("BatchWriteItem", twentysix)


@pytest.mark.parametrize(
    ("operation", "count", "member"),
    [
        ("BatchGetItem", 101, "requestItems.abc.member.keys"),
        ("TransactGetItems", 101, "transactItems"),
    ],
)
def test_lists_have_their_limits(operation: str, count: int, member: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "BatchGetItem": {"RequestItems": {"abc": {"Keys": [{}] * count}}},
        "TransactGetItems": {"TransactItems": [{"Get": {"TableName": "abc", "Key": {}}}] * count},
    }
    message = refusal(operation, bodies[operation])
    assert message.startswith("1 validation error detected: Value '[")
    assert message.endswith(
        f"]' at '{member}' failed to satisfy constraint: Member must have length less than or "
        "equal to 100"
    )


def test_structures_are_shown_with_their_names() -> None:
    keys = [{"AttributeName": name, "KeyType": "HASH"} for name in "abc"]
    body = {"TableName": "abc", "AttributeDefinitions": [], "KeySchema": keys}
    shown = ", ".join(f"KeySchemaElement(attributeName={name}, keyType=HASH)" for name in "abc")
    assert refusal("CreateTable", body) == "1 validation error detected: " + told(
        f"'[{shown}]'", "keySchema", "have length less than or equal to 2"
    )


def test_what_a_message_shows_of_a_value_is_bounded() -> None:
    body = {"TableName": "x" * 1_000_000, "Key": {}}
    assert len(refusal("GetItem", body)) < 4000
    key = {"a": {"S": "x" * 10_000}}
    assert len(refusal("BatchGetItem", {"RequestItems": {"abc": {"Keys": [key] * 200}}})) < 4000


def test_throughput_is_not_asked_for_where_a_maximum_or_warmth_is_given() -> None:
    for other in ("OnDemandThroughput", "WarmThroughput"):
        update = {"Update": {"IndexName": "abc", other: {}}}
        body = {"TableName": "abc", "GlobalSecondaryIndexUpdates": [update]}
        assert read("UpdateTable", json.dumps(body).encode()).fields == body


@pytest.mark.parametrize(
    "operation", ["CreateTable", "DeleteTable", "DescribeTable", "UpdateTable"]
)
def test_control_operations_look_at_the_tables_name_first(operation: str) -> None:
    assert refusal(operation, {}) == (
        "The parameter 'TableName' is required but was not present in the request"
    )
    for name in ("", "ab", LONG):
        assert refusal(operation, {"TableName": name, "KeySchema": []}) == (
            "TableName must be at least 3 characters long and at most 255 characters long"
        )

"""Bodies whose JSON has the wrong types: what is said depends on what is found and where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.requests import read

MODEL = "com.amazonaws.dynamodb.v20120810."
FIELD = "Unexpected field type"
VALUE = "Unexpected value type in payload"
STRUCTURE = "Start of structure or map found where not expected"
CAST = (
    "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class "
    "java.lang.Class (sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and "
    "java.lang.Class are in module java.base of loader 'bootstrap')"
)
PAD = "Invalid last non-pad Base64 character dectected"
SCALARS: list[Any] = ["x", True, 7, 3.5]


def scalar(name: str) -> list[tuple[Any, str]]:
    """What is said of anything but a scalar of this name."""
    tokens = {
        "String": {"TRUE": True, "FALSE": False, "NUMBER": -3, "DECIMAL": 0.5},
        "Boolean": {"NUMBER": 23, "DECIMAL": 2.5},
        "Integer": {"STRING": "23", "TRUE": True, "FALSE": False},
        "Long": {"STRING": "23", "TRUE": True, "FALSE": False},
    }[name].items()
    return [
        *((found, f"{token}_VALUE cannot be converted to {name}") for token, found in tokens),
        ([], f"Unrecognized collection type class java.lang.{name}"),
        ({}, STRUCTURE),
    ]  # fmt: skip


def collection(others: str, collection_of: str) -> list[tuple[Any, str]]:
    """What is said of anything but a structure or map: of scalars, and of lists."""
    return [
        *((found, others) for found in SCALARS),
        ([], f"Unrecognized collection type {collection_of}"),
    ]


def struct(others: str, name: str) -> list[tuple[Any, str]]:
    """What is said of anything but a structure of the model."""
    return collection(others, f"class {MODEL}{name}")


def mapping(others: str, values: str) -> list[tuple[Any, str]]:
    """What is said of anything but a map."""
    return collection(others, f"java.util.Map<java.lang.String, {values}>")


def listing(others: str) -> list[tuple[Any, str]]:
    """What is said of anything but a list."""
    return [*((found, others) for found in SCALARS), ({}, STRUCTURE)]


BLOB = [
    (True, "only base-64-encoded strings are convertible to bytes"),
    (7, "only base-64-encoded strings are convertible to bytes"),
    ([], "Unrecognized collection type class java.nio.ByteBuffer"),
    ({}, STRUCTURE),
    ("abcde", "Base64 encoded length is expected a multiple of 4 bytes but found: 5"),
    ("ab==cd==", PAD),
    ("ab=c", PAD),
    ("YR==", PAD),
    ("a\u00e9==", PAD),
]
ATTRIBUTE_VALUES = f"{MODEL}AttributeValue"
# Below an attribute value, wherever it stands.
ATTRIBUTE_VALUE = {
    "S": scalar("String"),
    "N": scalar("String"),
    "B": BLOB,
    "BOOL": [*scalar("Boolean"), ("maybe", "Unexpected token received from parser")],
    "NULL": [*scalar("Boolean"), ("", "Unexpected token received from parser")],
    "SS": listing(FIELD),
    "SS.0": scalar("String"),
    "NS": listing(FIELD),
    "NS.0": scalar("String"),
    "BS": listing(FIELD),
    "BS.0": BLOB,
    "L": listing(FIELD),
    "L.0": struct(VALUE, "AttributeValue"),
    "L.0.L.0.BS.0": BLOB,
    "M": mapping(FIELD, ATTRIBUTE_VALUES),
    "M.x": struct(VALUE, "AttributeValue"),
    "M.x.M.y.N": scalar("String"),
}
KEY_SCHEMA = {
    "": listing(FIELD),
    ".0": struct(VALUE, "KeySchemaElement"),
    ".0.KeyType": scalar("String"),
}
PLACES: dict[str, dict[str, list[tuple[Any, str]]]] = {
    "GetItem": {
        "TableName": scalar("String"),
        "Key": mapping(FIELD, ATTRIBUTE_VALUES),
        "Key.x": struct(VALUE, "AttributeValue"),
        **{f"Key.x.{place}": said for place, said in ATTRIBUTE_VALUE.items()},
        "AttributesToGet": listing(FIELD),
        "AttributesToGet.0": scalar("String"),
        "ConsistentRead": scalar("Boolean"),
        "ExpressionAttributeNames": mapping(FIELD, "java.lang.String"),
        "ExpressionAttributeNames.x": scalar("String"),
    },
    "PutItem": {
        "Item.x.S": scalar("String"),
        "Expected": mapping(FIELD, f"{MODEL}ExpectedAttributeValue"),
        "Expected.x": struct(VALUE, "ExpectedAttributeValue"),
        "Expected.x.Value": struct(FIELD, "AttributeValue"),
        **{f"Expected.x.Value.{place}": said for place, said in ATTRIBUTE_VALUE.items()},
        "Expected.x.Exists": scalar("Boolean"),
        "Expected.x.AttributeValueList": listing(FIELD),
        "Expected.x.AttributeValueList.0": struct(VALUE, "AttributeValue"),
    },
    "UpdateItem": {
        "AttributeUpdates": mapping(FIELD, f"{MODEL}AttributeValueUpdate"),
        "AttributeUpdates.x.Value": struct(FIELD, "AttributeValue"),
    },
    "Scan": {"Limit": scalar("Integer"), "Segment": scalar("Integer")},
    "BatchGetItem": {
        "RequestItems": mapping(FIELD, f"{MODEL}KeysAndAttributes"),
        "RequestItems.t": struct(VALUE, "KeysAndAttributes"),
        "RequestItems.t.Keys": listing(FIELD),
        "RequestItems.t.Keys.0": mapping(CAST, ATTRIBUTE_VALUES),
        "RequestItems.t.Keys.0.x": struct(VALUE, "AttributeValue"),
    },
    "BatchWriteItem": {
        "RequestItems": mapping(FIELD, f"java.util.List<{MODEL}WriteRequest>"),
        "RequestItems.t": listing(CAST),
        "RequestItems.t.0": struct(VALUE, "WriteRequest"),
        "RequestItems.t.0.PutRequest": struct(FIELD, "PutRequest"),
        "RequestItems.t.0.PutRequest.Item": mapping(FIELD, ATTRIBUTE_VALUES),
    },
    "TransactWriteItems": {
        "TransactItems": listing(FIELD),
        "TransactItems.0": struct(VALUE, "TransactWriteItem"),
        "TransactItems.0.Update": struct(FIELD, "Update"),
        "TransactItems.0.Update.Key.x.N": scalar("String"),
    },
    "ExecuteStatement": {"Parameters.0": struct(VALUE, "AttributeValue")},
    "CreateTable": {
        "ProvisionedThroughput": struct(FIELD, "ProvisionedThroughput"),
        "ProvisionedThroughput.ReadCapacityUnits": scalar("Long"),
        **{f"KeySchema{place}": said for place, said in KEY_SCHEMA.items()},
        "LocalSecondaryIndexes.0": struct(VALUE, "LocalSecondaryIndex"),
        "GlobalSecondaryIndexes.0.Projection": struct(FIELD, "Projection"),
        **{f"GlobalSecondaryIndexes.0.KeySchema{p}": said for p, said in KEY_SCHEMA.items()},
        "Tags.0": struct(VALUE, "Tag"),
    },
    "UpdateTable": {
        "GlobalSecondaryIndexUpdates.0": struct(VALUE, "GlobalSecondaryIndexUpdate"),
        "GlobalSecondaryIndexUpdates.0.Create": struct(FIELD, "CreateGlobalSecondaryIndexAction"),
    },
    "GetShardIterator": {"Timestamp": [("now", "STRING_VALUE cannot be converted to Date")]},
}
CASES = [
    (operation, place, found, message)
    for operation, places in PLACES.items()
    for place, said in places.items()
    for found, message in said
]


def body_with(place: str, found: object) -> bytes:
    """Return a body that has something at a place such as "Keys.0.x"."""
    for part in reversed(place.split(".")):
        found = [found] if part == "0" else {part: found}
    return json.dumps(found).encode()


@pytest.mark.parametrize(("operation", "place", "found", "message"), CASES)
def test_a_wrong_type_is_told_by_place_and_kind(
    operation: str, place: str, found: object, message: str
) -> None:
    with pytest.raises(DynamoError) as caught:
        read(operation, body_with(place, found))
    assert (caught.value.code, caught.value.message) == ("SerializationException", message)
    assert caught.value.body()["Message"] == message


@pytest.mark.parametrize(
    "body",
    [
        b"", b"hi", b"{", b'{"a":}', b"{'a': 1}", b'{"a":1}x', b"\xff\xfe", b'{"a":"\xed\xa0\x80"}',
        b'{"TableName":"\\ud800"}', b'{"Limit":NaN}', b'{"Limit":1e999}',
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_without_a_message(body: bytes) -> None:
    with pytest.raises(DynamoError) as caught:
        read("Scan", body)
    assert caught.value.body() == {"__type": "com.amazon.coral.service#SerializationException"}


@pytest.mark.parametrize("body", [b"1", b'"x"', b"true", b"[]", b"[{}]", b"null"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(DynamoError) as caught:
        read("ListTables", body)
    assert caught.value.code == "SerializationException"


@pytest.mark.parametrize("word", ["true", "TRUE", "yes", "1"])
def test_words_are_taken_for_booleans(word: str) -> None:
    parsed = read("ListTables", b"{}")
    assert parsed.fields == {}
    body = {"TableName": "abc", "TimeToLiveSpecification": {"Enabled": word, "AttributeName": "a"}}
    fields = read("UpdateTimeToLive", json.dumps(body).encode()).fields
    assert fields["TimeToLiveSpecification"]["Enabled"] is True


def test_decimals_lose_their_fraction_and_32_bits_are_the_limit() -> None:
    assert read("ListTables", b'{"Limit": 7.9}').fields == {"Limit": 7}
    for number in (b"2147483648", b"-2147483649", b"1e300"):
        with pytest.raises(DynamoError) as caught:
            read("ListTables", b'{"Limit": %s}' % number)
        assert caught.value.code == "SerializationException"


def test_unknown_members_and_nulls_are_dropped() -> None:
    fields = read("ListTables", b'{"Limit": null, "Color": {"a": [1]}}').fields
    assert fields == {}


def test_of_a_name_that_comes_twice_the_last_one_counts() -> None:
    fields = read("ListTables", b'{"Limit": 1, "Limit": 2}').fields
    assert fields == {"Limit": 2}


def test_an_operation_that_is_unknown_is_told_so() -> None:
    with pytest.raises(DynamoError) as caught:
        read("ListTable", b"{}")
    assert caught.value.code == "UnknownOperationException"

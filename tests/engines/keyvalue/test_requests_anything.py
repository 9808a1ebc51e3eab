"""Any JSON is read or refused by a DynamoError, in bounded time and depth."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.operations import OPERATIONS, STREAM_OPERATIONS
from engines.keyvalue.parse.requests import read
from engines.keyvalue.parse.shapes import Shape
from tests.engines.keyvalue.attribute_values import attribute_values

TABLES = {**OPERATIONS, **STREAM_OPERATIONS}
MIB = 1024 * 1024

junk = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["abc", "", "a;", "NONE", "EQ", "HASH", "AAAA", "#a = :a", "1"]),
        st.text(st.characters(codec="utf-8"), max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["S", "N", "B", "M", "L", "SS", "abc", ":a", "#a"]), inner, max_size=3
        ),
    ),
    max_leaves=8,
)  # fmt: skip


def shaped(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Something of a shape, mostly: the right members, and junk here and there."""
    if shape.members is not None and depth < 5:
        members = {name: shaped(member, depth + 1) for name, member in shape.members.items()}
        right: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional=members)
    elif shape.element is not None and "Map<" in shape.java:
        names = st.sampled_from(["abc", "a", ":a", "#a", ""])
        right = st.dictionaries(names, shaped(shape.element, depth + 1), max_size=3)
    elif shape.element is not None:
        right = st.lists(shaped(shape.element, depth + 1), max_size=3)
    elif shape.java.endswith("AttributeValue"):
        right = attribute_values()
    elif shape.java.endswith("String"):
        right = st.sampled_from(["abc", "NONE", "a = :a", "#a", "EQ", "set a = :a", "HASH", "ALL"])
    elif shape.java.endswith("Boolean"):
        right = st.booleans()
    else:
        right = st.integers(-1, 5)
    return st.one_of(right, right, right, junk)


@pytest.mark.parametrize("operation", sorted(TABLES))
@settings(max_examples=15, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_bodies_of_nearly_the_right_shape(operation: str, data: st.DataObject) -> None:
    body = orjson.dumps(data.draw(shaped(TABLES[operation].shape)))
    try:
        read(operation, body)
    except DynamoError as error:
        orjson.dumps(error.body())


@settings(deadline=None)
@given(st.sampled_from(sorted(TABLES)), junk)
def test_any_json(operation: str, body: object) -> None:
    try:
        read(operation, orjson.dumps(body))
    except DynamoError as error:
        assert error.code in (
            "SerializationException",
            "ValidationException",
            "AccessDeniedException",
        )


@given(st.sampled_from(sorted(TABLES)), st.binary(max_size=200))
def test_any_bytes(operation: str, body: bytes) -> None:
    with pytest.raises(DynamoError):
        read(operation, b"\x00" + body)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), attribute_values()
    )
)
def test_an_item_that_was_read_is_read_again_as_it_is(item: dict[str, Any]) -> None:
    once = read("PutItem", json.dumps({"TableName": "abc", "Item": item}).encode()).fields
    assert read("PutItem", orjson.dumps(once)).fields == once


def nested(opening: str, closing: str, depth: int) -> bytes:
    """Return a PutItem of an attribute that is nested so deep."""
    value = opening * depth + '{"S":"a"}' + closing * depth
    return f'{{"TableName":"abc","Item":{{"a":{value}}}}}'.encode()


@pytest.mark.parametrize(("opening", "closing"), [('{"L":[', "]}"), ('{"M":{"a":', "}}")])
@pytest.mark.parametrize("depth", [32, 100, 400, 511, 5000, 1_000_000])
def test_a_bomb_of_depth_is_refused_at_once(opening: str, closing: str, depth: int) -> None:
    body = nested(opening, closing, depth)
    started = time.process_time()
    with pytest.raises(DynamoError) as caught:
        read("PutItem", body)
    assert time.process_time() - started < 0.5
    assert caught.value.message.startswith("Nesting Levels") or not caught.value.message


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("PutItem", b'{"TableName":"abc","Item":{"a":{"N":"%s"}}}' % (b"9" * MIB)),
        ("PutItem", b'{"TableName":"abc","Item":{"a":{"N":"1e%s"}}}' % (b"9" * MIB)),
        ("PutItem", b'{"TableName":"abc","Item":{"a":{"N":"0.%s1"}}}' % (b"0" * MIB)),
        ("PutItem", b'{"TableName":"abc","Item":{"a":{"SS":[%s"x"]}}}' % (b'"x",' * 200_000)),
        ("PutItem", b'{"TableName":"abc","Item":{"a":{"L":[%s{}]}}}' % (b'{"S":""},' * 200_000)),
        ("Scan", b'{"TableName":"%s"}' % (b";" * MIB)),
        ("GetItem", b'{"AttributesToGet":[%snull]}' % (b"null," * 200_000)),
        ("Scan", b'{"Limit":%s}' % (b"9" * 5000)),
    ],
)  # fmt: skip
def test_a_bomb_of_size_costs_what_its_bytes_cost(operation: str, body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(DynamoError) as caught:
        read(operation, body)
    assert time.process_time() - started < 1.0
    assert len(caught.value.message) < 4000

"""Keys as bytes: their order is DynamoDB's, their hash too; ranges hold what they say."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.expressions.trees import KeyTest
from engines.keyvalue.plan import checks, ranges
from engines.keyvalue.plan.catalogue import Table, table_of
from engines.keyvalue.plan.changes import change_body
from engines.keyvalue.plan.keys import (
    STORED_BYTES_MAX,
    _hashed_number,
    hash_digest,
    number_bytes,
    segment_range,
    stored_partition,
)
from engines.keyvalue.plan.ranges import SortRange, begins_with_end, contains
from engines.keyvalue.plan.rows import expiry_of, index_columns, row_values
from engines.keyvalue.values import decode

# Every number that DynamoDB has: up to 38 digits, magnitudes from 1e-130 to below 1e126.
numbers = st.builds(
    lambda sign, digits, exponent: canonical(Decimal((sign, digits, exponent))),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=1, max_size=38).map(tuple),
    st.integers(-130, 88),
)


def canonical(number: Decimal) -> str:
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if Decimal(text) == 0 else text


def table(*, indexes: bool = False, ttl: str = "", stream: str = "", sort_kind: str = "S") -> Table:
    body = {
        "AttributeDefinitions": [
            {"AttributeName": "a", "AttributeType": "S"},
            {"AttributeName": "b", "AttributeType": sort_kind},
            {"AttributeName": "g", "AttributeType": "N"},
            {"AttributeName": "l", "AttributeType": "S"},
        ],
        "KeySchema": [
            {"AttributeName": "a", "KeyType": "HASH"},
            {"AttributeName": "b", "KeyType": "RANGE"},
        ],
    }
    if indexes:
        body["LocalSecondaryIndexes"] = [
            {
                "IndexName": "by_l",
                "Slot": 1,
                "KeySchema": [
                    {"AttributeName": "a", "KeyType": "HASH"},
                    {"AttributeName": "l", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ]
        body["GlobalSecondaryIndexes"] = [
            {
                "IndexName": "by_g",
                "Slot": 2,
                "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ]
    if ttl:
        body["TimeToLive"] = {"AttributeName": ttl}  # type: ignore[assignment]
    if stream:
        body["StreamSpecification"] = {  # type: ignore[assignment]
            "StreamEnabled": True,
            "StreamViewType": stream,
        }
    return table_of("s", "t", 7, 1, body)


@given(numbers, numbers)
@example("1e0".replace("e0", ""), "1.0000000000000000000000000000000000001")
@example("-1", "-1.0000000000000000000000000000000000001")
def test_number_bytes_are_in_the_order_of_numbers(left: str, right: str) -> None:
    ordered = (number_bytes(left) > number_bytes(right)) - (
        number_bytes(left) < number_bytes(right)
    )
    assert ordered == (Decimal(left) > Decimal(right)) - (Decimal(left) < Decimal(right))


@given(numbers, numbers)
def test_hashed_numbers_differ_as_numbers_do_and_are_in_their_order(left: str, right: str) -> None:
    one, two = _hashed_number(left), _hashed_number(right)
    assert (one < two) == (Decimal(left) < Decimal(right))
    assert (one == two) == (left == right)


def test_hash_is_the_one_that_dynalite_found() -> None:
    assert hash_digest(b"abc").hex() == "12db4f35"
    assert hash_digest(b"abc") == hash_digest(b"a", b"bc")


@given(st.binary(max_size=2048), st.binary(max_size=2048))
def test_stored_partition_keys_fit_and_stay_different(left: bytes, right: bytes) -> None:
    assert len(stored_partition(left)) <= STORED_BYTES_MAX
    assert (stored_partition(left) == stored_partition(right)) == (left == right)


@given(st.integers(1, 5000))
def test_segments_cover_every_hash_once(total: int) -> None:
    borders = [segment_range(segment, total) for segment in range(total)]
    assert borders[0][0] == -(2**31)
    assert borders[-1][1] == 2**31 - 1
    assert all(end + 1 == start for (_, end), (start, _) in itertools.pairwise(borders))


@given(st.binary(max_size=6), st.binary(max_size=8))
@example(b"\xff\xff", b"\xff\xff\xff")
@example(b"", b"x")
def test_begins_with_is_a_range(prefix: bytes, data: bytes) -> None:
    wanted = SortRange(low=prefix, high=begins_with_end(prefix), high_is_in=False)
    assert contains(wanted, data) == data.startswith(prefix)


def test_an_item_without_an_index_key_is_not_in_the_index() -> None:
    plain = table(indexes=True)
    item = {"a": {"S": "x"}, "b": {"S": "y"}}
    assert [index_columns(index, item) for index in plain.slots] == [(None, None), (None, None)]
    item |= {"l": {"S": "z"}, "g": {"N": "5"}}
    (_, local), (key, ranged) = (index_columns(index, item) for index in plain.slots)
    assert local == b"z"
    assert key is not None
    assert key[4:] == number_bytes("5")
    assert ranged == b""


def test_row_values_follow_the_columns() -> None:
    item = {"a": {"S": "x"}, "b": {"S": "y"}, "g": {"N": "5"}}
    version, size, page, tie, expiry, stored, *columns = row_values(table(indexes=True), item, 9)
    assert (version, size, expiry) == (9, 7, None)
    assert isinstance(page, int)
    assert isinstance(tie, int)
    assert decode(stored) == item  # type: ignore[arg-type]
    assert len(columns) == 4


@pytest.mark.parametrize(
    ("value", "expiry"),
    [
        ({"N": "1700000000"}, 1700000000),
        ({"N": "1700000000.9"}, 1700000000),
        ({"N": "-5"}, None),
        ({"N": "1" * 13}, None),
        ({"S": "1700000000"}, None),
    ],
)
def test_expiry_is_read_from_numbers_of_seconds_only(
    value: dict[str, str], expiry: int | None
) -> None:
    assert expiry_of(table(ttl="t"), {"t": value}) == expiry


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({"a": {"S": "x"}}, "The provided key element does not match the schema"),
        ({"a": {"N": "1"}, "b": {"S": "y"}}, "The provided key element does not match the schema"),
        (
            {"a": {"S": ""}, "b": {"S": "y"}},
            "One or more parameter values were invalid: The AttributeValue for a key attribute "
            "cannot contain an empty string value. Key: a",
        ),
        (
            {"a": {"S": "x" * 2049}, "b": {"S": "y"}},
            "One or more parameter values were invalid: Size of hashkey has exceeded the maximum "
            "size limit of2048 bytes",
        ),
        (
            {"a": {"S": "x"}, "b": {"S": "y" * 1025}},
            "One or more parameter values were invalid: Aggregated size of all range keys has "
            "exceeded the size limit of 1024 bytes",
        ),
    ],
)
def test_a_key_that_is_not_the_tables_is_refused(key: dict[str, object], message: str) -> None:
    with pytest.raises(DynamoError) as refused:
        checks.key_bytes(table(), key)  # type: ignore[arg-type]
    assert refused.value.message == message


def test_an_index_key_of_another_type_is_refused() -> None:
    with pytest.raises(DynamoError) as refused:
        checks.item_key_bytes(
            table(indexes=True), {"a": {"S": "x"}, "b": {"S": "y"}, "g": {"S": "5"}}
        )
    assert refused.value.message == (
        "One or more parameter values were invalid: Type mismatch for Index Key g Expected: N "
        "Actual: S IndexName: by_g"
    )


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([], "Query condition missed key schema element: a"),
        (
            [KeyTest("a", ">", ({"S": "x"},))],
            "Query key condition not supported",
        ),
        (
            [KeyTest("a", "=", ({"N": "1"},))],
            "One or more parameter values were invalid: Condition parameter type does not match "
            "schema type",
        ),
        (
            [KeyTest("a", "=", ({"S": "x"},)), KeyTest("c", "=", ({"S": "x"},))],
            "Query condition missed key schema element: b",
        ),
        (
            [KeyTest("a", "=", ({"S": "x"},)), KeyTest("b", "<>", ({"S": "x"},))],
            "Attempted conditional constraint is not an indexable operation",
        ),
    ],
)
def test_key_conditions_that_are_not_on_the_key_are_refused(
    conditions: list[KeyTest], message: str
) -> None:
    with pytest.raises(DynamoError) as refused:
        ranges.query_range(table(), None, conditions, None)
    assert refused.value.message == message


def test_a_start_key_outside_of_the_query_is_refused() -> None:
    conditions = [
        KeyTest("a", "=", ({"S": "x"},)),
        KeyTest("b", "<", ({"S": "m"},)),
    ]
    with pytest.raises(DynamoError) as refused:
        ranges.query_range(table(), None, conditions, {"a": {"S": "x"}, "b": {"S": "z"}})
    assert refused.value.message == (
        "The provided starting key does not match the range key predicate"
    )


@pytest.mark.parametrize(
    ("view", "members"),
    [
        ("KEYS_ONLY", {"e", "k", "at"}),
        ("NEW_IMAGE", {"e", "k", "at", "n"}),
        ("OLD_IMAGE", {"e", "k", "at", "o"}),
        ("NEW_AND_OLD_IMAGES", {"e", "k", "at", "n", "o"}),
    ],
)
def test_a_change_holds_what_the_view_shows(view: str, members: set[str]) -> None:
    old = {"a": {"S": "x"}, "b": {"S": "y"}}
    new = old | {"c": {"N": "1"}}
    body = change_body(table(stream=view), old, new, 5.5)
    assert body is not None
    assert set(decode(body)) == members


def test_a_write_that_changes_nothing_is_no_change() -> None:
    item = {"a": {"S": "x"}, "b": {"S": "y"}}
    assert change_body(table(stream="KEYS_ONLY"), item, dict(item), 5.5) is None

"""Where Query and Scan read: key conditions, segments and start keys as ranges of stored bytes.

A query reads one partition key in the order of the sort key; a scan reads everything in the order
of hashes. Both go on behind the key that the last page ended with, in either direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engines.keyvalue.errors import DynamoError, invalid_parameter, validation
from engines.keyvalue.parse.expressions.trees import KeyTest
from engines.keyvalue.plan import checks
from engines.keyvalue.plan.catalogue import Index, KeyAttribute, Table
from engines.keyvalue.plan.keys import (
    KEY_BYTES,
    PARTITION_BYTES_MAX,
    SORT_BYTES_MAX,
    KeyBytes,
    hash_bytes,
    hash_number,
    stored_partition,
)
from engines.keyvalue.plan.rows import global_key, tie_of
from engines.keyvalue.values import AttributeValue, Item


@dataclass(frozen=True, slots=True)
class SortRange:
    """Bounds of sort key bytes: None is open; the upper bound belongs to the range or not."""

    low: bytes | None = None
    low_is_in: bool = True
    high: bytes | None = None
    high_is_in: bool = True


@dataclass(frozen=True, slots=True)
class StartKey:
    """The place behind which a page begins, as the columns of what is read."""

    key: KeyBytes
    # Of an index: its own columns, and the tie between equal ones.
    index_key: bytes | None = None
    index_range: bytes | None = None
    tie: int = 0


@dataclass(frozen=True, slots=True)
class QueryRange:
    """One partition key of a table or an index, and the sort keys of it."""

    sk: int
    pk: bytes  # of a global index: its `k<slot>`
    sort: SortRange
    start: StartKey | None


def begins_with_end(prefix: bytes) -> bytes | None:
    """Return the least bytes above all that begin with `prefix`; None if there are none."""
    trimmed = prefix.rstrip(b"\xff")
    if not trimmed:
        return None
    return trimmed[:-1] + bytes([trimmed[-1] + 1])


def _equal(data: Sequence[bytes]) -> SortRange:
    return SortRange(low=data[0], high=data[0])


_RANGES: Mapping[str, Callable[[Sequence[bytes]], SortRange]] = {
    "=": _equal,
    "<": lambda data: SortRange(high=data[0], high_is_in=False),
    "<=": lambda data: SortRange(high=data[0]),
    ">": lambda data: SortRange(low=data[0], low_is_in=False),
    ">=": lambda data: SortRange(low=data[0]),
    "between": lambda data: SortRange(low=data[0], high=data[1]),
    "begins_with": lambda data: SortRange(
        low=data[0], high=begins_with_end(data[0]), high_is_in=False
    ),
}


def query_range(
    table: Table,
    index: Index | None,
    conditions: Sequence[KeyTest],
    start: Mapping[str, AttributeValue] | None,
) -> QueryRange:
    """Return what a query reads.

    Raises DynamoError for conditions that are not on the key, and for a start key that no page of
    this query can have ended with.
    """
    by_name = {each.name: each for each in conditions}
    keys = table.keys if index is None else index.keys
    if start is not None and len(start) != len(start_names(table, index)):
        raise validation("The provided starting key is invalid")
    for position, attribute in enumerate(keys):
        if start is not None:
            _check_start_piece(start, attribute, is_hash=position == 0)
        _check_condition(by_name, keys, attribute, is_hash=position == 0)
    hash_value = by_name[keys[0].name].values[0]
    ranged = by_name.get(keys[1].name) if len(keys) > 1 else None
    place = None
    if start is not None:
        place = key_start(table, index, start)
        _check_start_within(start, keys, hash_value, ranged)
    return _range_of(table, index, hash_value, ranged, place)


def check_scan_start(
    table: Table, index: Index | None, start: Mapping[str, AttributeValue]
) -> None:
    """Raise DynamoError for a scan's start key that is none of the index's."""
    if len(start) != len(start_names(table, index)):
        detail = "" if index else ": The provided key element does not match the schema"
        raise validation(f"The provided starting key is invalid{detail}")
    if index is not None:
        for position, attribute in enumerate(index.keys):
            _check_start_piece(start, attribute, is_hash=position == 0)


def start_names(table: Table, index: Index | None) -> tuple[str, ...]:
    """Return the attributes of a LastEvaluatedKey: of the table's key, then of the index's."""
    attributes = (*table.keys, *(index.keys if index else ()))
    return tuple(dict.fromkeys(attribute.name for attribute in attributes))


def place_of(table: Table, index: Index | None, item: Mapping[str, AttributeValue]) -> StartKey:
    """Return the place of an item in a table or an index."""
    own = {attribute.name: item[attribute.name] for attribute in table.keys}
    key = checks.key_bytes(table, own)
    if index is None:
        return StartKey(key)
    content = item[index.hash.name][index.hash.kind]
    ranged = index.range
    return StartKey(
        key=key,
        index_key=global_key(index, content) if index.is_global else None,
        index_range=(
            b"" if ranged is None else KEY_BYTES[ranged.kind](item[ranged.name][ranged.kind])
        ),
        tie=tie_of(table, own),
    )


def _range_of(
    table: Table,
    index: Index | None,
    hash_value: AttributeValue,
    ranged: KeyTest | None,
    place: StartKey | None,
) -> QueryRange:
    attribute = table.hash if index is None else index.hash
    content = hash_value[attribute.kind]
    data = checks.sized_bytes(attribute, content, PARTITION_BYTES_MAX)
    sort = SortRange()
    if ranged is not None:
        asked = KeyAttribute(ranged.name, next(iter(ranged.values[0])))
        bounds = [
            checks.sized_bytes(asked, value[asked.kind], SORT_BYTES_MAX) for value in ranged.values
        ]
        sort = _RANGES[ranged.op](bounds)
    if index is not None and index.is_global:
        return QueryRange(0, global_key(index, content), sort, place)
    sk = hash_number(hash_bytes(attribute.kind, content, data))
    return QueryRange(sk, stored_partition(data), sort, place)


def _check_condition(
    by_name: Mapping[str, KeyTest],
    keys: Sequence[KeyAttribute],
    attribute: KeyAttribute,
    *,
    is_hash: bool,
) -> None:
    if is_hash and len(keys) == 1 and len(by_name) > 1:
        raise validation("Query key condition not supported")
    condition = by_name.get(attribute.name)
    if condition is None:
        if is_hash or len(by_name) > 1:
            raise validation(f"Query condition missed key schema element: {attribute.name}")
        return
    if condition.op not in _RANGES:
        raise validation("Attempted conditional constraint is not an indexable operation")
    if any(attribute.kind not in value for value in condition.values):
        raise invalid_parameter("Condition parameter type does not match schema type")
    if is_hash and condition.op != "=":
        raise validation("Query key condition not supported")


def _check_start_piece(
    start: Mapping[str, AttributeValue], attribute: KeyAttribute, *, is_hash: bool
) -> None:
    if attribute.name not in start:
        raise validation("The provided starting key is invalid")
    checks.key_piece(start, attribute, is_hash=is_hash)


def key_start(table: Table, index: Index | None, start: Mapping[str, AttributeValue]) -> StartKey:
    """Return the place of a start key. Raises DynamoError for one that is none of the table's."""
    own = {name: start[name] for name in (key.name for key in table.keys) if name in start}
    try:
        checks.key_bytes(table, own)
    except DynamoError as error:
        raise validation(f"The provided starting key is invalid: {error.message}") from error
    return place_of(table, index, start)


def _check_start_within(
    start: Mapping[str, AttributeValue],
    keys: Sequence[KeyAttribute],
    hash_value: AttributeValue,
    ranged: KeyTest | None,
) -> None:
    is_same_hash = start[keys[0].name] == hash_value
    if ranged is None:
        if not is_same_hash:
            raise validation(
                "The provided starting key is outside query boundaries based on provided conditions"
            )
        return
    kind = keys[1].kind
    data = KEY_BYTES[kind](start[ranged.name][kind])
    bounds = [KEY_BYTES[kind](value[kind]) for value in ranged.values]
    if not contains(_RANGES[ranged.op](bounds), data):
        raise validation("The provided starting key does not match the range key predicate")
    if not is_same_hash:
        raise validation("The query can return at most one row and cannot be restarted")


def contains(sort: SortRange, data: bytes) -> bool:
    """Say whether sort key bytes are in a range."""
    if sort.low is not None and (data < sort.low or (data == sort.low and not sort.low_is_in)):
        return False
    return sort.high is None or data < sort.high or (data == sort.high and sort.high_is_in)


def key_of(names: Sequence[str], item: Item) -> Item:
    """Return the attributes of a LastEvaluatedKey out of an item."""
    return {name: item[name] for name in names}

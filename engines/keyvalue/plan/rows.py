"""An item as the row that is stored: sizes, expiry, and the columns of its secondary indexes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from engines.keyvalue.capacity import item_size, page_size
from engines.keyvalue.plan.catalogue import Index, KeyAttribute, Table
from engines.keyvalue.plan.keys import (
    KEY_BYTES,
    hash_bytes,
    hash_digest,
    hash_number,
    stored_partition,
)
from engines.keyvalue.values import AttributeValue, Item, encode

# Every row has these behind its key; then come k<slot> and r<slot> of each index.
COLUMNS = ("ver", "size_bytes", "page_bytes", "tie", "exp", "item")

# Times further in the future than this are no times ("Using DynamoDB TTL": seconds).
_SECONDS = re.compile(r"[0-9]{1,12}")


def row_values(table: Table, item: Item, version: int) -> tuple[object, ...]:
    """Return the values of COLUMNS and of the indexes' columns for an item of `table`."""
    values: list[object] = [
        version,
        item_size(item),
        page_size(item, table.range.name if table.range else None),
        tie_of(table, item) if table.indexes else 0,
        expiry_of(table, item),
        encode(item),
    ]
    for index in table.slots:
        values += index_columns(index, item)
    return tuple(values)


def index_columns(index: Index, item: Item) -> tuple[bytes | None, bytes | None]:
    """Return what an index finds the item by; (None, None) for an item that is not in it."""
    range_data = b"" if index.range is None else _data(item, index.range)
    if not index.is_global:
        return None, range_data
    content = _content(item, index.hash)
    if content is None or range_data is None:
        return None, None
    return global_key(index, content), range_data


def global_key(index: Index, content: str) -> bytes:
    """Return k<slot> of a global index for a partition key: a hash, then the key."""
    kind = index.hash.kind
    data = KEY_BYTES[kind](content)
    return hash_digest(hash_bytes(kind, content, data)) + stored_partition(data)


def tie_of(table: Table, item: Mapping[str, AttributeValue]) -> int:
    """Return what orders items of an index that have the same index key."""
    parts = []
    for attribute in table.keys:
        content = item[attribute.name][attribute.kind]
        parts.append(hash_bytes(attribute.kind, content, KEY_BYTES[attribute.kind](content)))
    return hash_number(*parts)


def expiry_of(table: Table, item: Item) -> int | None:
    """Return when an item expires in seconds since 1970; None if never."""
    if not table.ttl_attribute:
        return None
    text = item.get(table.ttl_attribute, {}).get("N", "")
    whole = text.partition(".")[0]
    return int(whole) if _SECONDS.fullmatch(whole) else None


def _content(item: Mapping[str, AttributeValue], attribute: KeyAttribute) -> str | None:
    value = item.get(attribute.name)
    return None if value is None else value.get(attribute.kind)


def _data(item: Item, attribute: KeyAttribute) -> bytes | None:
    content = _content(item, attribute)
    return None if content is None else KEY_BYTES[attribute.kind](content)

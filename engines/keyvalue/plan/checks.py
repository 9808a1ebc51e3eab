"""What a table demands of keys and items, in DynamoDB's words and its order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from engines.keyvalue.errors import DynamoError, invalid_parameter, validation
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
from engines.keyvalue.values import AttributeValue, Item, type_of

_EMPTY_WORDS = {"S": "string", "B": "binary"}


def key_bytes(table: Table, key: Mapping[str, AttributeValue]) -> KeyBytes:
    """Return the stored form of the primary key that a request names.

    Raises DynamoError for a key that is not the table's.
    """
    if len(key) != (2 if table.range else 1):
        raise _no_match()
    text, data = _piece(key, table.hash, PARTITION_BYTES_MAX)
    sk = hash_number(hash_bytes(table.hash.kind, text, data))
    rk = b"" if table.range is None else _piece(key, table.range, SORT_BYTES_MAX)[1]
    return KeyBytes(sk, stored_partition(data), rk)


def item_key_bytes(table: Table, item: Item) -> KeyBytes:
    """Return the stored form of an item's primary key.

    Raises DynamoError for an item that the table or one of its indexes cannot take.
    """
    text, data = _own_piece(item, table.hash, PARTITION_BYTES_MAX)
    sk = hash_number(hash_bytes(table.hash.kind, text, data))
    rk = b"" if table.range is None else _own_piece(item, table.range, SORT_BYTES_MAX)[1]
    check_index_keys(table, item)
    return KeyBytes(sk, stored_partition(data), rk)


def batch_item_key_bytes(table: Table, item: Item) -> KeyBytes:
    """Return the stored form of the primary key of an item in a batch.

    Raises DynamoError: of its key in the words for keys, unlike that of PutItem.
    """
    own = {name: item[name] for name in (key.name for key in table.keys) if name in item}
    key = key_bytes(table, own)
    check_index_keys(table, item)
    return key


def check_index_keys(table: Table, item: Item) -> None:
    """Raise DynamoError if an attribute that an index is built on has another type, or is empty.

    An item without the attribute is not in the index, and is welcome.
    """
    if not table.indexes:
        return
    for index, attribute, size_max in index_attributes(table):
        value = item.get(attribute.name)
        if value is None:
            continue
        content = value.get(attribute.kind)
        if content is None:
            raise index_type_mismatch(index, attribute, type_of(value))
        if content == "":
            word = _EMPTY_WORDS[attribute.kind]
            raise validation(
                "One or more parameter values are not valid. A value specified for a secondary "
                "index key is not supported. The AttributeValue for a key attribute cannot "
                f"contain an empty {word} value. IndexName: {index.name}, IndexKey: "
                f"{attribute.name}"
            )
        data = KEY_BYTES[attribute.kind](content)
        if attribute.kind != "N" and len(data) > size_max:
            raise _too_long(size_max)


def index_attributes(table: Table) -> Iterable[tuple[Index, KeyAttribute, int]]:
    """Yield each index with each of its own key attributes and that one's size limit.

    Global ones come first, as in DynamoDB's checks; a local one's partition key is the table's.
    """
    indexes = sorted(table.indexes.values(), key=lambda index: (not index.is_global, index.slot))
    for index in indexes:
        if index.is_global:
            yield index, index.hash, PARTITION_BYTES_MAX
        if index.range is not None:
            yield index, index.range, SORT_BYTES_MAX


def check_updated_names(table: Table, names: Collection[str]) -> None:
    """Raise DynamoError if an update names an attribute of the primary key."""
    for attribute in table.keys:
        if attribute.name in names:
            raise invalid_parameter(
                f"Cannot update attribute {attribute.name}. This attribute is part of the key"
            )


def check_new_types(table: Table, types: Iterable[tuple[str, str]]) -> None:
    """Raise DynamoError if an update gives the key of an index a type that it cannot have."""
    if not table.indexes:
        return
    given = dict(types)
    for index, attribute, _ in index_attributes(table):
        actual = given.get(attribute.name)
        if actual is not None and actual != attribute.kind:
            raise index_type_mismatch(index, attribute, actual)


def check_updated_index_keys(table: Table, item: Item) -> None:
    """Raise DynamoError if what an update has computed cannot be the key of an index."""
    for _, attribute, _ in index_attributes(table) if table.indexes else ():
        value = item.get(attribute.name)
        if value is not None and attribute.kind not in value:
            raise validation(
                "The update expression attempted to update the secondary index key to "
                "unsupported type"
            )
    check_index_keys(table, item)


def check_nested_names(table: Table, names: Collection[str]) -> None:
    """Raise DynamoError if an expression looks inside of a key attribute."""
    if not names:
        return
    pairs = [("Key", attribute) for attribute in table.keys]
    pairs += [("IndexKey", attribute) for _, attribute, _ in index_attributes(table)]
    for word, attribute in pairs:
        if attribute.name in names:
            raise validation(
                "Key attributes must be scalars; list random access '[]' and map lookup '.' are "
                f"not allowed: {word}: {attribute.name}"
            )


def index_type_mismatch(index: Index, attribute: KeyAttribute, actual: str) -> DynamoError:
    """The value cannot be the key of the index."""
    return invalid_parameter(
        f"Type mismatch for Index Key {attribute.name} Expected: {attribute.kind} "
        f"Actual: {actual} IndexName: {index.name}"
    )


def key_piece(key: Mapping[str, Any], attribute: KeyAttribute, *, is_hash: bool) -> None:
    """Raise DynamoError unless one attribute of a key that a request names fits."""
    _piece(key, attribute, PARTITION_BYTES_MAX if is_hash else SORT_BYTES_MAX)


def _piece(key: Mapping[str, Any], attribute: KeyAttribute, size_max: int) -> tuple[str, bytes]:
    value = key.get(attribute.name)
    content = value.get(attribute.kind) if value is not None else None
    if content is None:
        raise _no_match()
    if content == "":
        raise invalid_parameter(_empty_words(attribute))
    return content, sized_bytes(attribute, content, size_max)


def _own_piece(item: Item, attribute: KeyAttribute, size_max: int) -> tuple[str, bytes]:
    value = item.get(attribute.name)
    if value is None:
        raise invalid_parameter(f"Missing the key {attribute.name} in the item")
    content = value.get(attribute.kind)
    if content is None:
        raise invalid_parameter(
            f"Type mismatch for key {attribute.name} expected: {attribute.kind} "
            f"actual: {type_of(value)}"
        )
    if content == "":
        raise validation(f"One or more parameter values are not valid. {_empty_words(attribute)}")
    return content, sized_bytes(attribute, content, size_max)


def sized_bytes(attribute: KeyAttribute, content: str, size_max: int) -> bytes:
    """Return the bytes of a key attribute's value; raises DynamoError if there are too many."""
    data = KEY_BYTES[attribute.kind](content)
    if len(data) > size_max and attribute.kind != "N":
        raise _too_long(size_max)
    return data


def _empty_words(attribute: KeyAttribute) -> str:
    return (
        "The AttributeValue for a key attribute cannot contain an empty "
        f"{_EMPTY_WORDS[attribute.kind]} value. Key: {attribute.name}"
    )


def _no_match() -> DynamoError:
    return validation("The provided key element does not match the schema")


def _too_long(size_max: int) -> DynamoError:
    if size_max == PARTITION_BYTES_MAX:
        return invalid_parameter(
            f"Size of hashkey has exceeded the maximum size limit of{PARTITION_BYTES_MAX} bytes"
        )
    return invalid_parameter(
        f"Aggregated size of all range keys has exceeded the size limit of {SORT_BYTES_MAX} bytes"
    )

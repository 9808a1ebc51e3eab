"""Reads and changes items of a keyvalue instance as a client does: every read is one short page.

Items are DynamoDB's JSON on both sides: `{"id": {"S": "x"}}`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import botocore.config
import botocore.loaders
import botocore.session
from botocore.exceptions import ClientError

from tenants.console.explorer.access import KEYRING, Access
from tenants.console.explorer.sql import NEW_SECONDS
from tenants.core.errors import InvalidError

TIMEOUT_SECONDS = 5.0
ITEMS_MAX = 50
TABLES_MAX = 100
REGION = "us-east-1"
_CONFIG = botocore.config.Config(
    connect_timeout=TIMEOUT_SECONDS,
    read_timeout=TIMEOUT_SECONDS,
    retries={"total_max_attempts": 1},
    user_agent_extra="weftkit-console",
    # What is wrong with a request, the engine says in DynamoDB's words.
    parameter_validation=False,
)
# Keeps the service model between requests; reading it takes longer than most of them.
_LOADER = botocore.loaders.Loader()
# What a sort key can be asked with: words of the form -> expression over #s, :s and :t.
SORT_TESTS: Mapping[str, str] = {
    "=": "#s = :s",
    "<": "#s < :s",
    "<=": "#s <= :s",
    ">": "#s > :s",
    ">=": "#s >= :s",
    "begins with": "begins_with(#s, :s)",
    "between": "#s BETWEEN :s AND :t",
}
FILTER_TESTS: Mapping[str, str] = {
    "=": "#f = :f",
    "is not": "#f <> :f",
    "<": "#f < :f",
    ">": "#f > :f",
    "contains": "contains(#f, :f)",
    "begins with": "begins_with(#f, :f)",
    "exists": "attribute_exists(#f)",
    "is absent": "attribute_not_exists(#f)",
}
_WITHOUT_VALUE = frozenset({"exists", "is absent"})
_KINDS = frozenset({"S", "N", "BOOL"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """The key attributes of a table or an index, the partition key first, with their types."""

    index: str  # "" for the table's own
    attributes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TableNames:
    """Some names of tables, and the last of them if there are more."""

    names: Sequence[str]
    last: str


@dataclass(frozen=True, slots=True)
class TableShown:
    """A table as the query builder needs it: its own key, then those of its indexes."""

    name: str
    keys: tuple[Key, ...]
    item_count: int
    size_bytes: int
    status: str


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for; without a partition key it is a scan."""

    table: str
    index: str = ""
    partition: str = ""
    sort_test: str = "="
    sort: str = ""
    sort_end: str = ""
    filter_name: str = ""
    filter_test: str = "="
    filter_type: str = "S"
    filter_value: str = ""
    is_descending: bool = False
    start: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Items, where to go on, what was looked at and what it cost."""

    items: Sequence[Mapping[str, Any]]
    last: Mapping[str, Any] | None
    scanned: int
    units: float
    key: Key = field(default_factory=lambda: Key("", ()))


class Items:
    """A signed client of one instance."""

    def __init__(self, access: Access, *, tls: bool = False) -> None:
        self._access = access
        session = botocore.session.Session()
        session.register_component("data_loader", _LOADER)
        self._client: Any = session.create_client(
            "dynamodb",
            region_name=REGION,
            endpoint_url=f"http{'s' if tls else ''}://{access.host}:{access.port}",
            aws_access_key_id=access.username,
            aws_secret_access_key=access.password,
            config=_CONFIG,
        )

    def close(self) -> None:
        self._client.close()

    def tables(self, start: str = "") -> TableNames:
        """Return the names of the tables after `start`."""
        request = {"Limit": TABLES_MAX} | ({"ExclusiveStartTableName": start} if start else {})
        answer = self._asked(lambda: self._client.list_tables(**request))
        return TableNames(answer["TableNames"], answer.get("LastEvaluatedTableName", ""))

    def table(self, name: str) -> TableShown:
        """Return what a table is made of."""
        found = self._asked(lambda: self._client.describe_table(TableName=name))["Table"]
        kinds = {
            each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]
        }
        indexes = [
            *found.get("LocalSecondaryIndexes", ()),
            *found.get("GlobalSecondaryIndexes", ()),
        ]
        keys = [_key("", found["KeySchema"], kinds)]
        keys += [_key(each["IndexName"], each["KeySchema"], kinds) for each in indexes]
        return TableShown(
            name=name,
            keys=tuple(keys),
            item_count=found.get("ItemCount", 0),
            size_bytes=found.get("TableSizeBytes", 0),
            status=found["TableStatus"],
        )

    def search(self, table: TableShown, wanted: Search) -> ItemPage:
        """Return one page of a query, or of a scan if no partition key is given."""
        key = next((each for each in table.keys if each.index == wanted.index), None)
        if key is None:
            raise InvalidError("the table has no such index")
        request = _request(key, wanted)
        ask = self._client.query if wanted.partition else self._client.scan
        answer = self._asked(lambda: ask(**request))
        return ItemPage(
            items=answer["Items"],
            last=answer.get("LastEvaluatedKey"),
            scanned=answer["ScannedCount"],
            units=answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0),
            key=table.keys[0],
        )

    def item(self, table: str, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return an item as it is now."""
        answer = self._asked(
            lambda: self._client.get_item(TableName=table, Key=key, ConsistentRead=True)
        )
        found: Mapping[str, Any] | None = answer.get("Item")
        return found

    def put(self, table: TableShown, item: Mapping[str, Any], *, is_new: bool) -> None:
        """Write an item: a new one only where there is none, a changed one only where it is.

        `item` is sent as it stands: botocore has no words for a type that there is not.
        """
        test = "attribute_not_exists" if is_new else "attribute_exists"
        request = {
            "TableName": table.name,
            "Item": item,
            "ConditionExpression": f"{test}(#k)",
            "ExpressionAttributeNames": {"#k": table.keys[0].attributes[0][0]},
        }
        body = json.dumps(request).encode()
        self._client.meta.events.register(
            "before-call.dynamodb.PutItem", lambda params, **_: params.update(body=body)
        )
        self._asked(lambda: self._client.put_item(TableName=table.name, Item={}))

    def delete(self, table: str, key: Mapping[str, Any]) -> None:
        """Delete an item; it may be gone already."""
        self._asked(lambda: self._client.delete_item(TableName=table, Key=key))

    def _asked(self, ask: Callable[[], T]) -> T:
        """Ask; a credential that was made a moment ago may not be known yet."""
        deadline = self._access.made_at + NEW_SECONDS
        while True:
            try:
                return ask()
            except ClientError as error:
                if error.response["Error"]["Code"] != "UnrecognizedClientException":
                    raise
                if time.monotonic() > deadline:
                    KEYRING.forget(self._access)
                    raise
            time.sleep(0.1)


@contextlib.contextmanager
def connected(access: Access) -> Iterator[Items]:
    """Lend a client."""
    items = Items(access)
    try:
        yield items
    finally:
        items.close()


def _key(index: str, schema: Sequence[Mapping[str, str]], kinds: Mapping[str, str]) -> Key:
    names = [each["AttributeName"] for each in schema]
    return Key(index, tuple((name, kinds[name]) for name in names))


def _request(key: Key, wanted: Search) -> dict[str, Any]:
    request: dict[str, Any] = {
        "TableName": wanted.table,
        "Limit": ITEMS_MAX,
        "ReturnConsumedCapacity": "TOTAL",
    }
    names: dict[str, str] = {}
    values: dict[str, Any] = {}
    if wanted.index:
        request["IndexName"] = wanted.index
    if wanted.start:
        request["ExclusiveStartKey"] = wanted.start
    if wanted.partition:
        request["KeyConditionExpression"] = _key_condition(key, wanted, names, values)
        request["ScanIndexForward"] = not wanted.is_descending
    elif wanted.sort or wanted.is_descending:
        raise InvalidError("a sort key and an order go with a partition key: a scan has neither")
    if wanted.filter_name:
        request["FilterExpression"] = _filter(wanted, names, values)
    if names:
        request["ExpressionAttributeNames"] = names
    if values:
        request["ExpressionAttributeValues"] = values
    return request


def _filter(wanted: Search, names: dict[str, str], values: dict[str, Any]) -> str:
    test = FILTER_TESTS.get(wanted.filter_test)
    if test is None or wanted.filter_type not in _KINDS:
        raise InvalidError("this filter is none of ours")
    names["#f"] = wanted.filter_name
    if wanted.filter_test not in _WITHOUT_VALUE:
        values[":f"] = typed(wanted.filter_type, wanted.filter_value)
    return test


def _key_condition(key: Key, wanted: Search, names: dict[str, str], values: dict[str, Any]) -> str:
    (name, kind), *rest = key.attributes
    names["#p"], values[":p"] = name, typed(kind, wanted.partition)
    if not wanted.sort:
        return "#p = :p"
    test = SORT_TESTS.get(wanted.sort_test)
    if test is None:
        raise InvalidError("this condition is none of ours")
    if not rest:
        raise InvalidError("this key has no sort key")
    name, kind = rest[0]
    names["#s"], values[":s"] = name, typed(kind, wanted.sort)
    if ":t" in test:
        values[":t"] = typed(kind, wanted.sort_end)
    return f"#p = :p AND {test}"


def typed(kind: str, text: str) -> dict[str, Any]:
    """Return the attribute value that a form's text stands for; bytes are written in base64."""
    if kind == "BOOL":
        word = text.strip().lower()
        if word not in ("true", "false"):
            raise InvalidError("a truth value is true or false")
        return {"BOOL": word == "true"}
    if kind == "B":
        try:
            return {"B": base64.b64decode(text.strip(), validate=True)}
        except ValueError as error:
            raise InvalidError("a binary key is written in base64") from error
    return {kind: text.strip() if kind == "N" else text}

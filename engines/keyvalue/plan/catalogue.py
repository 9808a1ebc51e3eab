"""Tables and secondary indexes as they are at this moment, read from the instance's catalogue.

A `Table` is cached by every worker and never asked whether it is still true: what writers must do
is part of the name of the SQL table (`shape`), so a worker that knows an old one finds no table
under its name, reads the catalogue again and tries once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines.kit.statement import Name

# States of a secondary index. Writers keep all three alike; only an active one can be read.
ACTIVE = "ACTIVE"
CREATING = "CREATING"


@dataclass(frozen=True, slots=True)
class KeyAttribute:
    """One attribute of a key, and its type: S, N or B."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index: two columns of the table, `k<slot>` and `r<slot>`, and a b-tree.

    Those of a local one are its sort key alone, and `k<slot>` is not used.
    """

    name: str
    slot: int
    is_global: bool
    hash: KeyAttribute
    range: KeyAttribute | None
    projection: str  # ALL | KEYS_ONLY | INCLUDE
    projected: frozenset[str]  # names, keys included; empty for ALL
    status: str = ACTIVE

    @property
    def keys(self) -> tuple[KeyAttribute, ...]:
        """The key attributes, the partition key first."""
        return (self.hash, self.range) if self.range else (self.hash,)


@dataclass(frozen=True, slots=True)
class Table:
    """One DynamoDB table."""

    name: str
    table_id: int
    shape: int
    sql_name: Name
    hash: KeyAttribute
    range: KeyAttribute | None
    indexes: Mapping[str, Index]
    stream_view: str = ""  # StreamViewType; "" while the stream is off
    ttl_attribute: str = ""  # "" while TTL is off
    is_on_demand: bool = False
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def keys(self) -> tuple[KeyAttribute, ...]:
        """The key attributes, the partition key first."""
        return (self.hash, self.range) if self.range else (self.hash,)

    @property
    def is_creating(self) -> bool:
        """True while a backup is restored into it; it has no rows that anybody may see."""
        return self.body.get("TableStatus") == "CREATING"

    @property
    def slots(self) -> tuple[Index, ...]:
        """The secondary indexes by slot: the order of their columns everywhere."""
        return tuple(sorted(self.indexes.values(), key=lambda index: index.slot))


def sql_table(schema: str, table_id: int, shape: int) -> Name:
    """Return the name under which a table's rows are stored while it has this shape."""
    return Name(schema, f"t{table_id}_{shape}")


def table_of(schema: str, name: str, table_id: int, shape: int, body: Mapping[str, Any]) -> Table:
    """Read one row of the catalogue; `body` has the members of DynamoDB's TableDescription.

    Further members: `Slot` and `IndexStatus` in each secondary index, and `TimeToLive` (the
    specification) while it is on.
    """
    kinds = {each["AttributeName"]: each["AttributeType"] for each in body["AttributeDefinitions"]}
    keys = _keys(body["KeySchema"], kinds)
    stream = body.get("StreamSpecification") or {}
    ttl = body.get("TimeToLive") or {}
    return Table(
        name=name,
        table_id=table_id,
        shape=shape,
        sql_name=sql_table(schema, table_id, shape),
        hash=keys[0],
        range=keys[1] if len(keys) > 1 else None,
        indexes=_indexes(body, keys, kinds),
        stream_view=stream.get("StreamViewType", "") if stream.get("StreamEnabled") else "",
        ttl_attribute=ttl.get("AttributeName", ""),
        is_on_demand=body.get("BillingMode") == "PAY_PER_REQUEST",
        body=body,
    )


def _indexes(
    body: Mapping[str, Any], table_keys: Sequence[KeyAttribute], kinds: Mapping[str, str]
) -> dict[str, Index]:
    found: dict[str, Index] = {}
    for member in ("LocalSecondaryIndexes", "GlobalSecondaryIndexes"):
        for each in body.get(member) or ():
            keys = _keys(each["KeySchema"], kinds)
            projection = each["Projection"]
            kind = projection.get("ProjectionType", "ALL")
            names = {key.name for key in (*table_keys, *keys)}
            names.update(projection.get("NonKeyAttributes") or ())
            found[each["IndexName"]] = Index(
                name=each["IndexName"],
                slot=each["Slot"],
                is_global=member == "GlobalSecondaryIndexes",
                hash=keys[0],
                range=keys[1] if len(keys) > 1 else None,
                projection=kind,
                projected=frozenset() if kind == "ALL" else frozenset(names),
                status=each.get("IndexStatus", ACTIVE),
            )
    return found


def _keys(schema: Sequence[Mapping[str, str]], kinds: Mapping[str, str]) -> list[KeyAttribute]:
    """Return the attributes of a key schema, the partition key first, as it stands in requests."""
    return [KeyAttribute(each["AttributeName"], kinds[each["AttributeName"]]) for each in schema]

"""Members that many answers share: ConsumedCapacity and ItemCollectionMetrics.

"Capacity unit consumption" of the Developer Guide: a write costs each secondary index that it
changes what the index's part of the item costs; TOTAL says one sum, INDEXES each part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.keyvalue.capacity import item_size, write_units
from engines.keyvalue.plan.catalogue import Index, Table
from engines.keyvalue.values import Item

_GIB = 1024**3


def consumed_by_read(
    fields: Mapping[str, Any],
    table: Table,
    units: float,
    index: Index | None = None,
    index_units: float = 0.0,
) -> dict[str, Any]:
    """Return {"ConsumedCapacity": ...} of a read if the request wants it, else {}."""
    wanted = fields.get("ReturnConsumedCapacity")
    if wanted not in ("TOTAL", "INDEXES"):
        return {}
    capacity: dict[str, Any] = {
        "CapacityUnits": units + index_units,
        "TableName": fields.get("TableName", table.name),
    }
    if wanted == "INDEXES":
        capacity["Table"] = {"CapacityUnits": units}
        if index is not None:
            capacity[member_of(index)] = {index.name: {"CapacityUnits": index_units}}
    return {"ConsumedCapacity": capacity}


def consumed_by_write(
    fields: Mapping[str, Any], table: Table, units: float, old: Item | None, new: Item | None
) -> tuple[dict[str, Any], float]:
    """Return {"ConsumedCapacity": ...} of a write if the request wants it, and all of its units."""
    parts = index_writes(table, old, new)
    total = units + sum(parts.values())
    wanted = fields.get("ReturnConsumedCapacity")
    if wanted not in ("TOTAL", "INDEXES"):
        return {}, total
    capacity = {"CapacityUnits": total, "TableName": fields.get("TableName", table.name)}
    if wanted == "INDEXES":
        capacity |= parts_of(table, units, parts)
    return {"ConsumedCapacity": capacity}, total


def parts_of(table: Table, units: float, parts: Mapping[str, float]) -> dict[str, Any]:
    """Return what INDEXES adds: the table's own units and those of each index."""
    members: dict[str, Any] = {"Table": {"CapacityUnits": units}}
    for name, index_units in parts.items():
        member = members.setdefault(member_of(table.indexes[name]), {})
        member[name] = {"CapacityUnits": index_units}
    return members


def index_writes(table: Table, old: Item | None, new: Item | None) -> dict[str, float]:
    """Return the write units of each secondary index that a write changes.

    `old` may be left out where it is not known; the index then counts as written.
    """
    if not table.indexes:
        return {}
    parts = {}
    for index in table.indexes.values():
        before, after = projected(index, old), projected(index, new)
        units = 0.0
        if before != after:
            moved = (
                before is not None and after is not None and not _same_keys(index, before, after)
            )
            sizes = [item_size(each) for each in (before, after) if each is not None]
            # An entry whose key changes is deleted here and put there.
            units = sum(map(write_units, sizes)) if moved else write_units(max(sizes))
        if units:
            parts[index.name] = units
    return parts


def projected(index: Index, item: Item | None) -> Item | None:
    """Return the part of an item that an index holds; None if it is not in the index."""
    if item is None or any(key.kind not in item.get(key.name, ()) for key in index.keys):
        return None
    if not index.projected:
        return item
    return {name: value for name, value in item.items() if name in index.projected}


def member_of(index: Index) -> str:
    """Return under which member capacities of an index stand."""
    return "GlobalSecondaryIndexes" if index.is_global else "LocalSecondaryIndexes"


def collection_metrics(table: Table, item: Item, size_bytes: int) -> dict[str, Any]:
    """Return one ItemCollectionMetrics: the size in GB lies between the two bounds."""
    lower = size_bytes // _GIB
    return {
        "ItemCollectionKey": {table.hash.name: item[table.hash.name]},
        "SizeEstimateRangeGB": [float(lower), float(lower + 1)],
    }


def _same_keys(index: Index, before: Item, after: Item) -> bool:
    return all(before[key.name] == after[key.name] for key in index.keys)

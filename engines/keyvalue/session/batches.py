"""BatchGetItem and BatchWriteItem: one statement a table where no stream wants each old item.

A batch is no transaction: each item is written or returned as unprocessed. What the plan has no
units for, and what does not fit into the answer, is unprocessed too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from engines.keyvalue.capacity import PAGE_BYTES_MAX, item_size, read_units, write_units
from engines.keyvalue.errors import validation
from engines.keyvalue.evaluate import projections
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan import checks
from engines.keyvalue.plan.keys import KeyBytes
from engines.keyvalue.plan.rows import row_values
from engines.keyvalue.reply import collection_metrics, index_writes, parts_of
from engines.keyvalue.session.context import Context, Known, whole_units
from engines.keyvalue.session.writing import Decide, new_version, write_item
from engines.keyvalue.values import Item, decode
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import RequestClass

# What a BatchGetItem may return: the last item may begin below the first bound, and ends below
# the second ("BatchGetItem": 16 MB in all; 1 MB is where DynamoDB stops in fact).
ANSWER_BYTES_MAX = PAGE_BYTES_MAX + 400 * 1024 - 3


@dataclass(slots=True)
class Put:
    """One item of a BatchWriteItem; `item` is None for a delete."""

    request: Mapping[str, Any]
    key: KeyBytes
    item: Item | None
    key_item: Item


@dataclass(slots=True)
class Spent:
    """Units by table, and by index of it."""

    units: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)


async def batch_get_item(context: Context, parsed: Parsed) -> bytes:
    """BatchGetItem: items in any order, as the statement finds them."""
    fields = parsed.fields
    plans = []
    for (name, request), part in zip(fields["RequestItems"].items(), parsed.parts, strict=True):
        known = await context.table(name)
        keys = [checks.key_bytes(known.table, key) for key in request["Keys"]]
        if len(set(keys)) != len(keys):
            raise validation("Provided list of item keys contains duplicates")
        if part.projection is not None:
            checks.check_nested_names(known.table, part.projection.nested)
        plans.append((name, request, known, keys, part.projection))
    responses, unprocessed, capacities = [], {}, []
    bytes_left = ANSWER_BYTES_MAX
    for name, request, known, keys, projection in plans:
        is_consistent = bool(request.get("ConsistentRead"))
        least = read_units(0, consistent=is_consistent)
        admitted = await _admitted(context, known, RequestClass.READ, least, len(keys))
        rows = await context.store.fetch(known.sql.get_many, *_columns(keys[:admitted]))
        units, pieces, left = 0.0, [], [*range(admitted, len(keys))]
        found = {row[0] - 1: row for row in rows}
        for at in range(admitted):
            _, stored, size_bytes = found.get(at, (0, None, 0))
            if size_bytes > bytes_left:
                left.append(at)
                units += 1
                continue
            bytes_left -= size_bytes
            units += read_units(size_bytes, consistent=is_consistent)
            if stored is None:
                continue
            if projection is not None:
                stored = orjson.dumps(projections.project(projection, decode(stored)))
            pieces.append(stored)
        context.settle(RequestClass.READ, units, whole_units(least) * admitted)
        responses.append(orjson.dumps(name) + b":[" + b",".join(pieces) + b"]")
        if left:
            unprocessed[name] = request | {"Keys": [request["Keys"][at] for at in left]}
        capacities.append((known, Spent(units)))
    rest: dict[str, Any] = {"UnprocessedKeys": unprocessed}
    rest |= _capacities(fields, capacities)
    return b'{"Responses":{' + b",".join(responses) + b"}," + orjson.dumps(rest)[1:]


async def batch_write_item(context: Context, parsed: Parsed) -> dict[str, Any]:
    """BatchWriteItem: puts and deletes, each for itself."""
    fields = parsed.fields
    plans: list[tuple[str, Known, list[Put]]] = []
    for name, requests in fields["RequestItems"].items():
        known = await context.table(name)
        puts = [_put_of(known, request) for request in requests]
        if len({put.key for put in puts}) != len(puts):
            raise validation("Provided list of item keys contains duplicates")
        plans.append((name, known, puts))
    unprocessed: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    capacities = []
    for name, known, puts in plans:
        spent, left = await _write_table(context, known, puts)
        if left:
            unprocessed[name] = [put.request for put in left]
        capacities.append((known, spent))
        if fields.get("ReturnItemCollectionMetrics") == "SIZE":
            metrics |= await _metrics(context, known, name, puts)
    answer: dict[str, Any] = {"UnprocessedItems": unprocessed}
    answer |= _capacities(fields, capacities)
    if metrics:
        answer["ItemCollectionMetrics"] = metrics
    return answer


def _put_of(known: Known, request: Mapping[str, Any]) -> Put:
    if "PutRequest" in request:
        item = request["PutRequest"]["Item"]
        return Put(request, checks.batch_item_key_bytes(known.table, item), item, item)
    key = request["DeleteRequest"]["Key"]
    return Put(request, checks.key_bytes(known.table, key), None, key)


async def _write_table(
    context: Context, known: Known, puts: Sequence[Put]
) -> tuple[Spent, list[Put]]:
    """Write what the plan has units for; returns what it cost, and what is left."""
    taken: list[Put] = []
    admitted = 0.0
    for put in puts:
        units = write_units(item_size(put.item) if put.item is not None else 0)
        try:
            await context.admit(RequestClass.WRITE, units, known.table, grows=put.item is not None)
        except RequestError as error:
            # As one request alone it is refused; beside others it is left for the next attempt.
            if not taken or error.reason is not Reason.RATE:
                raise
            break
        admitted += units
        taken.append(put)
    if known.table.stream_view:
        sizes = await _write_each(context, known, taken)
    else:
        sizes = await _write_all(context, known, taken)
    spent = Spent()
    for put in taken:
        new_bytes = item_size(put.item) if put.item is not None else 0
        spent.units += write_units(max(new_bytes, sizes.get(put.key, 0)))
        for index, units in index_writes(known.table, None, put.item).items():
            spent.parts[index] = spent.parts.get(index, 0.0) + units
    context.settle(RequestClass.WRITE, spent.units + sum(spent.parts.values()), admitted)
    return spent, [*puts[len(taken) :]]


async def _write_each(context: Context, known: Known, puts: Sequence[Put]) -> dict[KeyBytes, int]:
    sizes = {}
    for put in puts:
        written = await write_item(context, known, put.key, _replaced_by(put.item))
        sizes[put.key] = written.old_bytes
    return sizes


def _replaced_by(item: Item | None) -> Decide:
    def decide(old: Item | None) -> Item | None:
        return item

    return decide


async def _write_all(context: Context, known: Known, puts: Sequence[Put]) -> dict[KeyBytes, int]:
    """Write with one statement for all puts and one for all deletes; returns the sizes before."""
    sizes: dict[KeyBytes, int] = {}
    made = [put for put in puts if put.item is not None]
    gone = [put for put in puts if put.item is None]
    if made:
        values = [row_values(known.table, put.item, new_version()) for put in made if put.item]
        columns = [list(column) for column in zip(*values, strict=True)]
        rows = await context.store.fetch(
            known.sql.put_many, *_columns([put.key for put in made]), *columns
        )
        sizes |= {KeyBytes(sk, pk, rk): size or 0 for sk, pk, rk, size in rows}
    if gone:
        keys = [put.key for put in gone]
        rows = await context.store.fetch(known.sql.delete_many, *_columns(keys))
        sizes |= {keys[at - 1]: size for at, size in rows}
    return sizes


async def _admitted(
    context: Context, known: Known, request_class: RequestClass, units: float, count: int
) -> int:
    """Return for how many of `count` requests there were units; raises if for none."""
    for at in range(count):
        try:
            await context.admit(request_class, units, known.table)
        except RequestError as error:
            if at == 0 or error.reason is not Reason.RATE:
                raise
            return at
    return count


async def _metrics(
    context: Context, known: Known, name: str, puts: Sequence[Put]
) -> dict[str, Any]:
    if all(index.is_global for index in known.table.indexes.values()):
        return {}
    found: dict[bytes, Any] = {}
    for put in puts:
        if put.key.pk not in found:
            rows = await context.store.fetch(known.sql.collection_bytes, put.key.sk, put.key.pk)
            found[put.key.pk] = collection_metrics(known.table, put.key_item, int(rows[0][0]))
    return {name: list(found.values())}


def _columns(keys: Sequence[KeyBytes]) -> tuple[list[int], list[bytes], list[bytes]]:
    return [key.sk for key in keys], [key.pk for key in keys], [key.rk for key in keys]


def _capacities(fields: Mapping[str, Any], spent: Sequence[tuple[Known, Spent]]) -> dict[str, Any]:
    """Return {"ConsumedCapacity": [...]}, one element a table, if the request wants it."""
    wanted = fields.get("ReturnConsumedCapacity")
    if wanted not in ("TOTAL", "INDEXES"):
        return {}
    listed = []
    for known, each in spent:
        total = each.units + sum(each.parts.values())
        capacity: dict[str, Any] = {"CapacityUnits": total, "TableName": known.table.name}
        if wanted == "INDEXES":
            capacity |= parts_of(known.table, each.units, each.parts)
        listed.append(capacity)
    return {"ConsumedCapacity": listed}

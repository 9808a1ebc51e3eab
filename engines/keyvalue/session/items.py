"""GetItem, PutItem, UpdateItem and DeleteItem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from engines.keyvalue.capacity import item_size, read_units, write_units
from engines.keyvalue.errors import conditional_failed
from engines.keyvalue.evaluate import conditions, projections, updates
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan import checks
from engines.keyvalue.plan.keys import KeyBytes
from engines.keyvalue.plan.rows import row_values
from engines.keyvalue.reply import collection_metrics, consumed_by_read, consumed_by_write
from engines.keyvalue.session.context import Context, Known
from engines.keyvalue.session.decisions import Change, Check, check_update
from engines.keyvalue.session.writing import Written, new_version, write_item
from engines.keyvalue.values import Item, decode
from engines.kit.ports import RequestClass

Answer = Mapping[str, Any] | bytes


async def get_item(context: Context, parsed: Parsed) -> Answer:
    """GetItem: sent as stored, unless only a part is wanted."""
    fields = parsed.fields
    known = await context.table(fields["TableName"])
    key = checks.key_bytes(known.table, fields["Key"])
    projection = parsed.expressions.projection
    if projection is not None:
        checks.check_nested_names(known.table, projection.nested)
    is_consistent = bool(fields.get("ConsistentRead"))
    least = read_units(0, consistent=is_consistent)
    await context.admit(RequestClass.READ, least, known.table)
    rows = await context.store.fetch(known.sql.get, key.sk, key.pk, key.rk)
    stored, size_bytes = rows[0] if rows else (None, 0)
    units = read_units(size_bytes, consistent=is_consistent)
    context.settle(RequestClass.READ, units, least)
    capacity = consumed_by_read(fields, known.table, units)
    if stored is None:
        return orjson.dumps(capacity) if capacity else b"{}"
    if projection is not None:
        stored = orjson.dumps(projections.project(projection, decode(stored)))
    if not capacity:
        return b'{"Item":' + stored + b"}"
    return b'{"Item":' + stored + b"," + orjson.dumps(capacity)[1:]


async def put_item(context: Context, parsed: Parsed) -> Answer:
    """PutItem: one statement where nothing depends on the item before, else a swap."""
    fields = parsed.fields
    item: Item = fields["Item"]
    known = await context.table(fields["TableName"])
    key = checks.item_key_bytes(known.table, item)
    admitted = write_units(item_size(item))
    await context.admit(RequestClass.WRITE, admitted, known.table, grows=True)
    is_blind = (
        parsed.expressions.condition is None
        and fields.get("ReturnValues", "NONE") == "NONE"
        and not known.table.stream_view
    )
    if is_blind:
        values = row_values(known.table, item, new_version())
        rows = await context.store.fetch(known.sql.put, key.sk, key.pk, key.rk, *values)
        written = Written(None, item, rows[0][0] or 0)
    else:

        def decide(old: Item | None) -> Item:
            _check_condition(parsed, known, old)
            return item

        written = await write_item(context, known, key, decide)
    return await _answer(context, known, parsed, key, written, admitted)


async def delete_item(context: Context, parsed: Parsed) -> Answer:
    """DeleteItem: never refused for storage."""
    fields = parsed.fields
    known = await context.table(fields["TableName"])
    key = checks.key_bytes(known.table, fields["Key"])
    admitted = write_units(0)
    await context.admit(RequestClass.WRITE, admitted, known.table)
    if parsed.expressions.condition is None and not known.table.stream_view:
        rows = await context.store.fetch(known.sql.delete, key.sk, key.pk, key.rk)
        stored, size_bytes = rows[0] if rows else (None, 0)
        written = Written(None if stored is None else decode(stored), None, size_bytes)
    else:

        def decide(old: Item | None) -> None:
            _check_condition(parsed, known, old)

        written = await write_item(context, known, key, decide)
    return await _answer(context, known, parsed, key, written, admitted)


async def update_item(context: Context, parsed: Parsed) -> Answer:
    """UpdateItem: makes the item if it is absent."""
    fields, update = parsed.fields, parsed.expressions.update
    known = await context.table(fields["TableName"])
    table = known.table
    key = checks.key_bytes(table, fields["Key"])
    if update is not None:
        check_update(table, update)
    admitted = write_units(0)
    await context.admit(RequestClass.WRITE, admitted, table, grows=True)
    shows_item = fields.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
    check = Check(parsed.expressions.condition, shows_item)
    decide = Change(check, table, fields["Key"], update)
    written = await write_item(context, known, key, decide)
    return await _answer(context, known, parsed, key, written, admitted, decide.result)


def _check_condition(parsed: Parsed, known: Known, old: Item | None) -> None:
    condition = parsed.expressions.condition
    if condition is None or conditions.matches(condition, old):
        return
    wants_old = parsed.fields.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
    raise conditional_failed(old if wants_old else None)


async def _answer(
    context: Context,
    known: Known,
    parsed: Parsed,
    key: KeyBytes,
    written: Written,
    admitted: float,
    result: updates.UpdateResult | None = None,
) -> dict[str, Any]:
    """Settle what was used, and return the members of the answer of a write."""
    fields = parsed.fields
    new_bytes = item_size(written.new) if written.new is not None else 0
    units = write_units(max(new_bytes, written.old_bytes))
    answer: dict[str, Any] = {}
    attributes = _returned(fields.get("ReturnValues", "NONE"), written, result)
    if attributes:
        answer["Attributes"] = attributes
    capacity, total = consumed_by_write(fields, known.table, units, written.old, written.new)
    context.settle(RequestClass.WRITE, total, admitted)
    answer |= capacity
    if fields.get("ReturnItemCollectionMetrics") == "SIZE":
        item = written.new or written.old or fields.get("Key") or fields["Item"]
        answer |= await collection_metrics_of(context, known, key, item)
    return answer


async def collection_metrics_of(
    context: Context, known: Known, key: KeyBytes, item: Item
) -> dict[str, Any]:
    """Return the member ItemCollectionMetrics; only tables with local indexes have it."""
    if all(index.is_global for index in known.table.indexes.values()):
        return {}
    rows = await context.store.fetch(known.sql.collection_bytes, key.sk, key.pk)
    return {"ItemCollectionMetrics": collection_metrics(known.table, item, int(rows[0][0]))}


def _returned(wanted: str, written: Written, result: updates.UpdateResult | None) -> Item | None:
    """Return the member Attributes."""
    if wanted == "ALL_OLD":
        return written.old
    if wanted == "ALL_NEW":
        return written.new
    if wanted == "UPDATED_OLD" and result is not None and written.old is not None:
        return result.changed_part(written.old)
    if wanted == "UPDATED_NEW" and result is not None:
        return result.changed_part(result.item)
    return None

"""UpdateTable: settings at once, streams at once, new indexes in the background."""

from __future__ import annotations

import secrets
from typing import Any

from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan.descriptions import Body, description, global_index
from engines.keyvalue.plan.table_updates import Change, answered, change_of
from engines.keyvalue.session import changing, stream_rows
from engines.keyvalue.session.changing import Row
from engines.keyvalue.session.context import Context
from engines.keyvalue.session.tables import check_supported, measured
from engines.keyvalue.session.work import BACKUP, INDEX, add_work, has_work
from engines.keyvalue.storage import columns_ddl, drop_columns_ddl, index_ddl, names
from engines.kit.ports import RequestClass, Statements
from engines.kit.statement import with_names

_MOVE_WORK = "UPDATE {work} SET table_id = $2::int8 WHERE sk = 0 AND table_id = $1::int8"
_STOP_INDEX = (
    "DELETE FROM {work} WHERE sk = 0 AND table_id = $1::int8 AND kind = 'index' "
    "AND body ->> 'IndexName' = $2::text"
)
_ANY_ROW = "SELECT 1 FROM {table} LIMIT 1"


async def update_table(context: Context, parsed: Parsed) -> dict[str, Any]:
    """UpdateTable."""
    fields, now = parsed.fields, context.ports.clock.now()
    check_supported(fields)
    name = fields["TableName"]
    known = await context.described(name)
    sizes = await measured(context, known)
    async with changing.transaction(context, name) as statements:
        row = await changing.locked(context, statements, name)
        before = row.body
        shown = change_of(before, fields, now)
        if not _only_stops(before, shown):
            changing.check_unchanging(name, before)
        # What is answered is the change as it was asked for; this is the one that is made.
        change = change_of(before, fields, context.ports.clock.now())
        row.body = change.body
        if change.opens_stream:
            row.body["LatestStreamLabel"] = shown.body["LatestStreamLabel"]
        if change.is_shape:
            if change.created:
                await context.admit(RequestClass.WRITE, 1, grows=True)
            if await has_work(statements, row.schema, BACKUP, row.table_id):
                raise changing.being_updated(name)
            await _reshape(context, statements, row, change)
        await changing.save_row(statements, row)
    context.tables.forget()
    context.has_work = True
    arn = context.table_arn(name)
    described = description(shown.body, arn, sizes, now)
    return {"TableDescription": answered(described, before, shown)}


def _only_stops(before: Body, change: Change) -> bool:
    """Say whether an index that is being made shall not be made, and nothing else happens."""
    dropped = [index["IndexName"] for index in change.dropped]
    found = [global_index(before, name) for name in dropped]
    is_creating = any(index is not None and index["IndexStatus"] != "ACTIVE" for index in found)
    return is_creating and not (change.created or change.opens_stream or change.closes_stream)


async def _reshape(context: Context, statements: Statements, row: Row, change: Change) -> None:
    old_id = row.table_id
    new_id = secrets.randbits(63) if change.opens_stream else None
    await changing.rename(statements, row, new_id)
    if change.closes_stream:
        await stream_rows.closed(statements, Row(row.name, old_id, 0, {}, row.schema))
    if change.opens_stream:
        text = with_names(_MOVE_WORK, names(row.schema))
        await statements.execute(text, old_id, row.table_id)
        await stream_rows.opened(context, statements, row.name, row.table_id, row.body)
    for index in change.dropped:
        await statements.execute(drop_columns_ddl(row.sql_name, index["Slot"]))
        text = with_names(_STOP_INDEX, names(row.schema))
        await statements.execute(text, row.table_id, index["IndexName"])
    for index in change.created:
        await _create_index(statements, row, index)


async def _create_index(statements: Statements, row: Row, index: dict[str, Any]) -> None:
    """Add the columns; that of an empty table is complete with its b-tree."""
    table, slot = row.sql_name, index["Slot"]
    await statements.execute(columns_ddl(table, slot))
    sql_name = changing.index_name(row.table_id, slot, row.shape)
    if not await statements.fetch(with_names(_ANY_ROW, {"table": table})):
        text = index_ddl(table, sql_name, slot, is_global=True, concurrently=False)
        await statements.execute(text)
        return
    index["IndexStatus"], index["Backfilling"] = "CREATING", True
    body = {"TableName": row.name, "IndexName": index["IndexName"], "SqlName": sql_name}
    await add_work(row.schema, statements, INDEX, row.table_id, body)

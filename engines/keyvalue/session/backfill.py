"""A new global index of a table that has items: its columns are filled, then its b-tree is built.

    UpdateTable   columns, a new shape, a row of `work`: from here on writers fill the columns
    fill          page by page, in the order of the key; the place is kept with the lease
    build         CREATE INDEX CONCURRENTLY
    activate      a new shape: readers may use it

Each step can be done again, so a worker may die at any point. An item whose attribute has another
type than the index, or a size that no key may have, is left out, as DynamoDB leaves it out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from engines.keyvalue.plan.catalogue import Index, Table
from engines.keyvalue.plan.descriptions import global_index
from engines.keyvalue.plan.keys import KEY_BYTES, PARTITION_BYTES_MAX, SORT_BYTES_MAX
from engines.keyvalue.plan.rows import index_columns, tie_of
from engines.keyvalue.session import changing
from engines.keyvalue.session.work import Job, done
from engines.keyvalue.sql.filling import INDEX_STATE, fill_index, fill_page
from engines.keyvalue.storage import drop_index_ddl, index_ddl, names
from engines.keyvalue.values import Item, decode
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Row

# How long nobody else looks after a b-tree that is being built.
BUILD_LEASE_S = 120.0
# Before every key: sk, and pk and rk in hexadecimal.
FIRST_PLACE = [-(1 << 31), "", ""]

FillPage = Callable[[Sequence[Row]], Awaitable[None]]


async def build_index(job: Job) -> None:
    """Make a new index active; what `work.body` names may be gone."""
    body = job.work.body
    table = await job.table(body["TableName"])
    index = None if table is None else table.indexes.get(body["IndexName"])
    if table is None or index is None or index.status == "ACTIVE":
        await done(job.store, names(job.tables.schema), job.work)
        return

    async def fill(rows: Sequence[Row]) -> None:
        await _fill(job, table, index, rows)

    await fill_all(job, table, fill)
    text = index_ddl(table.sql_name, body["SqlName"], index.slot, is_global=True, concurrently=True)
    if await build_btree(job, body["SqlName"], text):
        await _activate(job)


async def fill_all(job: Job, table: Table, fill: FillPage) -> None:
    """Go through a table page by page; `work.body` says how far."""
    body, text = job.work.body, fill_page(table.sql_name)
    while not body.get("IsFilled"):
        sk, pk, rk = body.get("Place", FIRST_PLACE)
        rows = await job.store.fetch(text, sk, bytes.fromhex(pk), bytes.fromhex(rk))
        if rows:
            await _tried(fill, rows)
            sk, pk, rk = rows[-1][:3]
            body["Place"] = [sk, pk.hex(), rk.hex()]
        else:
            body["IsFilled"] = True
        await job.keep()


async def _tried(fill: FillPage, rows: Sequence[Row]) -> None:
    """Fill a page; again, if a transaction on the same items was in the way."""
    for _ in range(10):
        try:
            await fill(rows)
            return
        except RequestError as error:
            if error.reason is not Reason.CONFLICT:
                raise
    await fill(rows)


async def build_btree(job: Job, sql_name: str, text: str) -> bool:
    """Build a b-tree CONCURRENTLY, unless it is there; False while another worker builds it.

    One that was given up half built, by a worker that died, is dropped first.
    """
    schema = job.tables.schema
    rows = await job.store.fetch(INDEX_STATE, schema, sql_name)
    if rows:
        is_valid, is_building = rows[0]
        if is_valid or is_building:
            return bool(is_valid)
        await job.store.execute(drop_index_ddl(schema, sql_name, concurrently=True))
    await job.keep(BUILD_LEASE_S)
    await job.store.execute(text)
    return True


async def _fill(job: Job, table: Table, index: Index, rows: Sequence[Row]) -> None:
    filled = []
    for sk, pk, rk, version, _, stored in rows:
        item = decode(stored)
        k, r = _fitting(index, item)
        if k is not None:
            filled.append((sk, pk, rk, version, tie_of(table, item), k, r))
    if filled:
        columns = [list(column) for column in zip(*filled, strict=True)]
        await job.store.execute(fill_index(table.sql_name, index), *columns)


def _fitting(index: Index, item: Item) -> tuple[bytes | None, bytes | None]:
    """Return the columns of an item that was written before there was an index to check it."""
    for attribute, size_max in zip(index.keys, (PARTITION_BYTES_MAX, SORT_BYTES_MAX), strict=False):
        content: Any = item.get(attribute.name, {}).get(attribute.kind)
        if not content:
            return None, None
        if attribute.kind != "N" and len(KEY_BYTES[attribute.kind](content)) > size_max:
            return None, None
    return index_columns(index, item)


async def _activate(job: Job) -> None:
    body = job.work.body
    async with changing.background_transaction(job.store) as statements:
        row = await changing.found(job.tables.schema, statements, body["TableName"])
        index = None if row is None else global_index(row.body, body["IndexName"])
        if row is not None and index is not None and row.table_id == job.work.table_id:
            index["IndexStatus"] = "ACTIVE"
            index.pop("Backfilling", None)
            await changing.rename(statements, row)
            await changing.save_row(statements, row)
        await done(statements, names(job.tables.schema), job.work)

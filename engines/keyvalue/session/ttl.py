"""Time to live: UpdateTimeToLive, DescribeTimeToLive, and what deletes expired items.

An item's expiry time is a column of its row, filled by whoever writes it; for items that were
there before, in the background. Each table with TTL has a row of `work` that is due again and
again. What has expired is still returned until it has been deleted, as in DynamoDB. Deletions cost
no units; in a stream they are the service's (userIdentity).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from engines.keyvalue.errors import validation
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan.catalogue import Table
from engines.keyvalue.plan.keys import KeyBytes
from engines.keyvalue.plan.rows import expiry_of
from engines.keyvalue.session import changing
from engines.keyvalue.session.backfill import build_btree, fill_all
from engines.keyvalue.session.context import Context, Known
from engines.keyvalue.session.work import TTL, Job, add_work, done
from engines.keyvalue.session.writing import write_item
from engines.keyvalue.sql.filling import delete_expired, expired_keys, fill_expiry
from engines.keyvalue.storage import drop_index_ddl, names, ttl_index_ddl
from engines.keyvalue.values import Item, decode
from engines.kit.ports import Row
from engines.kit.statement import with_names

# How often a table is looked at, and how many items are deleted in one go.
SWEEP_EVERY_S = 20.0
BATCH_ROWS = 1_000
STREAMED_BATCH_ROWS = 100
# "If the timestamp is more than five years in the past, the item is not deleted."
PAST_SECONDS_MAX = 5 * 365 * 86_400

_STOP = "DELETE FROM {work} WHERE sk = 0 AND table_id = $1::int8 AND kind = 'ttl'"


class _AliveError(Exception):
    """The item was given another expiry time meanwhile."""


async def update_time_to_live(context: Context, parsed: Parsed) -> dict[str, Any]:
    """UpdateTimeToLive."""
    fields = parsed.fields
    name, wanted = fields["TableName"], fields["TimeToLiveSpecification"]
    context.authorize(name)
    async with changing.transaction(context, name) as statements:
        row = await changing.locked(context, statements, name)
        changing.check_unchanging(name, row.body)
        known = row.body.get("TimeToLive")
        _check(known, wanted)
        await changing.rename(statements, row)
        if wanted["Enabled"]:
            sql_name = changing.index_name(row.table_id, 0, row.shape)
            row.body["TimeToLive"] = {
                "AttributeName": wanted["AttributeName"],
                "SqlName": sql_name,
                "IsFilled": False,
            }
            body = {"TableName": name, "SqlName": sql_name}
            await add_work(context.tables.schema, statements, TTL, row.table_id, body)
        else:
            before = row.body.pop("TimeToLive")
            drop = drop_index_ddl(row.schema, before["SqlName"], concurrently=False)
            await statements.execute(drop)
            stop = with_names(_STOP, names(row.schema))
            await statements.execute(stop, row.table_id)
        await changing.save_row(statements, row)
    context.tables.forget()
    context.has_work = True
    return {"TimeToLiveSpecification": wanted}


async def describe_time_to_live(context: Context, parsed: Parsed) -> dict[str, Any]:
    """DescribeTimeToLive."""
    known = await context.described(parsed.fields["TableName"])
    return {"TimeToLiveDescription": described(known.table.body.get("TimeToLive"))}


def described(ttl: dict[str, Any] | None) -> dict[str, Any]:
    """Return a TimeToLiveDescription."""
    if ttl is None:
        return {"TimeToLiveStatus": "DISABLED"}
    status = "ENABLED" if ttl["IsFilled"] else "ENABLING"
    return {"TimeToLiveStatus": status, "AttributeName": ttl["AttributeName"]}


async def keep_time(job: Job) -> None:
    """Fill expiry times, once; then delete what has expired, and be due again."""
    body = job.work.body
    table = await job.table(body["TableName"])
    ttl = None if table is None else table.body.get("TimeToLive")
    if table is None or ttl is None or ttl["SqlName"] != body["SqlName"]:
        await done(job.store, names(job.tables.schema), job.work)
        return
    if not ttl["IsFilled"] and not await _fill(job, table):
        return
    await _sweep(job, body["TableName"])
    await job.keep(SWEEP_EVERY_S)


def _check(known: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    if wanted["Enabled"] and known is not None:
        raise validation("TimeToLive is already enabled")
    if not wanted["Enabled"] and known is None:
        raise validation("TimeToLive is already disabled")
    if known is not None and known["AttributeName"] != wanted["AttributeName"]:
        raise validation(
            "TimeToLive is active on a different AttributeName: current AttributeName is "
            + known["AttributeName"]
        )


async def _fill(job: Job, table: Table) -> bool:
    """Fill what was there before and build the b-tree; False while another worker builds it."""
    text = fill_expiry(table.sql_name)

    async def fill(rows: Sequence[Row]) -> None:
        filled = []
        for sk, pk, rk, version, expiry, stored in rows:
            wanted = expiry_of(table, decode(stored))
            if wanted != expiry:
                filled.append((sk, pk, rk, version, wanted))
        if filled:
            await job.store.execute(text, *(list(column) for column in zip(*filled, strict=True)))

    await fill_all(job, table, fill)
    sql_name = job.work.body["SqlName"]
    btree = ttl_index_ddl(table.sql_name, sql_name, concurrently=True)
    if not await build_btree(job, sql_name, btree):
        return False
    async with changing.background_transaction(job.store) as statements:
        row = await changing.found(job.tables.schema, statements, job.work.body["TableName"])
        if row is not None and row.body.get("TimeToLive", {}).get("SqlName") == sql_name:
            row.body["TimeToLive"]["IsFilled"] = True
            await changing.save_row(statements, row)
    return True


async def _sweep(job: Job, name: str) -> None:
    """Delete what has expired; goes on while there is more, and the lease is held."""
    known = await job.known(name)
    if known is None:
        return
    now = int(job.ports.clock.now())
    bounds = (now, now - PAST_SECONDS_MAX)
    table = known.table
    if not table.stream_view:
        text = delete_expired(table.sql_name)
        while len(await job.store.fetch(text, *bounds, BATCH_ROWS)) == BATCH_ROWS:
            await job.keep()
        return
    text = expired_keys(table.sql_name)
    while True:
        rows = await job.store.fetch(text, *bounds, STREAMED_BATCH_ROWS)
        for sk, pk, rk in rows:
            await _delete(job, known, KeyBytes(sk, pk, rk), now)
        if len(rows) < STREAMED_BATCH_ROWS:
            return
        await job.keep()


async def _delete(job: Job, known: Known, key: KeyBytes, now: int) -> None:
    def decide(old: Item | None) -> None:
        expiry = None if old is None else expiry_of(known.table, old)
        if expiry is None or expiry > now:
            raise _AliveError

    with contextlib.suppress(_AliveError):
        await write_item(job, known, key, decide, by_ttl=True)

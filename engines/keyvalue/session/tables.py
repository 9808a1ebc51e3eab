"""CreateTable, DescribeTable, ListTables, DeleteTable: each change is one transaction.

CreateTable answers CREATING and DeleteTable answers DELETING, as DynamoDB does, for things that
are done by then: whoever asks next finds the table active, or gone.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from engines.keyvalue.errors import (
    in_use,
    invalid_parameter,
    limit_exceeded,
    unsupported,
    validation,
)
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan.catalogue import sql_table
from engines.keyvalue.plan.descriptions import (
    INDEX_MEMBERS,
    NO_SIZES,
    Body,
    Sizes,
    begin_stream,
    creating,
    deleting,
    description,
    indexes_of,
    new_body,
)
from engines.keyvalue.session import changing, stream_rows
from engines.keyvalue.session.context import Context, Known
from engines.keyvalue.session.work import BACKUP, has_work
from engines.keyvalue.sql.sizes import sizes_of, sizes_statement
from engines.keyvalue.storage import columns_ddl, drop_ddl, index_ddl, items_ddl, names
from engines.kit.ports import RequestClass, Statements
from engines.kit.statement import Name, with_names

TABLES_MAX = 2_500
TAGS_MAX = 50
NAMES_MAX = 100

_COUNT = "SELECT count(*) FROM {catalogue} WHERE sk = 0"
_LIST = "SELECT name FROM {catalogue} WHERE sk = 0 AND name > $1::text ORDER BY name LIMIT $2::int8"
_FORGET = "DELETE FROM {catalogue} WHERE sk = 0 AND name = $1::text"
_STOP_WORK = "DELETE FROM {work} WHERE sk = 0 AND table_id = $1::int8"
# Who makes a table waits for the others that do, so that nobody exceeds the limit.
_LOCK = "LOCK TABLE {catalogue} IN SHARE ROW EXCLUSIVE MODE"

_UNSUPPORTED: Mapping[str, str] = {
    "ResourcePolicy": "resource policies: access is given by the instance's credentials",
    "OnDemandThroughput": "OnDemandThroughput: the instance's plan limits the throughput",
    "GlobalTableSourceArn": "global tables",
    "GlobalTableSettingsReplicationMode": "global tables",
    "VectorIndexes": "vector indexes",
    "ReplicaUpdates": "global tables",
    "MultiRegionConsistency": "global tables",
    "GlobalTableWitnessUpdates": "global tables",
    "DisassociationProtectionEnabled": "global tables",
    "VectorIndexUpdates": "vector indexes",
}


async def create_table(context: Context, parsed: Parsed) -> dict[str, Any]:
    """CreateTable."""
    fields = parsed.fields
    check_supported(fields)
    if len(fields.get("Tags") or ()) > TAGS_MAX:
        raise invalid_parameter(f"Number of tags exceeds the limit of {TAGS_MAX}")
    name, now = fields["TableName"], context.ports.clock.now()
    context.authorize(name)
    await context.admit(RequestClass.WRITE, 1, grows=True)
    body = new_body(fields, str(uuid.uuid4()), now)
    table_id = secrets.randbits(63)
    stream = fields.get("StreamSpecification") or {}
    if stream.get("StreamEnabled"):
        begin_stream(body, stream["StreamViewType"], now)
    sql_name = sql_table(context.tables.schema, table_id, 1)
    btrees = btrees_ddl(sql_name, body, table_id)
    texts = [*rows_ddl(sql_name, body), *(text for _, text in btrees)]
    async with changing.transaction(context, name) as statements:
        await add_table(context, statements, name, table_id, body)
        await statements.execute(";\n".join(texts))
        if "StreamSpecification" in body:
            await stream_rows.opened(context, statements, name, table_id, body)
    shown = description(body, context.table_arn(name), NO_SIZES, now)
    return {"TableDescription": creating(shown)}


async def describe_table(context: Context, parsed: Parsed) -> dict[str, Any]:
    """DescribeTable."""
    known = await context.described(parsed.fields["TableName"])
    return {"Table": await describe(context, known)}


async def list_tables(context: Context, parsed: Parsed) -> dict[str, Any]:
    """ListTables, by name."""
    context.authorize()
    fields = parsed.fields
    limit = fields.get("Limit") or NAMES_MAX
    text = with_names(_LIST, names(context.tables.schema))
    start = fields.get("ExclusiveStartTableName") or ""
    rows = await context.store.fetch(text, start, limit + 1)
    found = [row[0] for row in rows[:limit]]
    answer: dict[str, Any] = {"TableNames": found}
    if len(rows) > limit:
        answer["LastEvaluatedTableName"] = found[-1]
    return answer


async def delete_table(context: Context, parsed: Parsed) -> dict[str, Any]:
    """DeleteTable: never refused for storage."""
    name = parsed.fields["TableName"]
    known = await context.described(name)
    shown = await describe(context, known)
    named = names(context.tables.schema)
    async with changing.transaction(context, name) as statements:
        row = await changing.locked(context, statements, name)
        if row.body.get("DeletionProtectionEnabled"):
            raise validation(
                "Resource cannot be deleted as it is currently protected against deletion. "
                "Disable deletion protection first."
            )
        changing.check_deletable(name, row.body)
        if await has_work(statements, row.schema, BACKUP, row.table_id):
            raise changing.being_updated(name)
        await statements.execute(drop_ddl(row.sql_name))
        if "StreamSpecification" in row.body:
            await stream_rows.closed(statements, row)
        await statements.execute(with_names(_FORGET, named), name)
        await statements.execute(with_names(_STOP_WORK, named), row.table_id)
    context.tables.forget()
    return {"TableDescription": deleting(shown)}


async def describe(context: Context, known: Known) -> Body:
    """Return the TableDescription of a table with its sizes of now."""
    table, now = known.table, context.ports.clock.now()
    sizes = await measured(context, known)
    return description(dict(table.body), context.table_arn(table.name), sizes, now)


async def measured(context: Context, known: Known) -> Sizes:
    """Return a table's sizes; one that is being restored has no rows to be counted."""
    if known.table.body.get("TableStatus") == "CREATING":
        return NO_SIZES
    statement = sizes_statement(known.table)
    rows = await context.store.fetch(statement.text, *statement.params)
    return sizes_of(known.table, rows)


async def add_table(
    context: Context, statements: Statements, name: str, table_id: int, body: Body
) -> None:
    """Add the row of a table to the catalogue.

    Raises DynamoError: there is one of this name, or there are too many.
    """
    named = names(context.tables.schema)
    await statements.execute(with_names(_LOCK, named))
    if not await changing.insert(context, statements, name, table_id, body):
        raise in_use(f"Table already exists: {name}")
    rows = await statements.fetch(with_names(_COUNT, named))
    if rows[0][0] > TABLES_MAX:
        raise limit_exceeded(
            "Subscriber limit exceeded: Subscriber exceeded the limit of tables: "
            f"there are {TABLES_MAX} tables at most"
        )


def rows_ddl(table: Name, body: Body) -> list[str]:
    """Return what makes the SQL table of a DynamoDB table, with the columns of its indexes."""
    return [items_ddl(table), *(columns_ddl(table, index["Slot"]) for index in indexes_of(body))]


def btrees_ddl(
    table: Name, body: Body, table_id: int, shape: int = 1, *, concurrently: bool = False
) -> list[tuple[str, str]]:
    """Return the names of the b-trees of all indexes, each with what makes it."""
    made = []
    for member in INDEX_MEMBERS:
        for index in body.get(member) or ():
            slot, is_global = index["Slot"], member == "GlobalSecondaryIndexes"
            name = changing.index_name(table_id, slot, shape)
            text = index_ddl(table, name, slot, is_global=is_global, concurrently=concurrently)
            made.append((name, text))
    return made


def check_supported(fields: Mapping[str, Any]) -> None:
    """Raise DynamoError for members that DynamoDB has and this engine has not (README.md)."""
    for member, what in _UNSUPPORTED.items():
        if fields.get(member):
            raise unsupported(f"WeftKit does not support {what}")
    if (fields.get("SSESpecification") or {}).get("KMSMasterKeyId"):
        raise unsupported("WeftKit does not support KMSMasterKeyId: there is no key service")
    indexes = [*(fields.get("GlobalSecondaryIndexes") or ())]
    for update in fields.get("GlobalSecondaryIndexUpdates") or ():
        indexes += update.values()
    if any("OnDemandThroughput" in index for index in indexes):
        raise unsupported(f"WeftKit does not support {_UNSUPPORTED['OnDemandThroughput']}")

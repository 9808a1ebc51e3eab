"""Backups on demand, and restores of them into new tables.

A backup is a copy of a table's rows in a table of its own beside it: it lives in the instance,
counts towards its storage, and is in the instance's own backups. Copies are made in the background.
That of a small table is of one moment. A large one is copied page by page, because a long
transaction would hold up the streams of the whole cell: items that are written meanwhile are in it
as they were before or after, and DynamoDB promises no more for its backups.
"""

from __future__ import annotations

import re
import secrets
import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from engines.keyvalue.errors import (
    DynamoError,
    absent,
    busy,
    limit_exceeded,
    unsupported,
    validation,
)
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan.descriptions import NO_SIZES, Body, creating, description, indexes_of
from engines.keyvalue.plan.restoring import backup_described, backup_details, restored_body
from engines.keyvalue.session import changing
from engines.keyvalue.session.backfill import FIRST_PLACE, build_btree
from engines.keyvalue.session.context import Context
from engines.keyvalue.session.tables import add_table, btrees_ddl, rows_ddl
from engines.keyvalue.session.work import BACKUP, RESTORE, Job, LostError, add_work, done
from engines.keyvalue.sql.copying import TABLE_BYTES, copy_all, copy_page
from engines.keyvalue.storage import backup_ddl, backup_table, drop_ddl, names
from engines.kit.ports import RequestClass, Statements
from engines.kit.statement import Name, with_names

LISTED_MAX = 100
KEPT_MAX = 1_000
# Up to this size a table is copied by one statement, within seconds.
AT_ONCE_BYTES_MAX = 128 * 1024 * 1024
_ARN = re.compile(r"arn:aws:dynamodb:[^:]*:([0-9]{12}):table/([^/]+)/backup/([0-9a-f-]+)")

_ADD = "INSERT INTO {backup} (name, backup_id, body) VALUES ($1::text, $2::text, $3::text::jsonb)"
_FIND = "SELECT body::text FROM {backup} WHERE sk = 0 AND name = $1::text AND backup_id = $2::text"
_SAVE = (
    "UPDATE {backup} SET body = $3::text::jsonb "
    "WHERE sk = 0 AND name = $1::text AND backup_id = $2::text"
)
_REMOVE = "DELETE FROM {backup} WHERE sk = 0 AND name = $1::text AND backup_id = $2::text"
_LIST = (
    "SELECT name, backup_id, body::text FROM {backup} "
    "WHERE sk = 0 AND (name = $1::text OR $1::text = '') "
    "AND (name, backup_id) > ($2::text, $3::text) "
    "AND (body ->> 'CreatedAt')::float8 >= $4::float8 "
    "AND (body ->> 'CreatedAt')::float8 < $5::float8 "
    "ORDER BY name, backup_id LIMIT $6::int8"
)
_IS_RESTORED = (
    "SELECT 1 FROM {work} WHERE sk = 0 AND kind = 'restore' AND body ->> 'CopyId' = $1::text"
)
_STOP = "DELETE FROM {work} WHERE sk = 0 AND kind = 'backup' AND body ->> 'BackupId' = $1::text"
_COUNT_BACKUPS = "SELECT count(*) FROM {backup} WHERE sk = 0"
_COUNT = "SELECT count(*), coalesce(sum(size_bytes), 0)::int8 FROM {table}"


@dataclass(frozen=True, slots=True)
class Backup:
    """A row of the table `backup`."""

    table: str
    backup_id: str
    body: Body

    def arn(self, context: Context) -> str:
        """The backup's ARN."""
        return f"{context.table_arn(self.table)}/backup/{self.backup_id}"


async def create_backup(context: Context, parsed: Parsed) -> dict[str, Any]:
    """CreateBackup."""
    fields, now = parsed.fields, context.ports.clock.now()
    name = fields["TableName"]
    context.authorize(name)
    await context.admit(RequestClass.WRITE, 1, grows=True)
    backup_id = f"{int(now * 1000):014d}-{secrets.token_hex(4)}"
    body: Body = {
        "BackupName": fields["BackupName"],
        "BackupStatus": "CREATING",
        "CreatedAt": now,
        "CopyId": str(secrets.randbits(63)),
    }
    schema = context.tables.schema
    async with changing.transaction(context, name) as statements:
        row = await changing.found(schema, statements, name)
        if row is None:
            raise absent("TableNotFoundException", f"Table not found: {name}")
        if row.body["TableStatus"] != "ACTIVE":
            raise busy("TableInUseException", f"Table is being created: {name}")
        rows = await statements.fetch(with_names(_COUNT_BACKUPS, names(schema)))
        if rows[0][0] >= KEPT_MAX:
            raise limit_exceeded(f"There are {KEPT_MAX} backups at most: delete some")
        body["Source"] = row.body
        text = with_names(_ADD, names(schema))
        await statements.execute(text, name, backup_id, orjson.dumps(body).decode())
        wanted = {"TableName": name, "BackupId": backup_id}
        await add_work(schema, statements, BACKUP, row.table_id, wanted)
    context.has_work = True
    made = Backup(name, backup_id, body)
    return {"BackupDetails": backup_details(made.body, made.arn(context))}


async def describe_backup(context: Context, parsed: Parsed) -> dict[str, Any]:
    """DescribeBackup."""
    backup = await _backup(context, context.store, parsed.fields["BackupArn"])
    shown = backup_described(backup.body, backup.arn(context), context.table_arn(backup.table))
    return {"BackupDescription": shown}


async def list_backups(context: Context, parsed: Parsed) -> dict[str, Any]:
    """ListBackups, by table and age."""
    fields = parsed.fields
    table = fields.get("TableName") or ""
    context.authorize(table)
    if fields.get("BackupType", "USER") not in ("USER", "ALL"):
        return {"BackupSummaries": []}
    start = ("", "")
    if fields.get("ExclusiveStartBackupArn"):
        start = _named(context, fields["ExclusiveStartBackupArn"])
    limit = fields.get("Limit") or LISTED_MAX
    rows = await context.store.fetch(
        with_names(_LIST, names(context.tables.schema)),
        table,
        *start,
        float(fields.get("TimeRangeLowerBound") or 0),
        float(fields.get("TimeRangeUpperBound") or "inf"),
        limit + 1,
    )
    found = [
        _summary(context, Backup(row[0], row[1], orjson.loads(row[2]))) for row in rows[:limit]
    ]
    answer: dict[str, Any] = {"BackupSummaries": found}
    if len(rows) > limit:
        answer["LastEvaluatedBackupArn"] = found[-1]["BackupArn"]
    return answer


async def delete_backup(context: Context, parsed: Parsed) -> dict[str, Any]:
    """DeleteBackup: never refused for storage."""
    arn, schema = parsed.fields["BackupArn"], context.tables.schema
    async with changing.transaction(context, arn) as statements:
        backup = await _backup(context, statements, arn, locks=True)
        # One that is being made may be given up: what cannot be completed must not stay for ever.
        copy_id = backup.body["CopyId"]
        if await statements.fetch(with_names(_IS_RESTORED, names(schema)), copy_id):
            raise busy("BackupInUseException", f"Backup is being restored: {arn}")
        text = with_names(_REMOVE, names(schema))
        await statements.execute(text, backup.table, backup.backup_id)
        await statements.execute(with_names(_STOP, names(schema)), backup.backup_id)
        await statements.execute(drop_ddl(backup_table(schema, int(copy_id))))
    shown = backup_described(backup.body, arn, context.table_arn(backup.table))
    shown["BackupDetails"]["BackupStatus"] = "DELETED"
    return {"BackupDescription": shown}


async def restore_table_from_backup(context: Context, parsed: Parsed) -> dict[str, Any]:
    """RestoreTableFromBackup: into a table that is not there yet."""
    fields, now, schema = parsed.fields, context.ports.clock.now(), context.tables.schema
    name = fields["TargetTableName"]
    context.authorize(name)
    for member in ("OnDemandThroughputOverride", "VectorIndexOverride"):
        if fields.get(member):
            raise unsupported(f"WeftKit does not support {member}")
    await context.admit(RequestClass.WRITE, 1, grows=True)
    async with changing.transaction(context, name) as statements:
        backup = await _backup(context, statements, fields["BackupArn"], locks=True)
        if backup.body["BackupStatus"] == "CREATING":
            raise busy("BackupInUseException", f"Backup is being created: {fields['BackupArn']}")
        body = restored_body(backup.body["Source"], fields, str(uuid.uuid4()), now)
        body["RestoreSummary"] = {
            "SourceBackupArn": backup.arn(context),
            "SourceTableArn": context.table_arn(backup.table),
            "RestoreDateTime": now,
            "RestoreInProgress": True,
        }
        table_id = secrets.randbits(63)
        await _add(context, statements, name, table_id, body)
        wanted = {"TableName": name, "CopyId": backup.body["CopyId"]}
        await add_work(schema, statements, RESTORE, table_id, wanted)
    context.has_work = True
    shown = description(body, context.table_arn(name), NO_SIZES, now)
    return {"TableDescription": creating(shown)}


async def copy_table(job: Job) -> None:
    """Copy a table's rows for a backup."""
    wanted, schema = job.work.body, job.tables.schema
    if "CopyId" not in wanted:
        async with job.store.transaction() as statements:
            await _begin_copy(job, statements)
    copy = backup_table(schema, int(wanted["CopyId"]))
    while not wanted.get("IsFilled"):
        table = await job.table(wanted["TableName"])
        # While there is a backup to be made its table is neither deleted nor given another form.
        if table is None:
            raise LostError
        await _copy_page(job, table.sql_name, copy, into_table=False)
    async with job.store.transaction() as statements:
        text = with_names(_FIND, names(schema))
        rows = await statements.fetch(text, wanted["TableName"], wanted["BackupId"])
        body = orjson.loads(rows[0][0])
        sizes = await statements.fetch(with_names(_COUNT, {"table": copy}))
        body["ItemCount"], body["BackupSizeBytes"] = sizes[0]
        body["BackupStatus"] = "AVAILABLE"
        await _save(statements, schema, wanted, body)
        await done(statements, names(schema), job.work)


async def fill_table(job: Job) -> None:
    """Fill a new table from a backup, build its indexes, and make it active."""
    wanted, schema = job.work.body, job.tables.schema
    table = await job.table(wanted["TableName"])
    if table is None:
        await done(job.store, names(schema), job.work)
        return
    body = dict(table.body)
    if "Slots" not in wanted:
        async with job.store.transaction() as statements:
            await statements.execute(";\n".join(rows_ddl(table.sql_name, body)))
            wanted["Slots"] = [index["Slot"] for index in indexes_of(body)]
            await job.keep(statements=statements)
    copy = backup_table(schema, int(wanted["CopyId"]))
    while not wanted.get("IsFilled"):
        await _copy_page(job, copy, table.sql_name, into_table=True)
    for sql_name, text in btrees_ddl(
        table.sql_name, body, table.table_id, table.shape, concurrently=True
    ):
        if not await build_btree(job, sql_name, text):
            return
    async with changing.background_transaction(job.store) as statements:
        row = await changing.found(schema, statements, wanted["TableName"])
        if row is not None and row.table_id == job.work.table_id:
            row.body["TableStatus"] = "ACTIVE"
            row.body["RestoreSummary"]["RestoreInProgress"] = False
            await changing.save_row(statements, row)
        await done(statements, names(schema), job.work)


async def _begin_copy(job: Job, statements: Statements) -> None:
    """Make the backup's table; a small table is copied at once, as it is at this moment."""
    wanted, schema = job.work.body, job.tables.schema
    row = await changing.found(schema, statements, wanted["TableName"])
    text = with_names(_FIND, names(schema))
    rows = await statements.fetch(text, wanted["TableName"], wanted["BackupId"])
    if row is None or not rows:
        raise LostError
    body = orjson.loads(rows[0][0])
    body["Source"] = row.body
    await _save(statements, schema, wanted, body)
    wanted["CopyId"] = body["CopyId"]
    wanted["Slots"] = [index["Slot"] for index in indexes_of(row.body)]
    copy = backup_table(schema, int(body["CopyId"]))
    await statements.execute(backup_ddl(copy, wanted["Slots"]))
    sizes = await statements.fetch(TABLE_BYTES, schema, row.sql_name.name)
    if sizes[0][0] <= AT_ONCE_BYTES_MAX:
        await statements.execute(copy_all(row.sql_name, copy, wanted["Slots"]))
        wanted["IsFilled"] = True
    await job.keep(statements=statements)


async def _copy_page(job: Job, source: Name, target: Name, *, into_table: bool) -> None:
    """Copy the next rows; `work.body` says how far that went."""
    wanted = job.work.body
    sk, pk, rk = wanted.get("Place", FIRST_PLACE)
    text = copy_page(source, target, wanted["Slots"], into_table=into_table)
    rows = await job.store.fetch(text, sk, bytes.fromhex(pk), bytes.fromhex(rk))
    if rows:
        sk, pk, rk = rows[0]
        wanted["Place"] = [sk, pk.hex(), rk.hex()]
    else:
        wanted["IsFilled"] = True
    await job.keep()


async def _save(statements: Statements, schema: str, wanted: Body, body: Body) -> None:
    """Write the row of the backup that is wanted."""
    text, stored = with_names(_SAVE, names(schema)), orjson.dumps(body).decode()
    await statements.execute(text, wanted["TableName"], wanted["BackupId"], stored)


def _named(context: Context, arn: str) -> tuple[str, str]:
    """Return the table's name and the id in the ARN of a backup of this instance."""
    match = _ARN.fullmatch(arn)
    if match is None:
        raise validation(f"Invalid BackupArn: {arn}")
    context.authorize(match[2])
    if match[1] != context.account_id:
        raise absent("BackupNotFoundException", f"Backup not found: {arn}")
    return match[2], match[3]


async def _backup(
    context: Context, statements: Statements, arn: str, *, locks: bool = False
) -> Backup:
    """Return a backup; raises DynamoError if there is none."""
    table, backup_id = _named(context, arn)
    text = with_names(_FIND + (" FOR UPDATE" if locks else ""), names(context.tables.schema))
    rows = await statements.fetch(text, table, backup_id)
    if not rows:
        raise absent("BackupNotFoundException", f"Backup not found: {arn}")
    return Backup(table, backup_id, orjson.loads(rows[0][0]))


async def _add(
    context: Context, statements: Statements, name: str, table_id: int, body: Body
) -> None:
    try:
        await add_table(context, statements, name, table_id, body)
    except DynamoError as error:
        if error.code != "ResourceInUseException":
            raise
        raise busy("TableAlreadyExistsException", error.message) from error


def _summary(context: Context, backup: Backup) -> dict[str, Any]:
    return {
        "TableName": backup.table,
        "TableId": backup.body["Source"]["TableId"],
        "TableArn": context.table_arn(backup.table),
        **backup_details(backup.body, backup.arn(context)),
    }

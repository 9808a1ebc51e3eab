"""DynamoDBStreams_20120810: ListStreams, DescribeStream, GetShardIterator, GetRecords; trimming.

What is written to a table with a stream is in the change log from the same moment on, and is shown
as soon as no transaction can appear before it. Records live for a day, in closed streams too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from engines.keyvalue.errors import expired_iterator, trimmed, validation
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan.descriptions import stream_arn
from engines.keyvalue.plan.shards import (
    ITERATOR_SECONDS,
    Iterator,
    before,
    position_of,
    record,
    sequence_number,
    shard_id,
    stream_name,
    stream_not_found,
)
from engines.keyvalue.session.context import Context
from engines.keyvalue.session.stream_rows import bounds
from engines.keyvalue.session.work import Job
from engines.keyvalue.storage import names, stream_log
from engines.kit.changelog import Position
from engines.kit.ports import RequestClass
from engines.kit.statement import Name, with_names

STREAMS_MAX = 100
RECORDS_MAX = 1_000
RECORDS_BYTES_MAX = 1024 * 1024
KEPT_SECONDS = 24 * 3600
TRIM_EVERY_S = 600.0
_TRIM_ROWS = 5_000

_FIND = (
    "SELECT table_id, body::text, begins, ends FROM {stream} "
    "WHERE sk = 0 AND name = $1::text AND label = $2::text"
)
_LIST = (
    "SELECT name, label FROM {stream} WHERE sk = 0 AND (name = $1::text OR $1::text = '') "
    "AND (name, label) > ($2::text, $3::text) ORDER BY name, label LIMIT $4::int8"
)
_LAST = (
    "SELECT epoch, xid::text::int8, n FROM {log} WHERE sk = 0 AND feed = $1::int8 "
    "ORDER BY epoch DESC, xid DESC, n DESC LIMIT 1"
)
_FROM_TIME = (
    "SELECT epoch, xid::text::int8, n FROM {log} WHERE sk = 0 AND feed = $1::int8 "
    "AND at >= to_timestamp($2::float8) ORDER BY epoch, xid, n LIMIT 1"
)
_FORGET = "DELETE FROM {stream} WHERE sk = 0 AND closed_at < to_timestamp($1::float8)"


@dataclass(frozen=True, slots=True)
class Stream:
    """A row of the table `stream`."""

    arn: str
    table: str
    label: str
    table_id: int
    body: Mapping[str, Any]
    begins: Position
    ends: Position | None


async def list_streams(context: Context, parsed: Parsed) -> dict[str, Any]:
    """ListStreams, by table and age."""
    fields = parsed.fields
    table = fields.get("TableName") or ""
    context.authorize(table)
    start = ("", "")
    if fields.get("ExclusiveStartStreamArn"):
        named = stream_name(fields["ExclusiveStartStreamArn"])
        start = (named.table, named.label)
    limit = min(fields.get("Limit") or STREAMS_MAX, STREAMS_MAX)
    text = with_names(_LIST, names(context.tables.schema))
    rows = await context.store.fetch(text, table, *start, limit + 1)
    found = [
        {
            "StreamArn": stream_arn(context.table_arn(name), label),
            "TableName": name,
            "StreamLabel": label,
        }
        for name, label in rows[:limit]
    ]
    answer: dict[str, Any] = {"Streams": found}
    if len(rows) > limit:
        answer["LastEvaluatedStreamArn"] = found[-1]["StreamArn"]
    return answer


async def describe_stream(context: Context, parsed: Parsed) -> dict[str, Any]:
    """DescribeStream."""
    fields = parsed.fields
    stream = await _stream(context, fields["StreamArn"])
    only = shard_id(stream.table_id)
    sequence = {"StartingSequenceNumber": sequence_number(stream.begins)}
    if stream.ends is not None:
        log = {"log": Name(context.tables.schema, "streamlog")}
        rows = await context.store.fetch(with_names(_LAST, log), stream.table_id)
        last = Position(*rows[0]) if rows else stream.begins
        sequence["EndingSequenceNumber"] = sequence_number(last)
    shards = [{"ShardId": only, "SequenceNumberRange": sequence}]
    # The only shard has no children, and there is none behind it.
    if fields.get("ExclusiveStartShardId") is not None or fields.get("ShardFilter"):
        shards = []
    description = {
        "StreamArn": stream.arn,
        "StreamLabel": stream.label,
        "StreamStatus": "ENABLED" if stream.ends is None else "DISABLED",
        "StreamViewType": stream.body["StreamViewType"],
        "CreationRequestDateTime": stream.body["CreationRequestDateTime"],
        "TableName": stream.table,
        "KeySchema": stream.body["KeySchema"],
        "Shards": shards,
    }
    return {"StreamDescription": description}


async def get_shard_iterator(context: Context, parsed: Parsed) -> dict[str, Any]:
    """GetShardIterator."""
    fields = parsed.fields
    stream = await _stream(context, fields["StreamArn"])
    if fields["ShardId"] != shard_id(stream.table_id):
        raise stream_not_found(f"{stream.arn}, Shard: {fields['ShardId']}")
    kind = fields["ShardIteratorType"]
    position = await _STARTS[kind](context, stream, fields)
    now = context.ports.clock.now()
    made = Iterator(stream.arn, stream.table_id, position, now, kind == "TRIM_HORIZON")
    return {"ShardIterator": made.to_text()}


async def get_records(context: Context, parsed: Parsed) -> dict[str, Any]:
    """GetRecords."""
    fields, now = parsed.fields, context.ports.clock.now()
    iterator = Iterator.from_text(fields["ShardIterator"])
    stream = await _stream(context, iterator.arn)
    if stream.table_id != iterator.table_id:
        raise stream_not_found(iterator.arn)
    if now - iterator.issued_at > ITERATOR_SECONDS:
        raise expired_iterator()
    await context.admit(RequestClass.READ, 1)
    limit = min(fields.get("Limit") or RECORDS_MAX, RECORDS_MAX)
    records, position = await _read(context, stream, iterator, limit)
    answer: dict[str, Any] = {"Records": records}
    if stream.ends is None or position < stream.ends:
        following = Iterator(stream.arn, stream.table_id, position, now)
        answer["NextShardIterator"] = following.to_text()
    return answer


async def trim(job: Job) -> None:
    """Delete what is older than a day, and be due again."""
    log, long_ago = stream_log(job.tables.schema), job.ports.clock.now() - KEPT_SECONDS
    while True:
        statement = log.trim(datetime.fromtimestamp(long_ago, UTC), _TRIM_ROWS)
        rows = await job.store.fetch(statement.text, *statement.params)
        if not rows[0][0]:
            break
        await job.keep()
    text = with_names(_FORGET, names(job.tables.schema))
    await job.store.execute(text, long_ago)
    await job.keep(TRIM_EVERY_S)


async def _stream(context: Context, arn: str) -> Stream:
    """Return a stream of the instance; raises DynamoError if there is none."""
    named = stream_name(arn)
    context.authorize(named.table)
    if named.account_id != context.account_id:
        raise stream_not_found(arn)
    text = with_names(_FIND, names(context.tables.schema))
    rows = await context.store.fetch(text, named.table, named.label)
    if not rows:
        raise stream_not_found(arn)
    table_id, body, begins, ends = rows[0]
    return Stream(
        arn=arn,
        table=named.table,
        label=named.label,
        table_id=table_id,
        body=orjson.loads(body),
        begins=Position.from_token(begins),
        ends=None if ends is None else Position.from_token(ends),
    )


async def _read(
    context: Context, stream: Stream, iterator: Iterator, limit: int
) -> tuple[list[dict[str, Any]], Position]:
    """Return up to `limit` records of about 1 MB, or one, and where to go on."""
    log, view = stream_log(context.tables.schema), stream.body["StreamViewType"]
    position = iterator.position
    statement = log.read_sized(position, limit, stream.table_id, RECORDS_BYTES_MAX)
    rows = await context.store.fetch(statement.text, *statement.params)
    page = log.page(rows, position, limit)
    if page.is_lost and not iterator.is_horizon:
        raise trimmed()
    records: list[dict[str, Any]] = []
    bytes_left = RECORDS_BYTES_MAX
    for entry in page.entries:
        bytes_left -= len(entry.body)
        if records and bytes_left < 0:
            return records, position
        records.append(record(entry, orjson.loads(entry.body), view, context.region))
        position = entry.position
    return records, page.position


async def _at_horizon(context: Context, stream: Stream, fields: Mapping[str, Any]) -> Position:
    oldest, _ = await bounds(context.store, context.tables.schema)
    return max(oldest, stream.begins)


async def _at_latest(context: Context, stream: Stream, fields: Mapping[str, Any]) -> Position:
    _, newest = await bounds(context.store, context.tables.schema)
    return newest


async def _at_sequence(context: Context, stream: Stream, fields: Mapping[str, Any]) -> Position:
    return before(await _after_sequence(context, stream, fields))


async def _after_sequence(context: Context, stream: Stream, fields: Mapping[str, Any]) -> Position:
    number = fields.get("SequenceNumber")
    if number is None:
        raise validation(
            "SequenceNumber must be given for ShardIteratorType " + fields["ShardIteratorType"]
        )
    position = position_of(number)
    oldest, _ = await bounds(context.store, context.tables.schema)
    if position < oldest:
        raise trimmed()
    return max(position, stream.begins)


async def _at_time(context: Context, stream: Stream, fields: Mapping[str, Any]) -> Position:
    if fields.get("Timestamp") is None:
        raise validation("Timestamp must be given for ShardIteratorType AT_TIMESTAMP")
    log = {"log": Name(context.tables.schema, "streamlog")}
    text = with_names(_FROM_TIME, log)
    rows = await context.store.fetch(text, stream.table_id, float(fields["Timestamp"]))
    return before(Position(*rows[0])) if rows else await _at_latest(context, stream, fields)


_STARTS: Mapping[str, Callable[[Context, Stream, Mapping[str, Any]], Awaitable[Position]]] = {
    "TRIM_HORIZON": _at_horizon,
    "LATEST": _at_latest,
    "AT_SEQUENCE_NUMBER": _at_sequence,
    "AFTER_SEQUENCE_NUMBER": _after_sequence,
    "AT_TIMESTAMP": _at_time,
}

"""DynamoDB Streams: the four operations of its own service model."""

from __future__ import annotations

from engines.keyvalue.errors import invalid_parameter
from engines.keyvalue.parse.operations.members import STREAM_ARN, TABLE_NAME
from engines.keyvalue.parse.operations.plan import Operation, Parsed
from engines.keyvalue.parse.shapes import MOMENT, choice, integer, record, text

RECORDS_MAX = 1000

_SHARD_ID = text(28, 65)
_AT_A_NUMBER = ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")


def _shard_filter(parsed: Parsed) -> None:
    """Refuse half a filter."""
    if len(parsed.fields.get("ShardFilter", ("Type", "ShardId"))) != 2:
        raise invalid_parameter("ShardFilter.Type and ShardFilter.ShardId must both be specified")


def _iterator_place(parsed: Parsed) -> None:
    """Refuse a sequence number where none belongs, and the lack of one."""
    kind = parsed.fields["ShardIteratorType"]
    if (kind in _AT_A_NUMBER) != ("SequenceNumber" in parsed.fields):
        word = "must" if kind in _AT_A_NUMBER else "cannot"
        raise invalid_parameter(f"SequenceNumber {word} be specified for ShardIteratorType {kind}")


OPERATIONS = {
    "DescribeStream": Operation(
        record(
            "DescribeStreamInput",
            StreamArn=STREAM_ARN.required,
            Limit=integer(1),
            ExclusiveStartShardId=_SHARD_ID,
            ShardFilter=record("ShardFilter", Type=choice("CHILD_SHARDS"), ShardId=_SHARD_ID),
        ),
        steps=(_shard_filter,),
    ),
    "GetRecords": Operation(
        record(
            "GetRecordsInput", ShardIterator=text(1, 2048).required, Limit=integer(1, RECORDS_MAX)
        )
    ),
    "GetShardIterator": Operation(
        record(
            "GetShardIteratorInput",
            StreamArn=STREAM_ARN.required,
            ShardId=_SHARD_ID.required,
            ShardIteratorType=choice(
                "TRIM_HORIZON",
                "LATEST",
                "AT_SEQUENCE_NUMBER",
                "AFTER_SEQUENCE_NUMBER",
                "AT_TIMESTAMP",
            ).required,
            SequenceNumber=text(21, 40),
            Timestamp=MOMENT,
        ),
        steps=(_iterator_place,),
    ),
    "ListStreams": Operation(
        record(
            "ListStreamsInput",
            TableName=TABLE_NAME,
            Limit=integer(1),
            ExclusiveStartStreamArn=STREAM_ARN,
        )
    ),
}

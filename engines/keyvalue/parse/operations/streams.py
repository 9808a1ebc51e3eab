"""DynamoDB Streams: the four operations of its own service model."""

from __future__ import annotations

from engines.keyvalue.parse.operations.members import STREAM_ARN, TABLE_NAME
from engines.keyvalue.parse.operations.plan import Operation
from engines.keyvalue.parse.shapes import MOMENT, choice, integer, record, text

_SHARD_ID = text(28, 65)

OPERATIONS = {
    "DescribeStream": Operation(
        record(
            "DescribeStreamInput",
            StreamArn=STREAM_ARN.required,
            Limit=integer(1),
            ExclusiveStartShardId=_SHARD_ID,
            ShardFilter=record("ShardFilter", Type=choice("CHILD_SHARDS"), ShardId=_SHARD_ID),
        )
    ),
    "GetRecords": Operation(
        record("GetRecordsInput", ShardIterator=text(1, 2048).required, Limit=integer(1))
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
        )
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

"""Operations of DynamoDB that WeftKit does not offer: each of them says so (README.md).

What only asks for things that cannot be here is told the truth, an empty list or that there is no
such thing; what would make one is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engines.keyvalue.errors import absent, not_found, table_not_found, unsupported
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.session.context import READ_STRUCTURE, WRITE_STRUCTURE, Context

Answer = Mapping[str, Any] | bytes
Handler = Callable[[Context, Parsed], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Operation:
    """Who handles an operation, and what it does to tables.

    `event` is what auditors are told of it, whoever asks (`telling`); "" for nothing.
    """

    handler: Handler
    action: str
    event: str = ""


def _refused(what: str) -> Operation:
    """Return an operation that cannot be had."""

    async def handler(context: Context, parsed: Parsed) -> Answer:
        raise unsupported(f"WeftKit does not support {what}")

    return Operation(handler, WRITE_STRUCTURE)


def _empty(answer: Mapping[str, Any]) -> Operation:
    """Return an operation that lists what there is none of."""

    async def handler(context: Context, parsed: Parsed) -> Answer:
        context.authorize()
        return answer

    return Operation(handler, READ_STRUCTURE)


def _absent(code: str, member: str, message: str) -> Operation:
    """Return an operation that looks for what is not there; `{}` is what the request names."""

    async def handler(context: Context, parsed: Parsed) -> Answer:
        context.authorize()
        raise absent(code, message.format(parsed.fields[member]))

    return Operation(handler, READ_STRUCTURE)


async def _describe_continuous_backups(context: Context, parsed: Parsed) -> Answer:
    """DescribeContinuousBackups: they are off, here always."""
    name = parsed.fields["TableName"]
    context.authorize(name)
    if await context.tables.read(context.store, name) is None:
        raise absent("TableNotFoundException", f"Table not found: {name}")
    return {
        "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "DISABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "DISABLED"},
        }
    }


async def _update_continuous_backups(context: Context, parsed: Parsed) -> Answer:
    """UpdateContinuousBackups: they can be switched off, which they are."""
    if parsed.fields["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]:
        raise unsupported(
            "WeftKit does not support point-in-time recovery of tables: use CreateBackup, or "
            "backups of the instance"
        )
    return await _describe_continuous_backups(context, parsed)


async def _describe_kinesis(context: Context, parsed: Parsed) -> Answer:
    """DescribeKinesisStreamingDestination: a table has none."""
    name = parsed.fields["TableName"]
    await context.described(name)
    return {"TableName": name, "KinesisDataStreamDestinations": []}


async def _describe_insights(context: Context, parsed: Parsed) -> Answer:
    """DescribeContributorInsights: off."""
    fields = parsed.fields
    name = fields["TableName"]
    known = await context.tables.read(context.store, name)
    context.authorize(name)
    if known is None:
        raise table_not_found(name)
    answer = {"TableName": name, "ContributorInsightsStatus": "DISABLED"}
    index = fields.get("IndexName")
    if index is not None:
        if index not in known.table.indexes:
            raise not_found()
        answer["IndexName"] = index
    return answer


_GLOBAL = "Global table not found: {}"
_NO_RECOVERY = "Point in time recovery is not enabled for table {}"
_NO_S3 = "S3: exports and imports of the instance are operations of WeftKit's own API"
_POLICIES = "resource policies: access is given by the instance's credentials"

OPERATIONS_ELSEWHERE: Mapping[str, Operation] = {
    "CancelBulkOperation": _refused(f"bulk operations over {_NO_S3}"),
    "CreateGlobalTable": _refused("global tables"),
    "DeleteResourcePolicy": _refused(_POLICIES),
    "DescribeBulkOperation": _refused(f"bulk operations over {_NO_S3}"),
    "DescribeContinuousBackups": Operation(_describe_continuous_backups, READ_STRUCTURE),
    "DescribeContributorInsights": Operation(_describe_insights, READ_STRUCTURE),
    "DescribeExport": _absent("ExportNotFoundException", "ExportArn", "Export not found: {}"),
    "DescribeGlobalTable": _absent("GlobalTableNotFoundException", "GlobalTableName", _GLOBAL),
    "DescribeGlobalTableSettings": _absent(
        "GlobalTableNotFoundException", "GlobalTableName", _GLOBAL
    ),
    "DescribeImport": _absent("ImportNotFoundException", "ImportArn", "Import not found: {}"),
    "DescribeKinesisStreamingDestination": Operation(_describe_kinesis, READ_STRUCTURE),
    "DescribeTableReplicaAutoScaling": _refused("auto scaling of replicas"),
    "DisableKinesisStreamingDestination": _refused("Kinesis: use DynamoDB Streams"),
    "EnableKinesisStreamingDestination": _refused("Kinesis: use DynamoDB Streams"),
    "ExportTableToPointInTime": _absent(
        "PointInTimeRecoveryUnavailableException", "TableArn", _NO_RECOVERY
    ),
    "GetResourcePolicy": _absent(
        "PolicyNotFoundException", "ResourceArn", "Resource-based policy not found for: {}"
    ),
    "ImportTable": _refused(_NO_S3),
    "ListBulkOperations": _empty({"BulkOperationsSummaryList": []}),
    "ListContributorInsights": _empty({"ContributorInsightsSummaries": []}),
    "ListExports": _empty({"ExportSummaries": []}),
    "ListGlobalTables": _empty({"GlobalTables": []}),
    "ListImports": _empty({"ImportSummaryList": []}),
    "PutResourcePolicy": _refused(_POLICIES),
    "RestoreTableToPointInTime": _absent(
        "PointInTimeRecoveryUnavailableException", "TargetTableName", _NO_RECOVERY
    ),
    "SearchVectors": _refused("vector indexes"),
    "StartBulkPutItems": _refused(f"bulk operations over {_NO_S3}"),
    "UpdateContinuousBackups": Operation(_update_continuous_backups, WRITE_STRUCTURE),
    "UpdateContributorInsights": _refused("contributor insights"),
    "UpdateGlobalTable": _refused("global tables"),
    "UpdateGlobalTableSettings": _refused("global tables"),
    "UpdateKinesisStreamingDestination": _refused("Kinesis: use DynamoDB Streams"),
    "UpdateTableReplicaAutoScaling": _refused("auto scaling of replicas"),
}

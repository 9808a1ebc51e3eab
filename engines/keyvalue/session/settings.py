"""Tags of tables, and what an instance says of itself: DescribeLimits, DescribeEndpoints."""

from __future__ import annotations

from typing import Any

from engines.keyvalue.errors import invalid_parameter, not_found, validation
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.parse.shapes import TABLE_ARN
from engines.keyvalue.session import changing
from engines.keyvalue.session.changing import Row
from engines.keyvalue.session.context import Context
from engines.keyvalue.session.tables import TAGS_MAX
from engines.kit.ports import Statements

# What DynamoDB gives to everybody at first; here where the plan has no limit.
ACCOUNT_UNITS = 80_000
TABLE_UNITS = 40_000
ENDPOINT_MINUTES = 1_440


async def tag_resource(context: Context, parsed: Parsed) -> bytes:
    """TagResource: adds tags, and replaces those of the same keys. The answer has no body."""
    fields = parsed.fields
    arn = fields["ResourceArn"]
    name = _table(context, arn)
    async with changing.transaction(context, name) as statements:
        row = await _locked(context, statements, name, _resource_not_found(arn))
        tags = row.body.setdefault("Tags", {})
        tags |= {tag["Key"]: tag["Value"] for tag in fields["Tags"]}
        if len(tags) > TAGS_MAX:
            raise invalid_parameter(f"Number of tags exceeds the limit of {TAGS_MAX}")
        await changing.save_row(statements, row)
    return b""


async def untag_resource(context: Context, parsed: Parsed) -> bytes:
    """UntagResource: keys that are not there do not matter. The answer has no body."""
    fields = parsed.fields
    name = _table(context, fields["ResourceArn"])
    async with changing.transaction(context, name) as statements:
        row = await _locked(context, statements, name, not_found())
        for key in fields["TagKeys"]:
            row.body.get("Tags", {}).pop(key, None)
        await changing.save_row(statements, row)
    return b""


async def list_tags_of_resource(context: Context, parsed: Parsed) -> dict[str, Any]:
    """ListTagsOfResource: all of them, in one page."""
    fields = parsed.fields
    arn = fields["ResourceArn"]
    name = _table(context, arn)
    known = await context.tables.read(context.store, name)
    if known is None:
        raise _resource_not_found(arn)
    if fields.get("NextToken"):
        raise validation("Invalid NextToken")
    tags = known.table.body.get("Tags") or {}
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in sorted(tags)]}


async def describe_limits(context: Context, parsed: Parsed) -> dict[str, Any]:
    """DescribeLimits: the plan's units per second, which all tables share."""
    context.authorize()
    limits = context.record.limits
    return {
        "AccountMaxReadCapacityUnits": limits.read or ACCOUNT_UNITS,
        "AccountMaxWriteCapacityUnits": limits.write or ACCOUNT_UNITS,
        "TableMaxReadCapacityUnits": limits.read or TABLE_UNITS,
        "TableMaxWriteCapacityUnits": limits.write or TABLE_UNITS,
    }


async def describe_endpoints(context: Context, parsed: Parsed) -> dict[str, Any]:
    """DescribeEndpoints: the one that the client has found."""
    return {"Endpoints": [{"Address": context.host, "CachePeriodInMinutes": ENDPOINT_MINUTES}]}


def _table(context: Context, arn: str) -> str:
    """Return the name in a table's ARN, whose account has been checked."""
    match = TABLE_ARN.fullmatch(arn)
    if match is None:
        raise validation(f"Invalid TableArn: Invalid ResourceArn provided as input {arn}")
    context.authorize(match[1])
    return match[1]


async def _locked(context: Context, statements: Statements, name: str, refusal: Exception) -> Row:
    row = await changing.found(context.tables.schema, statements, name)
    if row is None:
        raise refusal
    return row


def _resource_not_found(arn: str) -> Exception:
    return not_found(f"Requested resource not found: ResourcArn: {arn} not found")

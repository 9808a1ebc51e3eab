"""A table's row in the catalogue, and what DescribeTable tells of it.

The body of a row has the members of DynamoDB's TableDescription that do not depend on who asks:
no ARNs, whose region is the request's, and no sizes, which are asked of the storage. Further
members, which nobody is shown:

    Slot           in each secondary index: its columns
    BillingMode    as the table has it; BillingModeSummary is made of it
    Tags           {key: value}
    TimeToLive     {"AttributeName", "Enabled", "IsFilled"} while it is on
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Body = dict[str, Any]

ON_DEMAND = "PAY_PER_REQUEST"
INDEX_MEMBERS = ("LocalSecondaryIndexes", "GlobalSecondaryIndexes")
# What is stored as it was given, and shown as it is stored.
_SHOWN = (
    "AttributeDefinitions",
    "TableName",
    "KeySchema",
    "CreationDateTime",
    "TableId",
    "StreamSpecification",
    "LatestStreamLabel",
    "RestoreSummary",
    "SSEDescription",
    "DeletionProtectionEnabled",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many items there are and how many bytes they have, also in each index, by its slot."""

    items: int = 0
    size_bytes: int = 0
    indexes: Mapping[int, tuple[int, int]] = field(default_factory=dict)


NO_SIZES = Sizes()


def new_body(fields: Mapping[str, Any], table_uuid: str, now: float) -> Body:
    """Return the body of a table that a checked CreateTable asks for; it is active."""
    body: Body = {
        "AttributeDefinitions": fields["AttributeDefinitions"],
        "TableName": fields["TableName"],
        "KeySchema": fields["KeySchema"],
        "TableStatus": "ACTIVE",
        "CreationDateTime": now,
        "TableId": table_uuid,
        "BillingMode": fields.get("BillingMode", "PROVISIONED"),
        "ProvisionedThroughput": new_throughput(fields.get("ProvisionedThroughput")),
        "Tags": {tag["Key"]: tag["Value"] for tag in fields.get("Tags") or ()},
    }
    if "BillingMode" in fields:
        body["IsBillingShown"] = True
    if body["BillingMode"] == ON_DEMAND:
        body["OnDemandSince"] = now
    for member in INDEX_MEMBERS:
        for index in fields.get(member) or ():
            body.setdefault(member, []).append(
                new_index(index, free_slot(body), is_global=member == "GlobalSecondaryIndexes")
            )
    if fields.get("DeletionProtectionEnabled") is not None:
        body["DeletionProtectionEnabled"] = fields["DeletionProtectionEnabled"]
    if fields.get("TableClass"):
        body["TableClassSummary"] = {"TableClass": fields["TableClass"]}
    if fields.get("WarmThroughput"):
        body["WarmThroughput"] = fields["WarmThroughput"]
    encryption = sse_description(fields.get("SSESpecification"))
    if encryption is not None:
        body["SSEDescription"] = encryption
    return body


def new_index(fields: Mapping[str, Any], slot: int, *, is_global: bool) -> Body:
    """Return the part of a body that is a new secondary index."""
    index: Body = {
        "IndexName": fields["IndexName"],
        "KeySchema": fields["KeySchema"],
        "Projection": fields["Projection"],
        "Slot": slot,
    }
    if is_global:
        index["IndexStatus"] = "ACTIVE"
        index["ProvisionedThroughput"] = new_throughput(fields.get("ProvisionedThroughput"))
        if fields.get("WarmThroughput"):
            index["WarmThroughput"] = fields["WarmThroughput"]
    return index


def new_throughput(wanted: Mapping[str, int] | None) -> Body:
    """Return a throughput that has never been changed; tables on demand have none."""
    wanted = wanted or {}
    return {
        "NumberOfDecreasesToday": 0,
        "ReadCapacityUnits": wanted.get("ReadCapacityUnits", 0),
        "WriteCapacityUnits": wanted.get("WriteCapacityUnits", 0),
    }


def changed_throughput(before: Body, wanted: Mapping[str, int] | None, now: float) -> Body:
    """Return a throughput after a change, with the times of increases and decreases."""
    after = new_throughput(wanted)
    units = ("ReadCapacityUnits", "WriteCapacityUnits")
    made = {**before, **{unit: after[unit] for unit in units}}
    if any(after[unit] > before[unit] for unit in units):
        made["LastIncreaseDateTime"] = now
    if any(after[unit] < before[unit] for unit in units):
        made["NumberOfDecreasesToday"] = decreases_today(before, now) + 1
        made["LastDecreaseDateTime"] = now
    return made


def decreases_today(throughput: Body, now: float) -> int:
    """Return how many decreases there were on this day in UTC."""
    last = throughput.get("LastDecreaseDateTime")
    if last is None or _day(last) != _day(now):
        return 0
    return int(throughput["NumberOfDecreasesToday"])


def sse_description(wanted: Mapping[str, Any] | None) -> Body | None:
    """Return SSEDescription for a specification; None for the default, which shows nothing."""
    if not wanted or not wanted.get("Enabled"):
        return None
    return {"Status": "ENABLED", "SSEType": wanted.get("SSEType", "KMS")}


def begin_stream(body: Body, view: str, now: float) -> None:
    """Give a table a stream that begins now."""
    body["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": view}
    body["LatestStreamLabel"] = stream_label(now)


def indexes_of(body: Body) -> Iterable[Body]:
    """Yield all secondary indexes of a body."""
    for member in INDEX_MEMBERS:
        yield from body.get(member) or ()


def free_slot(body: Body) -> int:
    """Return the lowest slot that no index of the body has."""
    taken = {index["Slot"] for index in indexes_of(body)}
    return next(slot for slot in range(1, len(taken) + 2) if slot not in taken)


def global_index(body: Body, name: str) -> Body | None:
    """Return a global secondary index by its name."""
    for index in body.get("GlobalSecondaryIndexes") or ():
        if index["IndexName"] == name:
            found: Body = index
            return found
    return None


def is_changing(body: Body) -> bool:
    """Say whether work in the background has to end before the table can be changed again."""
    ttl = body.get("TimeToLive")
    return (
        body["TableStatus"] != "ACTIVE"
        or has_new_index(body)
        or (ttl is not None and not ttl["IsFilled"])
    )


def used_attributes(body: Body) -> set[str]:
    """Return the names of all attributes that are in a key."""
    schemas = [body["KeySchema"], *(index["KeySchema"] for index in indexes_of(body))]
    return {element["AttributeName"] for schema in schemas for element in schema}


def description(body: Body, table_arn: str, sizes: Sizes, now: float) -> Body:
    """Return the TableDescription of a table as it is."""
    shown = {name: copy.deepcopy(body[name]) for name in _SHOWN if name in body}
    is_updated = body["TableStatus"] == "ACTIVE" and has_new_index(body)
    shown["TableStatus"] = "UPDATING" if is_updated else body["TableStatus"]
    shown["TableArn"] = table_arn
    shown["ItemCount"], shown["TableSizeBytes"] = sizes.items, sizes.size_bytes
    shown["ProvisionedThroughput"] = _throughput(body["ProvisionedThroughput"], now)
    shown |= _billing(body)
    if "LatestStreamLabel" in body:
        shown["LatestStreamArn"] = stream_arn(table_arn, body["LatestStreamLabel"])
    if "TableClassSummary" in body:
        shown["TableClassSummary"] = dict(body["TableClassSummary"])
    if "WarmThroughput" in body:
        shown["WarmThroughput"] = {**body["WarmThroughput"], "Status": "ACTIVE"}
    for member in INDEX_MEMBERS:
        if body.get(member):
            shown[member] = [_index(index, table_arn, sizes, now) for index in body[member]]
    return shown


def creating(shown: Body) -> Body:
    """Return what CreateTable answers: the description of a table that is about to be there."""
    shown["TableStatus"] = "CREATING"
    shown.get("BillingModeSummary", {}).pop("LastUpdateToPayPerRequestDateTime", None)
    shown.get("TableThroughputModeSummary", {}).pop("LastUpdateToPayPerRequestDateTime", None)
    for index in shown.get("GlobalSecondaryIndexes", ()):
        index["IndexStatus"] = "CREATING"
    return shown


def deleting(shown: Body) -> Body:
    """Return what DeleteTable answers: what is left of a description."""
    members = (
        "TableName",
        "TableArn",
        "TableId",
        "ItemCount",
        "TableSizeBytes",
        "ProvisionedThroughput",
        "BillingModeSummary",
        "TableThroughputModeSummary",
        "DeletionProtectionEnabled",
    )
    return {name: shown[name] for name in members if name in shown} | {"TableStatus": "DELETING"}


def stream_arn(table_arn: str, label: str) -> str:
    """Return the ARN of a stream."""
    return f"{table_arn}/stream/{label}"


def stream_label(now: float) -> str:
    """Return the label of a stream that begins now: a time in UTC, in milliseconds."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def projected_count(indexes: Sequence[Body]) -> int:
    """Return how many attributes indexes project that are named one by one."""
    return sum(len(index["Projection"].get("NonKeyAttributes") or ()) for index in indexes)


def _billing(body: Body) -> Body:
    if "IsBillingShown" not in body:
        return {}
    mode, shown = body["BillingMode"], {}
    for name, key in (
        ("BillingModeSummary", "BillingMode"),
        ("TableThroughputModeSummary", "TableThroughputMode"),
    ):
        shown[name] = {key: mode}
        if "OnDemandSince" in body:
            shown[name]["LastUpdateToPayPerRequestDateTime"] = body["OnDemandSince"]
    # A table that was made with PROVISIONED has never had another mode, and shows one member.
    if "OnDemandSince" not in body:
        del shown["TableThroughputModeSummary"]
    return shown


def _index(index: Body, table_arn: str, sizes: Sizes, now: float) -> Body:
    shown = {name: copy.deepcopy(value) for name, value in index.items() if name != "Slot"}
    shown["IndexArn"] = f"{table_arn}/index/{index['IndexName']}"
    items, size_bytes = sizes.indexes.get(index["Slot"], (0, 0))
    shown["ItemCount"], shown["IndexSizeBytes"] = items, size_bytes
    if "ProvisionedThroughput" in index:
        shown["ProvisionedThroughput"] = _throughput(index["ProvisionedThroughput"], now)
    if "WarmThroughput" in index:
        shown["WarmThroughput"]["Status"] = "ACTIVE"
    return shown


def _throughput(throughput: Body, now: float) -> Body:
    return {**throughput, "NumberOfDecreasesToday": decreases_today(throughput, now)}


def has_new_index(body: Body) -> bool:
    """Say whether an index is being made."""
    return any(index.get("IndexStatus", "ACTIVE") != "ACTIVE" for index in indexes_of(body))


def _day(seconds: float) -> int:
    return int(seconds // 86_400)

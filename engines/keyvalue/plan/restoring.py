"""Backups in DynamoDB's words, and the body of a table that is made of one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from engines.keyvalue.errors import invalid_parameter, validation
from engines.keyvalue.plan.descriptions import (
    ON_DEMAND,
    Body,
    indexes_of,
    new_throughput,
    sse_description,
    used_attributes,
)

# What a restored table takes over; streams, TTL, tags and protection it has none.
_KEPT = ("AttributeDefinitions", "KeySchema", "BillingMode", "TableClassSummary", "SSEDescription")
_INDEX_OVERRIDES = {
    "LocalSecondaryIndexes": "LocalSecondaryIndexOverride",
    "GlobalSecondaryIndexes": "GlobalSecondaryIndexOverride",
}


def backup_details(body: Body, arn: str) -> Body:
    """Return BackupDetails."""
    return {
        "BackupArn": arn,
        "BackupName": body["BackupName"],
        "BackupSizeBytes": body.get("BackupSizeBytes", 0),
        "BackupStatus": body["BackupStatus"],
        "BackupType": "USER",
        "BackupCreationDateTime": body["CreatedAt"],
    }


def backup_described(body: Body, arn: str, table_arn: str) -> Body:
    """Return BackupDescription."""
    source = body["Source"]
    table: Body = {
        "TableName": source["TableName"],
        "TableId": source["TableId"],
        "TableArn": table_arn,
        "TableSizeBytes": body.get("BackupSizeBytes", 0),
        "ItemCount": body.get("ItemCount", 0),
        "KeySchema": source["KeySchema"],
        "TableCreationDateTime": source["CreationDateTime"],
        "ProvisionedThroughput": _units(source["ProvisionedThroughput"]),
        "BillingMode": source["BillingMode"],
    }
    features: Body = {}
    for member in _INDEX_OVERRIDES:
        if source.get(member):
            features[member] = [_index(index) for index in source[member]]
    if "StreamSpecification" in source:
        features["StreamDescription"] = source["StreamSpecification"]
    if "TimeToLive" in source:
        features["TimeToLiveDescription"] = {
            "TimeToLiveStatus": "ENABLED",
            "AttributeName": source["TimeToLive"]["AttributeName"],
        }
    if "SSEDescription" in source:
        features["SSEDescription"] = source["SSEDescription"]
    return {
        "BackupDetails": backup_details(body, arn),
        "SourceTableDetails": table,
        "SourceTableFeatureDetails": features,
    }


def restored_body(source: Body, fields: Mapping[str, Any], table_uuid: str, now: float) -> Body:
    """Return the body of a table that a backup is restored into; its rows are still missing.

    Raises DynamoError for overrides that do not fit.
    """
    body = {name: copy.deepcopy(source[name]) for name in _KEPT if name in source}
    body |= {
        "TableName": fields["TargetTableName"],
        "TableStatus": "CREATING",
        "CreationDateTime": now,
        "TableId": table_uuid,
        "Tags": {},
    }
    for member, override in _INDEX_OVERRIDES.items():
        kept = _chosen(source.get(member) or (), fields.get(override))
        if kept:
            body[member] = kept
    for index in indexes_of(body):
        if "IndexStatus" in index:
            # Copied rows have the columns of every index, also of one that was being made.
            index["IndexStatus"] = "ACTIVE"
            index.pop("Backfilling", None)
    _bill(body, source, fields, now)
    if "SSESpecificationOverride" in fields:
        body.pop("SSEDescription", None)
        encryption = sse_description(fields["SSESpecificationOverride"])
        if encryption is not None:
            body["SSEDescription"] = encryption
    used = used_attributes(body)
    body["AttributeDefinitions"] = [
        each for each in body["AttributeDefinitions"] if each["AttributeName"] in used
    ]
    return body


def _chosen(indexes: Sequence[Body], wanted: Sequence[Mapping[str, Any]] | None) -> list[Body]:
    """Return the indexes that a restore keeps: all, or those that it names as they were."""
    # One that was not complete has not all of its columns filled.
    complete = [copy.deepcopy(each) for each in indexes if "Backfilling" not in each]
    if wanted is None:
        return complete
    by_name = {index["IndexName"]: index for index in complete}
    chosen = []
    for each in wanted:
        index = by_name.get(each["IndexName"])
        if index is None or index["KeySchema"] != each["KeySchema"]:
            raise validation(
                "A restore can leave out indexes of the backup, and cannot add or change one: "
                + each["IndexName"]
            )
        if each.get("ProvisionedThroughput"):
            index["ProvisionedThroughput"] = new_throughput(each["ProvisionedThroughput"])
        chosen.append(index)
    return chosen


def _bill(body: Body, source: Body, fields: Mapping[str, Any], now: float) -> None:
    mode = fields.get("BillingModeOverride", source["BillingMode"])
    wanted = fields.get("ProvisionedThroughputOverride")
    body["BillingMode"] = mode
    if mode == ON_DEMAND:
        if wanted:
            raise invalid_parameter(
                "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when "
                "BillingMode is PAY_PER_REQUEST"
            )
        body["IsBillingShown"], body["OnDemandSince"] = True, now
        body["ProvisionedThroughput"] = new_throughput(None)
        for index in body.get("GlobalSecondaryIndexes") or ():
            index["ProvisionedThroughput"] = new_throughput(None)
        return
    units = wanted or _units(source["ProvisionedThroughput"])
    if not units["ReadCapacityUnits"]:
        raise invalid_parameter(
            "ProvisionedThroughput must be specified when BillingMode is PROVISIONED"
        )
    body["ProvisionedThroughput"] = new_throughput(units)
    for index in body.get("GlobalSecondaryIndexes") or ():
        own = _units(index["ProvisionedThroughput"])
        index["ProvisionedThroughput"] = new_throughput(own if own["ReadCapacityUnits"] else units)


def _units(throughput: Mapping[str, Any]) -> Body:
    return {name: throughput[name] for name in ("ReadCapacityUnits", "WriteCapacityUnits")}


def _index(index: Body) -> Body:
    shown = {name: index[name] for name in ("IndexName", "KeySchema", "Projection")}
    if "ProvisionedThroughput" in index:
        shown["ProvisionedThroughput"] = _units(index["ProvisionedThroughput"])
    return shown

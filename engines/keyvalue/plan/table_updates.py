"""UpdateTable: what a request makes of a table's body, and what has to be done for it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines.keyvalue.errors import invalid_parameter, limit_exceeded, not_found, validation
from engines.keyvalue.plan.descriptions import (
    ON_DEMAND,
    Body,
    begin_stream,
    changed_throughput,
    free_slot,
    global_index,
    indexes_of,
    new_index,
    projected_count,
    sse_description,
    used_attributes,
)

GLOBAL_INDEXES_MAX = 20
PROJECTED_MAX = 100
_UNITS = ("ReadCapacityUnits", "WriteCapacityUnits")
# Which settings are taken over as they are given.
_SETTINGS = ("DeletionProtectionEnabled", "WarmThroughput")


@dataclass(slots=True)
class Change:
    """The body afterwards; the indexes to be made and dropped; what happens to the stream."""

    body: Body
    created: list[Body] = field(default_factory=list)
    dropped: list[Body] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    opens_stream: bool = False
    closes_stream: bool = False

    @property
    def is_shape(self) -> bool:
        """True if writers have to know of it."""
        return bool(self.created or self.dropped or self.opens_stream or self.closes_stream)


def change_of(before: Body, fields: Mapping[str, Any], now: float) -> Change:
    """Return what an UpdateTable makes of a table.

    Raises DynamoError for what the table does not allow.
    """
    change = Change(copy.deepcopy(before))
    updates = fields.get("GlobalSecondaryIndexUpdates") or ()
    _check_count(updates)
    _bill(change, fields, updates, now)
    _update_indexes(change, updates, now)
    _drop_indexes(change, updates)
    _create_indexes(change, fields, updates)
    _set_stream(change, fields.get("StreamSpecification"), now)
    body = change.body
    for name in _SETTINGS:
        if fields.get(name) is not None:
            body[name] = fields[name]
    if fields.get("TableClass"):
        body["TableClassSummary"] = {"TableClass": fields["TableClass"], "LastUpdateDateTime": now}
    if fields.get("SSESpecification"):
        body.pop("SSEDescription", None)
        encryption = sse_description(fields["SSESpecification"])
        if encryption is not None:
            body["SSEDescription"] = encryption
    return change


def answered(shown: Body, before: Body, change: Change) -> Body:
    """Return what UpdateTable answers: the description while the change is under way.

    `shown` is the description of `change.body`. New units are shown when they are in force.
    """
    shown["TableStatus"] = "UPDATING"
    was_provisioned = before["BillingMode"] != ON_DEMAND
    if was_provisioned and change.body["BillingMode"] != ON_DEMAND:
        _keep_units(shown, before)
    dropped = [{**index, "IndexStatus": "DELETING"} for index in change.dropped]
    for index in dropped:
        index.pop("Slot")
        index.pop("Backfilling", None)
    listed = [*shown.get("GlobalSecondaryIndexes", ()), *dropped]
    names = {index["IndexName"] for index in change.created}
    for index in listed:
        if index["IndexName"] in names:
            index["IndexStatus"], index["Backfilling"] = "CREATING", False
        elif index["IndexName"] in change.updated:
            index["IndexStatus"] = "UPDATING"
            found = global_index(before, index["IndexName"])
            if found is not None and was_provisioned:
                _keep_units(index, found)
    if listed:
        shown["GlobalSecondaryIndexes"] = listed
    return shown


def _keep_units(shown: Body, before: Body) -> None:
    was = before["ProvisionedThroughput"]
    for name in (*_UNITS, "NumberOfDecreasesToday"):
        shown["ProvisionedThroughput"][name] = was[name]


def _check_count(updates: Sequence[Mapping[str, Any]]) -> None:
    if sum("Create" in update or "Delete" in update for update in updates) > 1:
        raise limit_exceeded(
            "Subscriber limit exceeded: Only 1 online index can be created or deleted "
            "simultaneously per table"
        )


def _bill(
    change: Change, fields: Mapping[str, Any], updates: Sequence[Mapping[str, Any]], now: float
) -> None:
    """Change the billing mode and the table's own units."""
    body, wanted = change.body, fields.get("ProvisionedThroughput")
    was = body["BillingMode"]
    mode = fields.get("BillingMode", was)
    if mode == ON_DEMAND and wanted:
        raise invalid_parameter(
            "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode "
            "is PAY_PER_REQUEST"
        )
    if mode == was:
        if wanted:
            _check_differs(body["ProvisionedThroughput"], wanted, "table")
            body["ProvisionedThroughput"] = changed_throughput(
                body["ProvisionedThroughput"], wanted, now
            )
        return
    body["BillingMode"], body["IsBillingShown"] = mode, True
    if mode == ON_DEMAND:
        body["OnDemandSince"] = now
        for each in (body, *(body.get("GlobalSecondaryIndexes") or ())):
            each["ProvisionedThroughput"] = changed_throughput(
                each["ProvisionedThroughput"], None, now
            )
        return
    given = {update["Update"]["IndexName"] for update in updates if "Update" in update}
    names = [index["IndexName"] for index in body.get("GlobalSecondaryIndexes") or ()]
    missing = [name for name in names if name not in given]
    if missing:
        raise invalid_parameter(
            f"ProvisionedThroughput must be specified for index: {','.join(missing)}"
        )
    body["ProvisionedThroughput"] = changed_throughput(body["ProvisionedThroughput"], wanted, now)


def _update_indexes(change: Change, updates: Sequence[Mapping[str, Any]], now: float) -> None:
    for update in updates:
        wanted = update.get("Update")
        if wanted is None:
            continue
        name = wanted["IndexName"]
        index = global_index(change.body, name)
        if index is None:
            raise validation(
                "This operation cannot be performed with given input values. Please contact "
                "DynamoDB service team for more info: Action Blocked: IndexUpdate"
            )
        units = wanted.get("ProvisionedThroughput")
        if units:
            _check_bounds(units, name)
            if change.body["BillingMode"] == ON_DEMAND:
                raise _no_units(name)
            _check_differs(index["ProvisionedThroughput"], units, f"index {name}", "index")
            index["ProvisionedThroughput"] = changed_throughput(
                index["ProvisionedThroughput"], units, now
            )
        if wanted.get("WarmThroughput"):
            index["WarmThroughput"] = wanted["WarmThroughput"]
        change.updated.append(name)


def _drop_indexes(change: Change, updates: Sequence[Mapping[str, Any]]) -> None:
    for update in updates:
        if "Delete" not in update:
            continue
        index = global_index(change.body, update["Delete"]["IndexName"])
        if index is None:
            raise not_found()
        kept = [each for each in change.body["GlobalSecondaryIndexes"] if each is not index]
        change.body["GlobalSecondaryIndexes"] = kept
        change.dropped.append(index)
        _keep_used_definitions(change.body)


def _create_indexes(
    change: Change, fields: Mapping[str, Any], updates: Sequence[Mapping[str, Any]]
) -> None:
    body = change.body
    for update in updates:
        wanted = update.get("Create")
        if wanted is None:
            continue
        name = wanted["IndexName"]
        if any(index["IndexName"] == name for index in indexes_of(body)):
            raise validation("Attempting to create an index which already exists")
        _check_throughput(body, wanted)
        _define(body, fields.get("AttributeDefinitions") or (), wanted["KeySchema"])
        index = new_index(wanted, free_slot(body), is_global=True)
        body.setdefault("GlobalSecondaryIndexes", []).append(index)
        change.created.append(index)
        if len(body["GlobalSecondaryIndexes"]) > GLOBAL_INDEXES_MAX:
            raise invalid_parameter(
                f"GlobalSecondaryIndex count exceeds the per-table limit of {GLOBAL_INDEXES_MAX}"
            )
        if projected_count([*indexes_of(body)]) > PROJECTED_MAX:
            raise invalid_parameter(
                "The total number of NonKeyAttributes of all indexes exceeds the limit of "
                f"{PROJECTED_MAX}"
            )
        _keep_used_definitions(body)


def _check_throughput(body: Body, wanted: Mapping[str, Any]) -> None:
    name, units = wanted["IndexName"], wanted.get("ProvisionedThroughput")
    if body["BillingMode"] == ON_DEMAND:
        if units:
            raise _no_units(name)
    elif not units:
        raise invalid_parameter(f"ProvisionedThroughput must be specified for index: {name}")
    else:
        _check_bounds(units, name)


def _define(
    body: Body, given: Sequence[Mapping[str, str]], schema: Sequence[Mapping[str, str]]
) -> None:
    """Add the definitions of a request to those of the table."""
    kinds = {each["AttributeName"]: each["AttributeType"] for each in body["AttributeDefinitions"]}
    roles = {element["AttributeName"]: element["KeyType"] for element in schema}
    for each in given:
        name, kind = each["AttributeName"], each["AttributeType"]
        if kinds.setdefault(name, kind) != kind:
            role = roles.get(name, "HASH")
            raise invalid_parameter(
                "Attributes cannot be redefined. Please check that your attribute has the same "
                "type as previously defined. Existing schema: Schema:[SchemaElement: "
                f"key{{{name}:{kinds[name]}:{role}}}] New schema: Schema:[SchemaElement: "
                f"key{{{name}:{kind}:{role}}}]"
            )
    names = [element["AttributeName"] for element in schema]
    if any(name not in kinds for name in names):
        raise invalid_parameter(
            "Some index key attributes are not defined in AttributeDefinitions. "
            f"Keys: [{', '.join(names)}], AttributeDefinitions: [{', '.join(kinds)}]"
        )
    body["AttributeDefinitions"] = [
        {"AttributeName": name, "AttributeType": kind} for name, kind in kinds.items()
    ]


def _keep_used_definitions(body: Body) -> None:
    used = used_attributes(body)
    body["AttributeDefinitions"] = [
        each for each in body["AttributeDefinitions"] if each["AttributeName"] in used
    ]


def _set_stream(change: Change, wanted: Mapping[str, Any] | None, now: float) -> None:
    if not wanted:
        return
    body = change.body
    if wanted["StreamEnabled"]:
        if "StreamSpecification" in body:
            raise validation("Table already has an enabled stream: " + body["TableName"])
        begin_stream(body, wanted["StreamViewType"], now)
        change.opens_stream = True
        return
    if "StreamSpecification" not in body:
        raise validation("Table has no stream to disable: " + body["TableName"])
    # The label stays: it is that of the latest stream, which can still be read.
    del body["StreamSpecification"]
    change.closes_stream = True


def _check_bounds(units: Mapping[str, int], name: str) -> None:
    for each in _UNITS:
        if units[each] > 10**12:
            raise validation(
                f"Given value {units[each]} for {each} is out of bounds for index {name}"
            )


def _check_differs(
    before: Mapping[str, int], wanted: Mapping[str, int], what: str, word: str = "table"
) -> None:
    if any(before[unit] != wanted[unit] for unit in _UNITS):
        return
    sentences = "".join(
        f"Current {unit} provisioned for the {word}: {before[unit]}. "
        f"Requested {unit}: {wanted[unit]}. "
        for unit in _UNITS
    )
    raise validation(
        f"The provisioned throughput for the {what} will not change. The requested value equals "
        f"the current value. {sentences}Refer to the Amazon DynamoDB Developer Guide for current "
        "limits and how to request higher limits."
    )


def _no_units(name: str) -> Exception:
    return invalid_parameter(
        f"ProvisionedThroughput should not be specified for index: {name} when BillingMode is "
        "PAY_PER_REQUEST"
    )

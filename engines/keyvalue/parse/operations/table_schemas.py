"""What CreateTable and UpdateTable say of keys, indexes and throughput that do not go together.

Everything that can be told from the request alone; what depends on the table as it is, and on its
indexes, is told when it has been looked at. The order of the checks is DynamoDB's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.keyvalue.errors import invalid_parameter, validation
from engines.keyvalue.parse.operations.plan import Fields, Parsed

UNITS_MAX = 1_000_000_000_000
LOCAL_INDEXES_MAX = 5
GLOBAL_INDEXES_MAX = 20
# "User-specified attributes projected into all of a table's secondary indexes".
PROJECTED_ATTRIBUTES_MAX = 100

_NO_DEFINITION = "Invalid KeySchema: Some index key attribute have no definition"
_BOTH_ON_DEMAND = (
    "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is "
    "PAY_PER_REQUEST"
)
_UPDATES = (
    "ProvisionedThroughput", "BillingMode", "StreamSpecification", "SSESpecification",
    "ReplicaUpdates", "TableClass", "DeletionProtectionEnabled", "OnDemandThroughput",
    "WarmThroughput", "MultiRegionConsistency", "GlobalTableWitnessUpdates",
    "GlobalTableSettingsReplicationMode", "DisassociationProtectionEnabled",
)  # fmt: skip


def new_table(parsed: Parsed) -> None:
    """Check a CreateTable."""
    fields = parsed.fields
    is_on_demand = fields.get("BillingMode") == "PAY_PER_REQUEST"
    _check_billing(fields, is_on_demand=is_on_demand)
    check_units(fields.get("ProvisionedThroughput"))
    defined = _defined(fields)
    schema = fields["KeySchema"]
    if len(schema) > len(defined):
        raise validation(_NO_DEFINITION)
    check_defined(schema, defined)
    check_schema(schema)
    _check_local(fields, schema, defined)
    _check_global(fields, defined, is_on_demand=is_on_demand)
    _check_indexes(fields)
    _check_used(fields, defined)
    check_stream(fields.get("StreamSpecification"))


def table_update(parsed: Parsed) -> None:
    """Check an UpdateTable."""
    fields = parsed.fields
    check_units(fields.get("ProvisionedThroughput"))
    updates = fields.get("GlobalSecondaryIndexUpdates") or []
    has_any = updates or fields.get("VectorIndexUpdates")
    if not has_any and not any(name in fields for name in _UPDATES):
        raise validation(
            "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, "
            "GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required"
        )
    billing = fields.get("BillingMode")
    if billing == "PAY_PER_REQUEST" and "ProvisionedThroughput" in fields:
        raise invalid_parameter(_BOTH_ON_DEMAND)
    if billing == "PROVISIONED" and "ProvisionedThroughput" not in fields:
        raise invalid_parameter(
            "ProvisionedThroughput must be specified when BillingMode is PROVISIONED"
        )
    _check_index_updates(updates, _defined(fields))
    check_stream(fields.get("StreamSpecification"))


def check_units(throughput: Mapping[str, int] | None, index: str = "") -> None:
    """Refuse more units than there are numbers for."""
    if throughput is None:
        return
    where = f" for index {index}" if index else ""
    for name in ("ReadCapacityUnits", "WriteCapacityUnits"):
        if throughput[name] > UNITS_MAX:
            raise validation(f"Given value {throughput[name]} for {name} is out of bounds{where}")


def _defined(fields: Fields) -> dict[str, str]:
    """Return the types of the attributes that are defined, each once, by name."""
    defined: dict[str, str] = {}
    for definition in fields.get("AttributeDefinitions", ()):
        name = definition["AttributeName"]
        if name in defined:
            raise invalid_parameter(f"Duplicate AttributeName in AttributeDefinitions: {name}")
        defined[name] = definition["AttributeType"]
    return defined


def check_defined(schema: Sequence[Mapping[str, str]], defined: Mapping[str, str]) -> None:
    """Refuse a key of attributes that have no definition."""
    names = [element["AttributeName"] for element in schema]
    if any(name not in defined for name in names):
        raise invalid_parameter(
            "Some index key attributes are not defined in AttributeDefinitions. "
            f"Keys: [{', '.join(names)}], AttributeDefinitions: [{', '.join(defined)}]"
        )


def check_schema(schema: Sequence[Mapping[str, str]]) -> None:
    """Refuse a key that is not a hash key and perhaps a range key."""
    if schema[0]["KeyType"] != "HASH":
        raise validation("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
    if len(schema) < 2:
        return
    if schema[0]["AttributeName"] == schema[1]["AttributeName"]:
        raise validation(
            "Both the Hash Key and the Range Key element in the KeySchema have the same name"
        )
    if schema[1]["KeyType"] != "RANGE":
        raise validation("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type")


def check_projection(projection: Mapping[str, Any]) -> None:
    """Refuse attributes that a projection does not take, or the lack of those that it needs."""
    kind = projection.get("ProjectionType")
    if kind is None:
        raise invalid_parameter("Unknown ProjectionType: null")
    if kind == "INCLUDE" and "NonKeyAttributes" not in projection:
        raise invalid_parameter("ProjectionType is INCLUDE, but NonKeyAttributes is not specified")
    if kind != "INCLUDE" and "NonKeyAttributes" in projection:
        raise invalid_parameter(f"ProjectionType is {kind}, but NonKeyAttributes is specified")


def check_stream(stream: Mapping[str, Any] | None) -> None:
    """Refuse a stream of no view, and a view of no stream."""
    if stream is None:
        return
    if stream["StreamEnabled"] and "StreamViewType" not in stream:
        raise invalid_parameter("StreamViewType must be specified when StreamEnabled is true")
    if not stream["StreamEnabled"] and "StreamViewType" in stream:
        raise invalid_parameter("StreamViewType cannot be specified when StreamEnabled is false")


def _check_billing(fields: Fields, *, is_on_demand: bool) -> None:
    has_units = "ProvisionedThroughput" in fields
    if is_on_demand and has_units:
        raise invalid_parameter(_BOTH_ON_DEMAND)
    if not is_on_demand and not has_units:
        raise invalid_parameter(
            "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is "
            "PROVISIONED"
        )


def _check_local(
    fields: Fields, table: Sequence[Mapping[str, str]], defined: Mapping[str, str]
) -> None:
    indexes = fields.get("LocalSecondaryIndexes")
    if indexes is None:
        return
    if not indexes:
        raise invalid_parameter("List of LocalSecondaryIndexes is empty")
    if len(table) < 2:
        raise invalid_parameter(
            "Table KeySchema does not have a range key, which is required when specifying a "
            "LocalSecondaryIndex"
        )
    for index in indexes:
        name, schema = index["IndexName"], index["KeySchema"]
        check_defined(schema, defined)
        check_schema(schema)
        if len(schema) < 2:
            raise invalid_parameter(f"Index KeySchema does not have a range key for index: {name}")
        if schema[0]["AttributeName"] != table[0]["AttributeName"]:
            raise invalid_parameter(
                "Index KeySchema does not have the same leading hash key as table KeySchema for "
                f"index: {name}. index hash key: {schema[0]['AttributeName']}, "
                f"table hash key: {table[0]['AttributeName']}"
            )
        check_projection(index["Projection"])
    if len(indexes) > LOCAL_INDEXES_MAX and len(_names(indexes)) == len(indexes):
        raise invalid_parameter("Number of LocalSecondaryIndexes exceeds per-table limit of 5")


def _check_global(fields: Fields, defined: Mapping[str, str], *, is_on_demand: bool) -> None:
    indexes = fields.get("GlobalSecondaryIndexes")
    if indexes is None:
        return
    if not indexes:
        raise invalid_parameter("List of GlobalSecondaryIndexes is empty")
    for index in indexes:
        check_defined(index["KeySchema"], defined)
        check_schema(index["KeySchema"])
        check_projection(index["Projection"])
        name, throughput = index["IndexName"], index.get("ProvisionedThroughput")
        if is_on_demand and throughput is not None:
            raise invalid_parameter(
                f"ProvisionedThroughput should not be specified for index: {name} when "
                "BillingMode is PAY_PER_REQUEST"
            )
        if not is_on_demand and throughput is None:
            raise invalid_parameter(f"ProvisionedThroughput must be specified for index: {name}")
        check_units(throughput, name)
    if len(indexes) > GLOBAL_INDEXES_MAX and len(_names(indexes)) == len(indexes):
        raise invalid_parameter("GlobalSecondaryIndex count exceeds the per-table limit of 20")


def _names(indexes: Sequence[Mapping[str, Any]]) -> set[str]:
    return {index["IndexName"] for index in indexes}


def _all_indexes(fields: Fields) -> list[Mapping[str, Any]]:
    return [*fields.get("LocalSecondaryIndexes", ()), *fields.get("GlobalSecondaryIndexes", ())]


def _check_indexes(fields: Fields) -> None:
    """Check what holds of local and global indexes together."""
    seen: set[str] = set()
    projected = 0
    for index in _all_indexes(fields):
        if index["IndexName"] in seen:
            raise invalid_parameter(f"Duplicate index name: {index['IndexName']}")
        seen.add(index["IndexName"])
        projected += len(index["Projection"].get("NonKeyAttributes", ()))
    if projected > PROJECTED_ATTRIBUTES_MAX:
        raise invalid_parameter(
            "The total number of NonKeyAttributes of all indexes exceeds the limit of "
            f"{PROJECTED_ATTRIBUTES_MAX}"
        )


def _check_used(fields: Fields, defined: Mapping[str, str]) -> None:
    """Refuse a definition that no key uses."""
    indexes = _all_indexes(fields)
    schemas = [fields["KeySchema"], *(index["KeySchema"] for index in indexes)]
    used = {element["AttributeName"] for schema in schemas for element in schema}
    if len(used) == len(defined):
        return
    if not indexes:
        raise invalid_parameter(
            "Number of attributes in KeySchema does not exactly match number of attributes defined "
            "in AttributeDefinitions"
        )
    raise invalid_parameter(
        f"Some AttributeDefinitions are not used. AttributeDefinitions: [{', '.join(defined)}], "
        f"keys used: [{', '.join(sorted(used))}]"
    )


def _check_index_updates(updates: Sequence[Fields], defined: Mapping[str, str]) -> None:
    """Check what UpdateTable does with global indexes, as far as it can be told from here."""
    seen: set[str] = set()
    for update in updates:
        if len(update) != 1:
            raise invalid_parameter(
                "One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, "
                "GlobalSecondaryIndexUpdate.Delete must not be null"
                if not update
                else "Only one of GlobalSecondaryIndexUpdate.Update, "
                "GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete may be set"
            )
        for action in update.values():
            name = action["IndexName"]
            if name in seen:
                raise invalid_parameter(
                    "Only one global secondary index update per index is allowed simultaneously. "
                    f"Index: {name}"
                )
            seen.add(name)
            if "Projection" in action:
                check_defined(action["KeySchema"], defined)
                check_schema(action["KeySchema"])
                check_projection(action["Projection"])

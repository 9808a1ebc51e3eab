"""CreateTable, UpdateTable, DeleteTable, what describes and lists tables, TTL and tags."""

from __future__ import annotations

import re

from engines.keyvalue.errors import access_denied, invalid_parameter, validation
from engines.keyvalue.parse.operations import steps, table_schemas
from engines.keyvalue.parse.operations.members import (
    ATTRIBUTE_DEFINITIONS,
    BILLING_MODE,
    GLOBAL_INDEX,
    GLOBAL_INDEXES,
    INDEX_NAME,
    KEY_SCHEMA,
    LOCAL_INDEXES,
    ON_DEMAND_THROUGHPUT,
    PROVISIONED_THROUGHPUT,
    RESOURCE_ARN,
    SSE,
    STREAM_SPECIFICATION,
    TABLE_CLASS,
    TABLE_NAME,
    TAGS,
    VECTOR_INDEX,
    VECTOR_INDEXES,
    WARM_THROUGHPUT,
)
from engines.keyvalue.parse.operations.plan import Before, Fields, Operation, Parsed
from engines.keyvalue.parse.shapes import (
    FLAG,
    TABLE,
    TABLE_ARN,
    choice,
    each,
    integer,
    long,
    record,
    text,
)

_TAG = re.compile(r"[\w\s+\-=.:/@]*")
_REPLICATION_MODE = choice("ENABLED", "DISABLED", "ENABLED_WITH_OVERRIDES")
_REGION = text()
# What CreateTable and UpdateTable both have.
_TABLE = {
    "BillingMode": BILLING_MODE,
    "ProvisionedThroughput": PROVISIONED_THROUGHPUT,
    "StreamSpecification": STREAM_SPECIFICATION,
    "SSESpecification": SSE,
    "TableClass": TABLE_CLASS,
    "DeletionProtectionEnabled": FLAG,
    "WarmThroughput": WARM_THROUGHPUT,
    "OnDemandThroughput": ON_DEMAND_THROUGHPUT,
    "GlobalTableSettingsReplicationMode": _REPLICATION_MODE,
}
_REPLICA = {
    "RegionName": _REGION.required,
    "KMSMasterKeyId": text(),
    "ProvisionedThroughputOverride": record(
        "ProvisionedThroughputOverride", ReadCapacityUnits=long(1)
    ),
    "OnDemandThroughputOverride": record("OnDemandThroughputOverride", MaxReadRequestUnits=long()),
    "GlobalSecondaryIndexes": each(
        record(
            "ReplicaGlobalSecondaryIndex",
            IndexName=INDEX_NAME.required,
            ProvisionedThroughputOverride=record(
                "ProvisionedThroughputOverride", ReadCapacityUnits=long(1)
            ),
            OnDemandThroughputOverride=record(
                "OnDemandThroughputOverride", MaxReadRequestUnits=long()
            ),
        ),
        1,
    ),
    "TableClassOverride": TABLE_CLASS,
}
_REPLICA_UPDATES = each(
    record(
        "ReplicationGroupUpdate",
        Create=record("CreateReplicationGroupMemberAction", **_REPLICA),
        Update=record("UpdateReplicationGroupMemberAction", **_REPLICA),
        Delete=record("DeleteReplicationGroupMemberAction", RegionName=_REGION.required),
        Disassociate=record(
            "DisassociateReplicationGroupMemberAction",
            RegionName=_REGION.required,
            DisassociationMode=choice("WAIT_FOR_REPLICATION").required,
        ),
    ),
    1,
)
_INDEX_UPDATES = each(
    record(
        "GlobalSecondaryIndexUpdate",
        Update=record(
            "UpdateGlobalSecondaryIndexAction",
            IndexName=INDEX_NAME.required,
            ProvisionedThroughput=PROVISIONED_THROUGHPUT.required_unless(
                "OnDemandThroughput", "WarmThroughput"
            ),
            OnDemandThroughput=ON_DEMAND_THROUGHPUT,
            WarmThroughput=WARM_THROUGHPUT,
        ),
        Create=record("CreateGlobalSecondaryIndexAction", **GLOBAL_INDEX),
        Delete=record("DeleteGlobalSecondaryIndexAction", IndexName=INDEX_NAME.required),
    )
)


def _resource(operation: str) -> Before:
    """Return the check of an ARN that comes before everything else: whose is it?

    Whoever may not even name a resource is told so with the user's ARN. The account in it is not
    known here, and is zeros.
    """

    def before(fields: Fields) -> None:
        arn = fields.get("ResourceArn")
        if arn is None:
            raise validation("Invalid TableArn")
        if len(arn.split(":", 5)) < 6 or "/" not in arn.split(":", 5)[5]:
            raise access_denied(
                "User: arn:aws:iam::000000000000:root is not authorized to perform: "
                f"dynamodb:{operation} on resource: {arn[:1283] or '*'}"
            )

    return before


def _table_arn(parsed: Parsed) -> None:
    arn = parsed.fields["ResourceArn"]
    if not TABLE_ARN.fullmatch(arn):
        raise validation(f"Invalid TableArn: Invalid ResourceArn provided as input {arn}")
    parsed.table_arns.append(arn)


def _some_tags(parsed: Parsed) -> None:
    if not parsed.fields["Tags"]:
        raise validation("Atleast one Tag needs to be provided as Input.")
    _tags(parsed)


def _tags(parsed: Parsed) -> None:
    """Refuse characters that stand in no tag, and keys that are not the user's to give."""
    for tag in parsed.fields.get("Tags", ()):
        if tag["Key"].lower().startswith("aws:"):
            raise invalid_parameter("aws: prefixed tag key names are not allowed for external use.")
        for member in ("Key", "Value"):
            if not _TAG.fullmatch(tag[member]):
                raise invalid_parameter(
                    f"Tag {member} contains invalid characters. Allowed are letters, white space, "
                    "numbers, and + - = . _ : / @"
                )


def _some_tag_keys(parsed: Parsed) -> None:
    if not parsed.fields["TagKeys"]:
        raise validation("Atleast one Tag Key needs to be provided as Input.")


def _of_table(name: str) -> Operation:
    """Return an operation that has the name of a table and nothing else."""
    return Operation(
        record(name, TableName=TABLE.required), steps=(steps.table,), before=steps.required_table
    )


OPERATIONS = {
    "CreateTable": Operation(
        record(
            "CreateTableInput",
            AttributeDefinitions=ATTRIBUTE_DEFINITIONS.required,
            TableName=TABLE.required,
            KeySchema=KEY_SCHEMA.required,
            LocalSecondaryIndexes=LOCAL_INDEXES,
            GlobalSecondaryIndexes=GLOBAL_INDEXES,
            Tags=TAGS,
            ResourcePolicy=text(),
            GlobalTableSourceArn=TABLE,
            VectorIndexes=VECTOR_INDEXES,
            **_TABLE,
        ),
        steps=(steps.table, table_schemas.new_table, _tags),
        before=steps.required_table,
    ),
    "DeleteTable": _of_table("DeleteTableInput"),
    "DescribeContinuousBackups": _of_table("DescribeContinuousBackupsInput"),
    "DescribeEndpoints": Operation(record("DescribeEndpointsRequest")),
    "DescribeLimits": Operation(record("DescribeLimitsInput")),
    "DescribeTable": _of_table("DescribeTableInput"),
    "DescribeTimeToLive": _of_table("DescribeTimeToLiveInput"),
    "ListTables": Operation(
        record("ListTablesInput", ExclusiveStartTableName=TABLE_NAME, Limit=integer(1, 100))
    ),
    "ListTagsOfResource": Operation(
        record("ListTagsOfResourceInput", ResourceArn=RESOURCE_ARN.required, NextToken=text()),
        steps=(_table_arn,),
        before=_resource("ListTagsOfResource"),
    ),
    "TagResource": Operation(
        record("TagResourceInput", ResourceArn=RESOURCE_ARN.required, Tags=TAGS.required),
        steps=(_table_arn, _some_tags),
        before=_resource("TagResource"),
    ),
    "UntagResource": Operation(
        record(
            "UntagResourceInput",
            ResourceArn=RESOURCE_ARN.required,
            TagKeys=each(text(1, 128)).required,
        ),
        steps=(_table_arn, _some_tag_keys),
        before=_resource("UntagResource"),
    ),
    "UpdateTable": Operation(
        record(
            "UpdateTableInput",
            AttributeDefinitions=ATTRIBUTE_DEFINITIONS,
            TableName=TABLE.required,
            GlobalSecondaryIndexUpdates=_INDEX_UPDATES,
            ReplicaUpdates=_REPLICA_UPDATES,
            MultiRegionConsistency=choice("EVENTUAL", "STRONG"),
            GlobalTableWitnessUpdates=each(
                record(
                    "GlobalTableWitnessGroupUpdate",
                    Create=record(
                        "CreateGlobalTableWitnessGroupMemberAction", RegionName=_REGION.required
                    ),
                    Delete=record(
                        "DeleteGlobalTableWitnessGroupMemberAction", RegionName=_REGION.required
                    ),
                ),
                1,
                1,
            ),
            DisassociationProtectionEnabled=FLAG,
            VectorIndexUpdates=each(
                record(
                    "VectorIndexUpdate",
                    Create=record("CreateVectorIndexAction", **VECTOR_INDEX),
                    Delete=record("DeleteVectorIndexAction", IndexName=INDEX_NAME.required),
                )
            ),
            **_TABLE,
        ),
        steps=(steps.table, table_schemas.table_update),
        before=steps.required_table,
    ),
    "UpdateTimeToLive": Operation(
        record(
            "UpdateTimeToLiveInput",
            TableName=TABLE.required,
            TimeToLiveSpecification=record(
                "TimeToLiveSpecification",
                Enabled=FLAG.required,
                AttributeName=text(1, 255).required,
            ).required,
        ),
        steps=(steps.table,),
        before=steps.required_table,
    ),
}

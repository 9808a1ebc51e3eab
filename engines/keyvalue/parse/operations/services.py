"""What DynamoDB does together with other services: replicas, Kinesis, insights, policies, vectors.

None of these is offered; their requests are checked all the same, so that the answer to a wrong one
is the same as DynamoDB's.
"""

from __future__ import annotations

from engines.keyvalue.parse.operations import steps
from engines.keyvalue.parse.operations.members import (
    AUTO_SCALING,
    BILLING_MODE,
    EXPRESSION_NAMES,
    EXPRESSION_VALUES,
    INDEX_NAME,
    RESOURCE_ARN,
    RETURN_CONSUMED_CAPACITY,
    STREAM_ARN,
    TABLE_CLASS,
    TABLE_NAME,
)
from engines.keyvalue.parse.operations.plan import Operation
from engines.keyvalue.parse.shapes import (
    ATTRIBUTE_VALUE,
    FLAG,
    TABLE,
    choice,
    each,
    integer,
    long,
    record,
    text,
)

_REGION = text()
_REVISION = text(1, 255)
_PRECISION = choice("MILLISECOND", "MICROSECOND")
_KINESIS = {
    "TableName": TABLE.required,
    "StreamArn": STREAM_ARN.required,
    "EnableKinesisStreamingConfiguration": record(
        "EnableKinesisStreamingConfiguration", ApproximateCreationDateTimePrecision=_PRECISION
    ),
}
_GLOBAL_NAME = {"GlobalTableName": TABLE_NAME.required}
_INDEX_SCALING = record(
    "GlobalSecondaryIndexAutoScalingUpdate",
    IndexName=INDEX_NAME,
    ProvisionedWriteCapacityAutoScalingUpdate=AUTO_SCALING,
)
_REPLICA_INDEX_SCALING = record(
    "ReplicaGlobalSecondaryIndexAutoScalingUpdate",
    IndexName=INDEX_NAME,
    ProvisionedReadCapacityAutoScalingUpdate=AUTO_SCALING,
)
_REPLICA_SETTINGS = record(
    "ReplicaSettingsUpdate",
    RegionName=_REGION.required,
    ReplicaProvisionedReadCapacityUnits=long(1),
    ReplicaProvisionedReadCapacityAutoScalingSettingsUpdate=AUTO_SCALING,
    ReplicaGlobalSecondaryIndexSettingsUpdate=each(
        record(
            "ReplicaGlobalSecondaryIndexSettingsUpdate",
            IndexName=INDEX_NAME.required,
            ProvisionedReadCapacityUnits=long(1),
            ProvisionedReadCapacityAutoScalingSettingsUpdate=AUTO_SCALING,
        ),
        1,
        20,
    ),
    ReplicaTableClass=TABLE_CLASS,
)
_INDEX_SETTINGS = record(
    "GlobalTableGlobalSecondaryIndexSettingsUpdate",
    IndexName=INDEX_NAME.required,
    ProvisionedWriteCapacityUnits=long(1),
    ProvisionedWriteCapacityAutoScalingSettingsUpdate=AUTO_SCALING,
)

OPERATIONS = {
    "CreateGlobalTable": Operation(
        record(
            "CreateGlobalTableInput",
            ReplicationGroup=each(record("Replica", RegionName=_REGION)).required,
            **_GLOBAL_NAME,
        )
    ),
    "DeleteResourcePolicy": Operation(
        record(
            "DeleteResourcePolicyInput",
            ResourceArn=RESOURCE_ARN.required,
            ExpectedRevisionId=_REVISION,
        )
    ),
    "DescribeContributorInsights": Operation(
        record("DescribeContributorInsightsInput", TableName=TABLE.required, IndexName=INDEX_NAME),
        steps=(steps.table,),
    ),
    "DescribeGlobalTable": Operation(record("DescribeGlobalTableInput", **_GLOBAL_NAME)),
    "DescribeGlobalTableSettings": Operation(
        record("DescribeGlobalTableSettingsInput", **_GLOBAL_NAME)
    ),
    "DescribeKinesisStreamingDestination": Operation(
        record("DescribeKinesisStreamingDestinationInput", TableName=TABLE.required),
        steps=(steps.table,),
    ),
    "DescribeTableReplicaAutoScaling": Operation(
        record("DescribeTableReplicaAutoScalingInput", TableName=TABLE.required),
        steps=(steps.table,),
    ),
    "DisableKinesisStreamingDestination": Operation(
        record("KinesisStreamingDestinationInput", **_KINESIS), steps=(steps.table,)
    ),
    "EnableKinesisStreamingDestination": Operation(
        record("KinesisStreamingDestinationInput", **_KINESIS), steps=(steps.table,)
    ),
    "GetResourcePolicy": Operation(
        record("GetResourcePolicyInput", ResourceArn=RESOURCE_ARN.required)
    ),
    "ListContributorInsights": Operation(
        record(
            "ListContributorInsightsInput",
            TableName=TABLE,
            NextToken=text(),
            MaxResults=integer(None, 100),
        ),
        steps=(steps.table,),
    ),
    "ListGlobalTables": Operation(
        record(
            "ListGlobalTablesInput",
            ExclusiveStartGlobalTableName=TABLE_NAME,
            Limit=integer(1),
            RegionName=_REGION,
        )
    ),
    "PutResourcePolicy": Operation(
        record(
            "PutResourcePolicyInput",
            ResourceArn=RESOURCE_ARN.required,
            Policy=text().required,
            ExpectedRevisionId=_REVISION,
            ConfirmRemoveSelfResourceAccess=FLAG,
        )
    ),
    "SearchVectors": Operation(
        record(
            "SearchVectorsInput",
            TableName=TABLE.required,
            IndexName=INDEX_NAME.required,
            ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
            ExpressionAttributeNames=EXPRESSION_NAMES,
            ExpressionAttributeValues=EXPRESSION_VALUES,
            ProjectionExpression=text(),
            SearchVector=each(ATTRIBUTE_VALUE, 1, 4096).required,
            SearchConditionExpression=text(),
            TopK=integer(1).required,
        ),
        steps=(steps.table,),
    ),
    "UpdateContributorInsights": Operation(
        record(
            "UpdateContributorInsightsInput",
            TableName=TABLE.required,
            IndexName=INDEX_NAME,
            ContributorInsightsAction=choice("ENABLE", "DISABLE").required,
            ContributorInsightsMode=choice("ACCESSED_AND_THROTTLED_KEYS", "THROTTLED_KEYS"),
        ),
        steps=(steps.table,),
    ),
    "UpdateGlobalTable": Operation(
        record(
            "UpdateGlobalTableInput",
            ReplicaUpdates=each(
                record(
                    "ReplicaUpdate",
                    Create=record("CreateReplicaAction", RegionName=_REGION.required),
                    Delete=record("DeleteReplicaAction", RegionName=_REGION.required),
                )
            ).required,
            **_GLOBAL_NAME,
        )
    ),
    "UpdateGlobalTableSettings": Operation(
        record(
            "UpdateGlobalTableSettingsInput",
            GlobalTableBillingMode=BILLING_MODE,
            GlobalTableProvisionedWriteCapacityUnits=long(1),
            GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate=AUTO_SCALING,
            GlobalTableGlobalSecondaryIndexSettingsUpdate=each(_INDEX_SETTINGS, 1, 20),
            ReplicaSettingsUpdate=each(_REPLICA_SETTINGS, 1, 50),
            **_GLOBAL_NAME,
        )
    ),
    "UpdateKinesisStreamingDestination": Operation(
        record(
            "UpdateKinesisStreamingDestinationInput",
            TableName=TABLE.required,
            StreamArn=STREAM_ARN.required,
            UpdateKinesisStreamingConfiguration=record(
                "UpdateKinesisStreamingConfiguration",
                ApproximateCreationDateTimePrecision=_PRECISION,
            ),
        ),
        steps=(steps.table,),
    ),
    "UpdateTableReplicaAutoScaling": Operation(
        record(
            "UpdateTableReplicaAutoScalingInput",
            GlobalSecondaryIndexUpdates=each(_INDEX_SCALING, 1),
            TableName=TABLE.required,
            ProvisionedWriteCapacityAutoScalingUpdate=AUTO_SCALING,
            ReplicaUpdates=each(
                record(
                    "ReplicaAutoScalingUpdate",
                    RegionName=_REGION.required,
                    ReplicaGlobalSecondaryIndexUpdates=each(_REPLICA_INDEX_SCALING),
                    ReplicaProvisionedReadCapacityAutoScalingUpdate=AUTO_SCALING,
                ),
                1,
            ),
        ),
        steps=(steps.table,),
    ),
}

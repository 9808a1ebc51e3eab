"""Shapes that several families of operations use, under the names of the service model.

The words of an enumeration stand in the order in which DynamoDB lists them when it refuses one.
"""

from __future__ import annotations

from engines.keyvalue.parse.shapes import (
    ATTRIBUTE_VALUE,
    DOUBLE,
    FLAG,
    TABLE_NAME_PATTERN,
    choice,
    each,
    integer,
    long,
    mapping,
    record,
    text,
)

BILLING_MODE = choice("PROVISIONED", "PAY_PER_REQUEST")
COMPARISON_OPERATOR = choice(
    "IN", "NULL", "BETWEEN", "LT", "NOT_CONTAINS", "EQ", "GT", "NOT_NULL", "NE", "LE",
    "BEGINS_WITH", "GE", "CONTAINS",
)  # fmt: skip
CONDITIONAL_OPERATOR = choice("OR", "AND")
RETURN_CONSUMED_CAPACITY = choice("INDEXES", "TOTAL", "NONE")
RETURN_ITEM_COLLECTION_METRICS = choice("SIZE", "NONE")
RETURN_VALUES = choice("ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW")
RETURN_VALUES_ON_CONDITION_CHECK_FAILURE = choice("ALL_OLD", "NONE")
SELECT = choice("SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES")
TABLE_CLASS = choice("STANDARD", "STANDARD_INFREQUENT_ACCESS")

RESOURCE_ARN = text(0, 1283)
STREAM_ARN = text(37, 1024)
BACKUP_ARN = text(37, 1024)
TABLE_NAME = text(3, 255, TABLE_NAME_PATTERN)
INDEX_NAME = text(3, 255, TABLE_NAME_PATTERN)
CLIENT_REQUEST_TOKEN = text(1, 36)
ITEM = mapping(ATTRIBUTE_VALUE)
KEY = mapping(ATTRIBUTE_VALUE)
ATTRIBUTE_NAMES = each(text(0, 65535), 1)
EXPRESSION_NAMES = mapping(text(0, 65535))
EXPRESSION_VALUES = mapping(ATTRIBUTE_VALUE)
ATTRIBUTE_VALUES = each(ATTRIBUTE_VALUE)

CONDITION = record(
    "Condition",
    AttributeValueList=ATTRIBUTE_VALUES,
    ComparisonOperator=COMPARISON_OPERATOR.required,
)
EXPECTED = mapping(
    record(
        "ExpectedAttributeValue",
        Value=ATTRIBUTE_VALUE,
        Exists=FLAG,
        ComparisonOperator=COMPARISON_OPERATOR,
        AttributeValueList=ATTRIBUTE_VALUES,
    )
)

KEY_ATTRIBUTE_NAME = text(1, 255)
ATTRIBUTE_DEFINITIONS = each(
    record(
        "AttributeDefinition",
        AttributeName=KEY_ATTRIBUTE_NAME.required,
        AttributeType=choice("B", "N", "S").required,
    )
)
KEY_SCHEMA = each(
    record(
        "KeySchemaElement",
        AttributeName=KEY_ATTRIBUTE_NAME.required,
        KeyType=choice("HASH", "RANGE").required,
    ),
    1,
    2,
)
PROJECTION = record(
    "Projection",
    ProjectionType=choice("ALL", "INCLUDE", "KEYS_ONLY"),
    NonKeyAttributes=each(text(1, 255), 1, 20),
)
PROVISIONED_THROUGHPUT = record(
    "ProvisionedThroughput",
    WriteCapacityUnits=long(1).required,
    ReadCapacityUnits=long(1).required,
)
ON_DEMAND_THROUGHPUT = record(
    "OnDemandThroughput", MaxReadRequestUnits=long(), MaxWriteRequestUnits=long()
)
WARM_THROUGHPUT = record("WarmThroughput", ReadUnitsPerSecond=long(), WriteUnitsPerSecond=long())
GLOBAL_INDEX = {
    "IndexName": INDEX_NAME.required,
    "KeySchema": KEY_SCHEMA.required,
    "Projection": PROJECTION.required,
    "ProvisionedThroughput": PROVISIONED_THROUGHPUT,
    "OnDemandThroughput": ON_DEMAND_THROUGHPUT,
    "WarmThroughput": WARM_THROUGHPUT,
}
GLOBAL_INDEXES = each(record("GlobalSecondaryIndex", **GLOBAL_INDEX))
LOCAL_INDEXES = each(
    record(
        "LocalSecondaryIndex",
        IndexName=INDEX_NAME.required,
        KeySchema=KEY_SCHEMA.required,
        Projection=PROJECTION.required,
    )
)
VECTOR_INDEX = {
    "IndexName": INDEX_NAME.required,
    "VectorAttribute": record(
        "VectorAttributeDefinition", AttributeName=text(1, 255).required
    ).required,
    "SearchSchema": each(
        record(
            "SearchSchemaElement",
            AttributeName=text(0, 65535).required,
            SearchSchemaElementType=choice("HASH", "INLINE_FILTER").required,
        ),
        1,
    ),
    "Projection": PROJECTION.required,
    "Dimensions": long(1).required,
    "DistanceFunction": choice("COSINE", "DOT_PRODUCT", "EUCLIDEAN").required,
}
VECTOR_INDEXES = each(record("VectorIndex", **VECTOR_INDEX))
SSE = record(
    "SSESpecification",
    Enabled=FLAG,
    SSEType=choice("AES256", "KMS"),
    KMSMasterKeyId=text(),
)
STREAM_SPECIFICATION = record(
    "StreamSpecification",
    StreamEnabled=FLAG.required,
    StreamViewType=choice("NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES", "KEYS_ONLY"),
)
TAGS = each(record("Tag", Key=text(1, 128).required, Value=text(0, 256).required))

AUTO_SCALING = record(
    "AutoScalingSettingsUpdate",
    MinimumUnits=long(1),
    MaximumUnits=long(1),
    AutoScalingDisabled=FLAG,
    AutoScalingRoleArn=text(1, 1600),
    ScalingPolicyUpdate=record(
        "AutoScalingPolicyUpdate",
        PolicyName=text(1, 256),
        TargetTrackingScalingPolicyConfiguration=record(
            "AutoScalingTargetTrackingScalingPolicyConfigurationUpdate",
            DisableScaleIn=FLAG,
            ScaleInCooldown=integer(),
            ScaleOutCooldown=integer(),
            TargetValue=DOUBLE.required,
        ).required,
    ),
)

"""GetItem, PutItem, UpdateItem, DeleteItem."""

from __future__ import annotations

from engines.keyvalue.parse.operations import legacy, steps
from engines.keyvalue.parse.operations.members import (
    ATTRIBUTE_NAMES,
    CONDITIONAL_OPERATOR,
    EXPECTED,
    EXPRESSION_NAMES,
    EXPRESSION_VALUES,
    ITEM,
    KEY,
    RETURN_CONSUMED_CAPACITY,
    RETURN_ITEM_COLLECTION_METRICS,
    RETURN_VALUES,
    RETURN_VALUES_ON_CONDITION_CHECK_FAILURE,
)
from engines.keyvalue.parse.operations.plan import Operation
from engines.keyvalue.parse.operations.steps import Company
from engines.keyvalue.parse.shapes import (
    ATTRIBUTE_VALUE,
    FLAG,
    TABLE,
    choice,
    mapping,
    record,
    text,
)

# What the three that write have besides the item or key.
_WRITE = {
    "Expected": EXPECTED,
    "ConditionalOperator": CONDITIONAL_OPERATOR,
    "ReturnValues": RETURN_VALUES,
    "ReturnConsumedCapacity": RETURN_CONSUMED_CAPACITY,
    "ReturnItemCollectionMetrics": RETURN_ITEM_COLLECTION_METRICS,
    "ConditionExpression": text(),
    "ExpressionAttributeNames": EXPRESSION_NAMES,
    "ExpressionAttributeValues": EXPRESSION_VALUES,
    "ReturnValuesOnConditionCheckFailure": RETURN_VALUES_ON_CONDITION_CHECK_FAILURE,
}
_CONDITIONAL = Company(
    legacy=("Expected", "ConditionalOperator"),
    expressions=("ConditionExpression",),
    valued=("ConditionExpression",),
)
_UPDATE = Company(
    legacy=("AttributeUpdates", "Expected", "ConditionalOperator"),
    expressions=("UpdateExpression", "ConditionExpression"),
    valued=("UpdateExpression", "ConditionExpression"),
)
_PROJECTED = Company(legacy=("AttributesToGet",), expressions=("ProjectionExpression",))

OPERATIONS = {
    "DeleteItem": Operation(
        record("DeleteItemInput", TableName=TABLE.required, Key=KEY.required, **_WRITE),
        steps=(
            steps.table,
            _CONDITIONAL.check,
            steps.old_values_only,
            steps.keys("Key"),
            legacy.expected,
            legacy.conditional_operator("Expected"),
            steps.expressed("ConditionExpression"),
        ),
    ),
    "GetItem": Operation(
        record(
            "GetItemInput",
            TableName=TABLE.required,
            Key=KEY.required,
            AttributesToGet=ATTRIBUTE_NAMES,
            ConsistentRead=FLAG,
            ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
            ProjectionExpression=text(),
            ExpressionAttributeNames=EXPRESSION_NAMES,
        ),
        steps=(
            steps.table,
            _PROJECTED.check,
            steps.keys("Key"),
            steps.attributes_to_get,
            steps.expressed("ProjectionExpression"),
        ),
    ),
    "PutItem": Operation(
        record("PutItemInput", TableName=TABLE.required, Item=ITEM.required, **_WRITE),
        steps=(
            steps.table,
            _CONDITIONAL.check,
            steps.old_values_only,
            steps.put_item,
            legacy.expected,
            legacy.conditional_operator("Expected"),
            steps.expressed("ConditionExpression"),
        ),
    ),
    "UpdateItem": Operation(
        record(
            "UpdateItemInput",
            TableName=TABLE.required,
            Key=KEY.required,
            AttributeUpdates=mapping(
                record(
                    "AttributeValueUpdate",
                    Value=ATTRIBUTE_VALUE,
                    Action=choice("ADD", "PUT", "DELETE"),
                )
            ),
            UpdateExpression=text(),
            **_WRITE,
        ),
        steps=(
            steps.table,
            _UPDATE.check,
            steps.keys("Key"),
            legacy.attribute_updates,
            legacy.expected,
            legacy.conditional_operator("Expected"),
            steps.expressed("UpdateExpression", "ConditionExpression"),
        ),
    ),
}

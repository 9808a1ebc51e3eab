"""Query and Scan."""

from __future__ import annotations

from engines.keyvalue.errors import validation
from engines.keyvalue.parse.operations import legacy, steps
from engines.keyvalue.parse.operations.members import (
    ATTRIBUTE_NAMES,
    CONDITION,
    CONDITIONAL_OPERATOR,
    EXPRESSION_NAMES,
    EXPRESSION_VALUES,
    INDEX_NAME,
    KEY,
    RETURN_CONSUMED_CAPACITY,
    SELECT,
)
from engines.keyvalue.parse.operations.plan import Operation, Parsed, Step
from engines.keyvalue.parse.operations.steps import Company
from engines.keyvalue.parse.shapes import FLAG, TABLE, integer, mapping, record, text

SEGMENTS_MAX = 1_000_000

_CONDITIONS = mapping(CONDITION)
# Of more than ten constraints that fail, the last ones of a table are not told of.
_READ = {
    "TableName": TABLE.required,
    "IndexName": INDEX_NAME,
    "Select": SELECT,
    "Limit": integer(1),
    "ConsistentRead": FLAG,
    "ConditionalOperator": CONDITIONAL_OPERATOR,
    "ExclusiveStartKey": KEY,
    "ReturnConsumedCapacity": RETURN_CONSUMED_CAPACITY,
    "ProjectionExpression": text(),
    "FilterExpression": text(),
    "ExpressionAttributeNames": EXPRESSION_NAMES,
    "ExpressionAttributeValues": EXPRESSION_VALUES,
}
_QUERY = Company(
    legacy=("AttributesToGet", "QueryFilter", "ConditionalOperator", "KeyConditions"),
    expressions=("ProjectionExpression", "FilterExpression", "KeyConditionExpression"),
    valued=("FilterExpression", "KeyConditionExpression"),
    only_beside={"KeyConditions": "KeyConditionExpression"},
)
_SCAN = Company(
    legacy=("AttributesToGet", "ScanFilter", "ConditionalOperator"),
    expressions=("ProjectionExpression", "FilterExpression"),
    valued=("FilterExpression",),
)


def _selected(verb: str) -> Step:
    """Check that Select agrees with the parameters that name attributes."""

    def step(parsed: Parsed) -> None:
        fields = parsed.fields
        select = fields.get("Select")
        if select is None:
            return
        named = next(
            (name for name in ("AttributesToGet", "ProjectionExpression") if name in fields), None
        )
        if select == "SPECIFIC_ATTRIBUTES":
            if named is None:
                raise validation(
                    "Must specify the AttributesToGet or ProjectionExpression when choosing to "
                    "get SPECIFIC_ATTRIBUTES"
                )
        elif named is not None:
            raise validation(
                f"Cannot specify the {named} when choosing to get {_CHOSEN.get(select, select)}"
            )
        if select == "ALL_PROJECTED_ATTRIBUTES" and "IndexName" not in fields:
            raise validation(
                f"ALL_PROJECTED_ATTRIBUTES can be used only when {verb} using an IndexName"
            )

    return step


_CHOSEN = {"COUNT": "only the Count"}


def _segments(parsed: Parsed) -> None:
    """Check that a segment is one of those that there are."""
    segment, total = parsed.fields.get("Segment"), parsed.fields.get("TotalSegments")
    if segment is None and total is None:
        return
    if total is None:
        raise validation(
            "The TotalSegments parameter is required but was not present in the request when "
            "Segment parameter is present"
        )
    if segment is None:
        raise validation(
            "The Segment parameter is required but was not present in the request when parameter "
            "TotalSegments is present"
        )
    if segment >= total:
        raise validation(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {segment} is not less than TotalSegments: {total}"
        )


def _key_conditions_count(parsed: Parsed) -> None:
    """Refuse an expression with more conditions than a key has attributes."""
    condition = parsed.expressions.key_condition
    if condition is not None and len(condition.tests) > legacy.KEY_CONDITIONS_MAX:
        raise legacy.wrong_count()


OPERATIONS = {
    "Query": Operation(
        record(
            "QueryInput",
            **_READ,
            AttributesToGet=ATTRIBUTE_NAMES,
            ScanIndexForward=FLAG,
            KeyConditionExpression=text(),
            QueryFilter=_CONDITIONS,
            KeyConditions=_CONDITIONS,
        ),
        steps=(
            steps.table,
            _QUERY.check,
            legacy.conditions("QueryFilter"),
            legacy.conditional_operator("QueryFilter"),
            steps.attributes_to_get,
            steps.start_key,
            legacy.conditions("KeyConditions"),
            legacy.key_conditions_count,
            _selected("Querying"),
            steps.expressed("KeyConditionExpression", "FilterExpression", "ProjectionExpression"),
            _key_conditions_count,
        ),
    ),
    "Scan": Operation(
        record(
            "ScanInput",
            **_READ,
            ScanFilter=_CONDITIONS,
            TotalSegments=integer(1, SEGMENTS_MAX),
            Segment=integer(0, SEGMENTS_MAX - 1),
            AttributesToGet=ATTRIBUTE_NAMES,
        ),
        steps=(
            steps.table,
            _SCAN.check,
            steps.attributes_to_get,
            legacy.conditions("ScanFilter"),
            legacy.conditional_operator("ScanFilter"),
            steps.start_key,
            _segments,
            _selected("Scanning"),
            steps.expressed("FilterExpression", "ProjectionExpression"),
        ),
    ),
}

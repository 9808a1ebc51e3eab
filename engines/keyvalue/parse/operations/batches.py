"""BatchGetItem and BatchWriteItem."""

from __future__ import annotations

import orjson

from engines.keyvalue.errors import validation
from engines.keyvalue.parse.attribute_values import MANY_TYPES, canonical_item
from engines.keyvalue.parse.operations import steps
from engines.keyvalue.parse.operations.members import (
    ATTRIBUTE_NAMES,
    EXPRESSION_NAMES,
    ITEM,
    KEY,
    RETURN_CONSUMED_CAPACITY,
    RETURN_ITEM_COLLECTION_METRICS,
)
from engines.keyvalue.parse.operations.plan import Operation, Parsed
from engines.keyvalue.parse.operations.steps import Company
from engines.keyvalue.parse.shapes import (
    FLAG,
    TABLE,
    TABLE_KEYS_CONSTRAINT,
    each,
    mapping,
    record,
    text,
)

KEYS_MAX = 100
WRITES_MAX = 25

_PROJECTED = Company(legacy=("AttributesToGet",), expressions=("ProjectionExpression",))


def _tables(parsed: Parsed) -> None:
    """Put names where the tables' ARNs stand; a table is named once."""
    given = parsed.fields["RequestItems"]
    if any(":" in name for name in given):
        found = {steps.named(parsed, name): entries for name, entries in given.items()}
        if len(found) < len(given):
            raise validation("A table is named twice in RequestItems, by its name and by its ARN")
        parsed.fields["RequestItems"] = found


def _reads(parsed: Parsed) -> None:
    """Check what is read of each table."""
    tables = parsed.fields["RequestItems"].values()
    for wanted in tables:
        _PROJECTED.check_fields(wanted)
    if sum(len(wanted["Keys"]) for wanted in tables) > KEYS_MAX:
        raise validation("Too many items requested for the BatchGetItem call")
    for wanted in tables:
        wanted["Keys"] = [canonical_item(key) for key in wanted["Keys"]]
        steps.check_attributes_to_get(wanted)
        parsed.parts.append(steps.read_expressions(wanted, ("ProjectionExpression",)))
        distinct = {orjson.dumps(key, option=orjson.OPT_SORT_KEYS) for key in wanted["Keys"]}
        if len(distinct) < len(wanted["Keys"]):
            raise validation("Provided list of item keys contains duplicates")


def _writes(parsed: Parsed) -> None:
    """Check what is written to each table."""
    tables = parsed.fields["RequestItems"].values()
    if sum(map(len, tables)) > WRITES_MAX:
        raise validation("Too many items requested for the BatchWriteItem call")
    for writes in tables:
        for write in writes:
            # So it says of a request that is neither, or both.
            if len(write) != 1:
                raise validation(MANY_TYPES)
            if "PutRequest" in write:
                put = write["PutRequest"]
                put["Item"] = steps.new_item(put["Item"])
            else:
                delete = write["DeleteRequest"]
                delete["Key"] = canonical_item(delete["Key"])


OPERATIONS = {
    "BatchGetItem": Operation(
        record(
            "BatchGetItemInput",
            ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
            RequestItems=mapping(
                record(
                    "KeysAndAttributes",
                    Keys=each(KEY, 1, KEYS_MAX).required,
                    AttributesToGet=ATTRIBUTE_NAMES,
                    ConsistentRead=FLAG,
                    ProjectionExpression=text(),
                    ExpressionAttributeNames=EXPRESSION_NAMES,
                ),
                1,
                KEYS_MAX,
                keys=TABLE,
                keys_constraint=TABLE_KEYS_CONSTRAINT,
            ).required,
        ),
        steps=(_tables, _reads),
    ),
    "BatchWriteItem": Operation(
        record(
            "BatchWriteItemInput",
            ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
            ReturnItemCollectionMetrics=RETURN_ITEM_COLLECTION_METRICS,
            RequestItems=mapping(
                each(
                    record(
                        "WriteRequest",
                        PutRequest=record("PutRequest", Item=ITEM.required),
                        DeleteRequest=record("DeleteRequest", Key=KEY.required),
                    )
                ),
                1,
                WRITES_MAX,
                keys=TABLE,
                keys_constraint=TABLE_KEYS_CONSTRAINT,
                values_size_max=WRITES_MAX,
            ).required,
        ),
        steps=(_tables, _writes),
    ),
}

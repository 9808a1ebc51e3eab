"""TransactGetItems, TransactWriteItems, and the three operations of PartiQL."""

from __future__ import annotations

from collections.abc import Mapping

from engines.keyvalue.errors import validation
from engines.keyvalue.parse.attribute_values import canonical_item
from engines.keyvalue.parse.operations import steps
from engines.keyvalue.parse.operations.members import (
    CLIENT_REQUEST_TOKEN,
    EXPRESSION_NAMES,
    EXPRESSION_VALUES,
    ITEM,
    KEY,
    RETURN_CONSUMED_CAPACITY,
    RETURN_ITEM_COLLECTION_METRICS,
    RETURN_VALUES_ON_CONDITION_CHECK_FAILURE,
)
from engines.keyvalue.parse.operations.plan import Fields, Operation, Parsed
from engines.keyvalue.parse.operations.steps import Company
from engines.keyvalue.parse.shapes import ATTRIBUTE_VALUE, FLAG, TABLE, each, integer, record, text

ENTRIES_MAX = 100
STATEMENTS_MAX = 25

_CONDITIONAL = Company((), ("ConditionExpression",), ("ConditionExpression",))
_UPDATE = Company(
    (), ("UpdateExpression", "ConditionExpression"), ("UpdateExpression", "ConditionExpression")
)
_PROJECTED = Company((), ("ProjectionExpression",))
_COMPANY: Mapping[str, Company] = {
    "ConditionCheck": _CONDITIONAL,
    "Delete": _CONDITIONAL,
    "Put": _CONDITIONAL,
    "Update": _UPDATE,
}
# What each entry that writes may have besides the item or key.
_ENTRY = {
    "TableName": TABLE.required,
    "ExpressionAttributeNames": EXPRESSION_NAMES,
    "ExpressionAttributeValues": EXPRESSION_VALUES,
    "ReturnValuesOnConditionCheckFailure": RETURN_VALUES_ON_CONDITION_CHECK_FAILURE,
}


def _gets(parsed: Parsed) -> None:
    for entry in parsed.fields["TransactItems"]:
        get = entry["Get"]
        steps.name_table(parsed, get)
        _PROJECTED.check_fields(get)
        get["Key"] = canonical_item(get["Key"])
        parsed.parts.append(steps.read_expressions(get, _PROJECTED.expressions))


def _writes(parsed: Parsed) -> None:
    for entry in parsed.fields["TransactItems"]:
        if len(entry) != 1:
            raise validation("TransactItems can only contain one of Check, Put, Update or Delete")
        for kind, write in entry.items():
            _check_write(parsed, _COMPANY[kind], write)


def _check_write(parsed: Parsed, company: Company, write: Fields) -> None:
    steps.name_table(parsed, write)
    company.check_fields(write)
    if "Item" in write:
        write["Item"] = steps.new_item(write["Item"])
    else:
        write["Key"] = canonical_item(write["Key"])
    parsed.parts.append(steps.read_expressions(write, company.expressions))


def _parameters(parsed: Parsed) -> None:
    steps.parameters(parsed.fields)


def _statements(parsed: Parsed) -> None:
    for member in ("Statements", "TransactStatements"):
        for statement in parsed.fields.get(member, ()):
            steps.parameters(statement)


_STATEMENT = text(1, 8192)
_PARAMETERS = each(ATTRIBUTE_VALUE, 1)

OPERATIONS = {
    "BatchExecuteStatement": Operation(
        record(
            "BatchExecuteStatementInput",
            Statements=each(
                record(
                    "BatchStatementRequest",
                    Statement=_STATEMENT.required,
                    Parameters=_PARAMETERS,
                    ConsistentRead=FLAG,
                    ReturnValuesOnConditionCheckFailure=RETURN_VALUES_ON_CONDITION_CHECK_FAILURE,
                ),
                1,
                STATEMENTS_MAX,
            ).required,
            ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
        ),
        steps=(_statements,),
    ),
    "ExecuteStatement": Operation(
        record(
            "ExecuteStatementInput",
            Statement=_STATEMENT.required,
            Parameters=_PARAMETERS,
            ConsistentRead=FLAG,
            NextToken=text(1, 32768),
            ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
            Limit=integer(1),
            ReturnValuesOnConditionCheckFailure=RETURN_VALUES_ON_CONDITION_CHECK_FAILURE,
        ),
        steps=(_parameters,),
    ),
    "ExecuteTransaction": Operation(
        record(
            "ExecuteTransactionInput",
            TransactStatements=each(
                record(
                    "ParameterizedStatement",
                    Statement=_STATEMENT.required,
                    Parameters=_PARAMETERS,
                    ReturnValuesOnConditionCheckFailure=RETURN_VALUES_ON_CONDITION_CHECK_FAILURE,
                ),
                1,
                ENTRIES_MAX,
            ).required,
            ClientRequestToken=CLIENT_REQUEST_TOKEN,
            ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
        ),
        steps=(_statements,),
    ),
    "TransactGetItems": Operation(
        record(
            "TransactGetItemsInput",
            TransactItems=each(
                record(
                    "TransactGetItem",
                    Get=record(
                        "Get",
                        Key=KEY.required,
                        TableName=TABLE.required,
                        ProjectionExpression=text(),
                        ExpressionAttributeNames=EXPRESSION_NAMES,
                    ).required,
                ),
                1,
                ENTRIES_MAX,
            ).required,
            ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
        ),
        steps=(_gets,),
    ),
    "TransactWriteItems": Operation(
        record(
            "TransactWriteItemsInput",
            TransactItems=each(
                record(
                    "TransactWriteItem",
                    ConditionCheck=record(
                        "ConditionCheck",
                        Key=KEY.required,
                        ConditionExpression=text().required,
                        **_ENTRY,
                    ),
                    Put=record("Put", Item=ITEM.required, ConditionExpression=text(), **_ENTRY),
                    Delete=record("Delete", Key=KEY.required, ConditionExpression=text(), **_ENTRY),
                    Update=record(
                        "Update",
                        Key=KEY.required,
                        UpdateExpression=text().required,
                        ConditionExpression=text(),
                        **_ENTRY,
                    ),
                ),
                1,
                ENTRIES_MAX,
            ).required,
            ReturnConsumedCapacity=RETURN_CONSUMED_CAPACITY,
            ReturnItemCollectionMetrics=RETURN_ITEM_COLLECTION_METRICS,
            ClientRequestToken=CLIENT_REQUEST_TOKEN,
        ),
        steps=(_writes,),
    ),
}

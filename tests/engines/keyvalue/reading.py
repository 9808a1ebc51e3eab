"""Expressions read as tests do it, and the beginnings of DynamoDB's messages."""

from __future__ import annotations

from typing import Any

import pytest

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.expressions import Expressions, read

ALL = (
    "UpdateExpression",
    "ConditionExpression",
    "KeyConditionExpression",
    "FilterExpression",
    "ProjectionExpression",
)
Values = dict[str, Any]


def reading(
    kind: str, text: str, values: Values | None = None, names: dict[str, str] | None = None
) -> Expressions:
    fields: dict[str, Any] = {f"{kind}Expression": text}
    if values:
        fields["ExpressionAttributeValues"] = values
    if names:
        fields["ExpressionAttributeNames"] = names
    return read(fields, ALL)


def refusal(
    kind: str, text: str, values: Values | None = None, names: dict[str, str] | None = None
) -> str:
    """Return the message of the refusal, without "Invalid ...Expression: "."""
    with pytest.raises(DynamoError) as caught:
        reading(kind, text, values, names)
    assert caught.value.code == "ValidationException"
    return caught.value.message.removeprefix(f"Invalid {kind}Expression: ")


SAME = (
    "The first operand must be distinct from the remaining operands for this operator or function; "
)
PATH = "Operator or function requires a document path; operator or function: "
TYPE = "Incorrect operand type for operator or function; operator or function: "
COUNT = "Incorrect number of operands for operator or function; operator or function: "
MISUSED = "The function is not allowed to be used this way in an expression; function: "
RESERVED = "Attribute name is a reserved keyword; reserved keyword: "
NO_NAME = "An expression attribute name used in the document path is not defined; attribute name: "
NO_VALUE = "An expression attribute value used in expression is not defined; attribute value: "
REDUNDANT = "The expression has redundant parentheses;"
TOO_MANY = "The expression contains too many operators; operator count: 301"

OTHER_TYPES: list[Values] = [
    {"BOOL": True},
    {"NULL": True},
    {"L": []},
    {"M": {}},
    {"SS": ["1"]},
    {"NS": ["1"]},
    {"BS": ["YQ=="]},
]
N: Values = {"N": "1"}
B: Values = {"B": "YQ=="}
S: Values = {"S": "1"}

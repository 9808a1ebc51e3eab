"""What a request is refused for when several things are wrong, and what it becomes when none is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines.keyvalue import capacity
from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.attribute_values import MANY_TYPES, NO_TYPE
from engines.keyvalue.parse.requests import Parsed, read

INVALID = "One or more parameter values were invalid: "
MIXED = (
    "Can not use both expression and non-expression parameters in the same request: "
    "Non-expression parameters: {%s} Expression parameters: {%s}"
)
NAMES_ALONE = "ExpressionAttributeNames can only be specified when using expressions"
VALUES_ALONE = "ExpressionAttributeValues can only be specified when using expressions: "
ARGUMENTS = INVALID + "Invalid number of argument(s) for the %s ComparisonOperator"
BAD = {"a": {}}
FILTER = {"a": {"ComparisonOperator": "EQ", "AttributeValueList": [{}]}}


def parsed(operation: str, body: dict[str, Any]) -> Parsed:
    """Read a body."""
    return read(operation, json.dumps(body).encode())


def refusal(operation: str, body: dict[str, Any]) -> str:
    """Return the words with which a body is refused."""
    with pytest.raises(DynamoError) as caught:
        parsed(operation, body)
    assert caught.value.code == "ValidationException"
    return caught.value.message


# Of each operation: what is wrong, the worst last, and what is said then.
STAIRS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "GetItem": [
        ({"TableName": "abc", "Key": {}, "AttributesToGet": ["b", "a", "b"]},
         INVALID + "Duplicate value in attribute name: b"),
        ({"Key": BAD}, NO_TYPE),
        ({"ExpressionAttributeNames": {}}, NAMES_ALONE),
        ({"ProjectionExpression": ""}, MIXED % ("AttributesToGet", "ProjectionExpression")),
        ({"TableName": "ab"}, "1 validation error detected: Value 'ab' at 'tableName' failed to "
         "satisfy constraint: Member must have length greater than or equal to 3"),
    ],
    "PutItem": [
        ({"TableName": "abc", "Item": {}, "Expected": BAD},
         INVALID + "Value must be provided when Exists is null for Attribute: a"),
        ({"Item": {"a": {"S": "x" * capacity.ITEM_BYTES_MAX}}},
         "Item size has exceeded the maximum allowed size"),
        ({"Item": BAD}, NO_TYPE),
        ({"ReturnValues": "UPDATED_OLD"}, "ReturnValues can only be ALL_OLD or NONE"),
        ({"ExpressionAttributeValues": {}}, VALUES_ALONE + "ConditionExpression is null"),
        ({"ExpressionAttributeNames": {}}, NAMES_ALONE),
        ({"ConditionExpression": ""}, MIXED % ("Expected", "ConditionExpression")),
    ],
    "UpdateItem": [
        ({"TableName": "abc", "Key": {}, "Expected": {"a": {"Exists": True}}},
         INVALID + "Value must be provided when Exists is true for Attribute: a"),
        ({"AttributeUpdates": {"a": {"Action": "ADD"}}},
         INVALID + "Only DELETE action is allowed when no attribute value is specified"),
        ({"Key": BAD}, NO_TYPE),
        ({"ExpressionAttributeValues": {}},
         VALUES_ALONE + "UpdateExpression and ConditionExpression are null"),
        ({"ExpressionAttributeNames": {}}, NAMES_ALONE),
        ({"ConditionExpression": "", "UpdateExpression": ""},
         MIXED % ("AttributeUpdates, Expected", "UpdateExpression, ConditionExpression")),
    ],
    "Query": [
        ({"TableName": "abc"}, "Either the KeyConditions or KeyConditionExpression parameter must "
         "be specified in the request."),
        ({"KeyConditions": {}}, "Conditions can be of length 1 or 2 only"),
        ({"KeyConditions": {name: {"ComparisonOperator": "NULL"} for name in "abc"}},
         "Conditions can be of length 1 or 2 only"),
        ({"KeyConditions": {"a": {"ComparisonOperator": "EQ"}}}, ARGUMENTS % "EQ"),
        ({"ExclusiveStartKey": BAD}, f"The provided starting key is invalid: {NO_TYPE}"),
        ({"AttributesToGet": ["a", "a"]}, INVALID + "Duplicate value in attribute name: a"),
        ({"QueryFilter": FILTER}, NO_TYPE),
        ({"ExpressionAttributeValues": {}},
         VALUES_ALONE + "FilterExpression and KeyConditionExpression are null"),
        ({"ExpressionAttributeNames": {}}, NAMES_ALONE),
        # KeyConditions stand in the way of nothing but the expression that replaces them.
        ({"FilterExpression": ""}, MIXED % ("AttributesToGet, QueryFilter", "FilterExpression")),
        ({"KeyConditionExpression": "", "ConditionalOperator": "OR"},
         MIXED % ("AttributesToGet, QueryFilter, ConditionalOperator, KeyConditions",
                  "FilterExpression, KeyConditionExpression")),
    ],
    "Scan": [
        ({"TableName": "abc", "TotalSegments": 4}, "The Segment parameter is required but was not "
         "present in the request when parameter TotalSegments is present"),
        ({"Segment": 4}, "The Segment parameter is zero-based and must be less than parameter "
         "TotalSegments: Segment: 4 is not less than TotalSegments: 4"),
        ({"ExclusiveStartKey": {"a": {"NULL": False}}}, "The provided starting key is invalid: "
         f"{INVALID}Null attribute value types must have the value of true"),
        ({"ScanFilter": FILTER}, NO_TYPE),
        ({"AttributesToGet": ["a", "a"]}, INVALID + "Duplicate value in attribute name: a"),
        ({"ExpressionAttributeValues": {}}, VALUES_ALONE + "FilterExpression is null"),
    ],
    "BatchGetItem": [
        ({"RequestItems": {"abc": {"Keys": [{}, {}]}}},
         "Provided list of item keys contains duplicates"),
        ({"RequestItems": {"abc": {"Keys": [{}, {}], "AttributesToGet": ["a", "a"]}}},
         INVALID + "Duplicate value in attribute name: a"),
        ({"RequestItems": {"abc": {"Keys": [BAD], "AttributesToGet": ["a", "a"]}}}, NO_TYPE),
        ({"RequestItems": {"abc": {"Keys": [BAD] * 60}, "abd": {"Keys": [BAD] * 41}}},
         "Too many items requested for the BatchGetItem call"),
    ],
    "BatchWriteItem": [
        ({"RequestItems": {"abc": [{"PutRequest": {"Item": BAD}}]}}, NO_TYPE),
        ({"RequestItems": {"abc": [{}]}}, MANY_TYPES),
        ({"RequestItems": {"abc": [{"DeleteRequest": {"Key": {}}}] * 20,
                           "abd": [{"DeleteRequest": {"Key": {}}}] * 6}},
         "Too many items requested for the BatchWriteItem call"),
    ],
    "TransactWriteItems": [
        ({"TransactItems": [{"Put": {"TableName": "abc", "Item": BAD}}]}, NO_TYPE),
        ({"TransactItems": [{}]},
         "TransactItems can only contain one of Check, Put, Update or Delete"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("operation", STAIRS)
def test_the_worst_is_told_of(operation: str) -> None:
    body: dict[str, Any] = {}
    for more, message in STAIRS[operation]:
        body.update(more)
        assert refusal(operation, body) == message


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"Value": {"S": "a"}, "AttributeValueList": []},
         "Value and AttributeValueList cannot be used together for Attribute: x"),
        ({"Exists": False, "Value": {"S": "a"}},
         "Value cannot be used when Exists is false for Attribute: x"),
        ({"Exists": True, "ComparisonOperator": "LT"},
         "Exists and ComparisonOperator cannot be used together for Attribute: x"),
        ({"ComparisonOperator": "LT"},
         "Value or AttributeValueList must be used with ComparisonOperator: LT for Attribute: x"),
        ({"AttributeValueList": []},
         "AttributeValueList can only be used with a ComparisonOperator for Attribute: x"),
        ({"ComparisonOperator": "NULL", "Value": {"S": "a"}},
         "Invalid number of argument(s) for the NULL ComparisonOperator"),
        ({"ComparisonOperator": "IN", "AttributeValueList": [{"S": "a"}, {"N": "1"}]},
         "AttributeValues inside AttributeValueList must be of same type"),
    ],
)  # fmt: skip
def test_what_a_write_expects_must_make_sense(wish: dict[str, Any], message: str) -> None:
    body = {"TableName": "abc", "Key": {}, "Expected": {"x": wish}}
    assert refusal("DeleteItem", body) == INVALID + message


COUNTS = {
    "EQ": (0, 2), "NE": (0, 2), "LE": (0, 2), "LT": (0, 2), "GE": (0, 2), "GT": (0, 2),
    "CONTAINS": (0, 2), "NOT_CONTAINS": (0, 2), "BEGINS_WITH": (0, 2), "NULL": (1, 2),
    "NOT_NULL": (1, 2), "BETWEEN": (0, 1, 3), "IN": (0,),
}  # fmt: skip


@pytest.mark.parametrize("operator", COUNTS)
def test_an_operator_has_its_number_of_arguments(operator: str) -> None:
    for count in COUNTS[operator]:
        condition = {"ComparisonOperator": operator, "AttributeValueList": [{"S": "a"}] * count}
        body = {"TableName": "abc", "ScanFilter": {"a": condition}}
        assert refusal("Scan", body) == ARGUMENTS % operator


OTHERS = {
    "SS": ["a"], "NS": ["1"], "BS": ["AAAA"], "M": {}, "L": [], "BOOL": True, "NULL": True,
}  # fmt: skip
REFUSED = {
    **dict.fromkeys(("LT", "LE", "GT", "GE", "IN", "BETWEEN"), frozenset(OTHERS)),
    **dict.fromkeys(("CONTAINS", "NOT_CONTAINS"), frozenset(("SS", "NS", "BS", "M", "L"))),
    "BEGINS_WITH": frozenset((*OTHERS, "N")),
    **dict.fromkeys(("EQ", "NE"), frozenset[str]()),
}


@pytest.mark.parametrize("operator", REFUSED)
@pytest.mark.parametrize("kind", [*OTHERS, "S", "N", "B"])
def test_an_operator_has_its_types(operator: str, kind: str) -> None:
    value = {kind: {**OTHERS, "S": "a", "N": "1", "B": "AAAA"}[kind]}
    values = [value] * (2 if operator == "BETWEEN" else 1)
    condition = {"ComparisonOperator": operator, "AttributeValueList": values}
    body = {"TableName": "abc", "ScanFilter": {"a": condition}}
    if kind in REFUSED[operator]:
        assert refusal("Scan", body) == (
            f"{INVALID}ComparisonOperator {operator} is not valid for {kind} AttributeValue type"
        )
    else:
        assert parsed("Scan", body).fields["ScanFilter"]["a"]["AttributeValueList"] == values


@pytest.mark.parametrize(
    ("lower", "upper"),
    [({"S": "b"}, {"S": "a"}), ({"N": "10"}, {"N": "9"}), ({"B": "AQ=="}, {"B": "AA=="}),
     ({"S": "\U0001f600"}, {"S": "\uffff"})],
)  # fmt: skip
def test_the_bounds_of_between_are_ordered(lower: dict[str, str], upper: dict[str, str]) -> None:
    def filtered(values: list[dict[str, str]]) -> dict[str, Any]:
        condition = {"ComparisonOperator": "BETWEEN", "AttributeValueList": values}
        return {"TableName": "abc", "ScanFilter": {"a": condition}}

    assert refusal("Scan", filtered([lower, upper])) == (
        "The BETWEEN condition was provided a range where the lower bound is greater than the "
        "upper bound"
    )
    parsed("Scan", filtered([upper, lower]))
    parsed("Scan", filtered([upper, upper]))


@pytest.mark.parametrize(
    ("kind", "content", "actions"),
    [
        ("S", "a", {"PUT"}), ("B", "AAAA", {"PUT"}), ("BOOL", True, {"PUT"}),
        ("NULL", True, {"PUT"}), ("M", {}, {"PUT"}), ("L", [], {"PUT", "ADD"}),
        ("N", "1", {"PUT", "ADD"}), ("SS", ["a"], {"PUT", "ADD", "DELETE"}),
        ("NS", ["1"], {"PUT", "ADD", "DELETE"}), ("BS", ["AAAA"], {"PUT", "ADD", "DELETE"}),
    ],
)  # fmt: skip
def test_an_update_action_has_its_types(kind: str, content: object, actions: set[str]) -> None:
    for action, words in (
        ("PUT", ""),
        ("ADD", "ADD action is not supported for the type"),
        ("DELETE", "DELETE action with value is not supported for the type"),
    ):
        update = {"x": {"Action": action, "Value": {kind: content}}}
        body = {"TableName": "abc", "Key": {}, "AttributeUpdates": update}
        if action in actions:
            parsed("UpdateItem", body)
        else:
            assert refusal("UpdateItem", body) == f"{INVALID}{words} {kind}"


def test_a_key_has_one_or_two_conditions() -> None:
    values = {"ExpressionAttributeValues": {":v": {"S": "x"}}}
    for text in ("a = :v and :v = b and c > :v", "(a = :v and b = :v) and (c = :v and d = :v)"):
        body = {"TableName": "abc", "KeyConditionExpression": text, **values}
        assert refusal("Query", body) == "Conditions can be of length 1 or 2 only"
    body = {"TableName": "abc", "KeyConditionExpression": "a = :v and b > :v", **values}
    condition = parsed("Query", body).expressions.key_condition
    assert condition is not None
    assert [test.name for test in condition.tests] == ["a", "b"]


def test_a_starting_key_is_called_invalid_only_for_the_form_of_its_values() -> None:
    def started(value: dict[str, Any]) -> str:
        return refusal("Scan", {"TableName": "abc", "ExclusiveStartKey": {"a": value}})

    prefix = "The provided starting key is invalid: "
    assert started({"S": "a", "N": "1"}) == prefix + MANY_TYPES
    assert started({"SS": []}) == f"{prefix}{INVALID}An string set  may not be empty"
    assert started({"BS": []}) == f"{prefix}{INVALID}Binary sets should not be empty"
    assert started({"NS": []}) == f"{INVALID}An number set  may not be empty"
    assert started({"SS": ["a", "a"]}) == f"{INVALID}Input collection [a, a] contains duplicates."
    assert started({"N": "x"}) == "The parameter cannot be converted to a numeric value: x"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"Select": "SPECIFIC_ATTRIBUTES"}, "Must specify the AttributesToGet or "
         "ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES"),
        ({"Select": "ALL_ATTRIBUTES", "AttributesToGet": ["a"]},
         "Cannot specify the AttributesToGet when choosing to get ALL_ATTRIBUTES"),
        ({"Select": "COUNT", "ProjectionExpression": "a"},
         "Cannot specify the ProjectionExpression when choosing to get only the Count"),
        ({"Select": "ALL_PROJECTED_ATTRIBUTES"},
         "ALL_PROJECTED_ATTRIBUTES can be used only when Scanning using an IndexName"),
        ({"ConditionalOperator": "OR"},
         "ConditionalOperator cannot be used without Filter or Expected"),
        ({"Segment": 0}, "The TotalSegments parameter is required but was not present in the "
         "request when Segment parameter is present"),
    ],
)  # fmt: skip
def test_parameters_that_need_or_exclude_others(more: dict[str, Any], message: str) -> None:
    assert refusal("Scan", {"TableName": "abc", **more}) == message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ExpressionAttributeNames": {}}, "ExpressionAttributeNames must not be empty"),
        ({"ExpressionAttributeNames": {"#a": "b", "a": "b"}},
         'ExpressionAttributeNames contains invalid key: Syntax error; key: "a"'),
        ({"ExpressionAttributeNames": {"#a-b": "b"}},
         'ExpressionAttributeNames contains invalid key: Syntax error; key: "#a-b"'),
        ({"ExpressionAttributeValues": {}}, "ExpressionAttributeValues must not be empty"),
        ({"ExpressionAttributeValues": {":b": {}, "b": {"S": "a"}}},
         'ExpressionAttributeValues contains invalid key: Syntax error; key: "b"'),
        ({"ExpressionAttributeValues": {":a": {"S": ""}, ":b": {"N": "x"}}},
         "ExpressionAttributeValues contains invalid value: The parameter cannot be converted to a "
         "numeric value: x for key :b"),
    ],
)  # fmt: skip
def test_placeholders_are_looked_at_before_expressions(more: dict[str, Any], message: str) -> None:
    assert refusal("Scan", {"TableName": "abc", "FilterExpression": "", **more}) == message


def test_values_are_canonical_wherever_they_stand() -> None:
    given, kept = {"L": [{"N": "1.50"}]}, {"L": [{"N": "1.5"}]}
    put = {"TableName": "abc", "Item": {"a": given}}
    assert parsed("PutItem", put).fields["Item"] == {"a": kept}
    batch = {"RequestItems": {"abc": [{"PutRequest": {"Item": {"a": given}}}]}}
    assert parsed("BatchWriteItem", batch).fields == {
        "RequestItems": {"abc": [{"PutRequest": {"Item": {"a": kept}}}]}
    }
    transaction = {"TransactItems": [{"Delete": {"TableName": "abc", "Key": {"a": given}}}]}
    assert parsed("TransactWriteItems", transaction).fields == {
        "TransactItems": [{"Delete": {"TableName": "abc", "Key": {"a": kept}}}]
    }
    statement = {"Statement": "SELECT", "Parameters": [given]}
    assert parsed("ExecuteStatement", statement).fields["Parameters"] == [kept]
    statements = {"Statements": [{"Statement": "SELECT", "Parameters": [given]}]}
    assert parsed("BatchExecuteStatement", statements).fields["Statements"][0]["Parameters"] == [
        kept
    ]


ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/my.table"


def test_a_tables_arn_stands_for_its_name() -> None:
    get = {"TableName": ARN, "Key": {"a": {"S": "x"}}}
    found = parsed("GetItem", get)
    assert (found.fields["TableName"], found.table_arns) == ("my.table", [ARN])
    assert parsed("DescribeTable", {"TableName": ARN}).fields == {"TableName": "my.table"}
    batch = parsed("BatchGetItem", {"RequestItems": {ARN: {"Keys": [{}]}}})
    assert list(batch.fields["RequestItems"]) == ["my.table"]
    transaction = parsed("TransactGetItems", {"TransactItems": [{"Get": get}, {"Get": get}]})
    assert transaction.fields["TransactItems"][0]["Get"]["TableName"] == "my.table"
    assert transaction.table_arns == [ARN, ARN]
    assert len(transaction.parts) == 2


def test_a_table_is_not_named_twice_in_a_batch() -> None:
    keys = {"Keys": [{"a": {"S": "x"}}]}
    assert "named twice" in refusal("BatchGetItem", {"RequestItems": {ARN: keys, "my.table": keys}})


def test_an_arn_of_something_else_is_no_table() -> None:
    assert "Member must satisfy regular expression pattern" in refusal(
        "Scan", {"TableName": ARN + "/index/a"}
    )


def test_older_parameters_of_a_batchs_entry_are_its_expressions() -> None:
    body = {"RequestItems": {"abc": {"Keys": [{}], "AttributesToGet": ["a", "b.c"]}}}
    (part,) = parsed("BatchGetItem", body).parts
    assert part.projection is not None
    assert part.projection.heads == {"a", "b.c"}


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("PutItem", lambda name: {"Item": {name: {"S": "x"}}}),
        ("UpdateItem", lambda name: {"Key": {}, "AttributeUpdates": {name: {"Action": "DELETE"}}}),
        ("GetItem", lambda name: {"Key": {}, "AttributesToGet": [name]}),
        ("Scan", lambda name: {"FilterExpression": "#n = #n",
                               "ExpressionAttributeNames": {"#n": name}}),
    ],
)  # fmt: skip
def test_an_attributes_name_has_1_to_65535_bytes(operation: str, more: Any) -> None:
    assert "Empty attribute name" in refusal(operation, {"TableName": "abc", **more("")})
    too_long = refusal(operation, {"TableName": "abc", **more("n" * 65536)})
    assert "6553" in too_long


def test_a_stream_is_read_at_a_number_or_not() -> None:
    where = {"StreamArn": "a" * 40, "ShardId": "s" * 30}
    for kind in ("TRIM_HORIZON", "LATEST"):
        body = {**where, "ShardIteratorType": kind, "SequenceNumber": "1" * 21}
        assert refusal("GetShardIterator", body).endswith(
            f"SequenceNumber cannot be specified for ShardIteratorType {kind}"
        )
    body = {**where, "ShardIteratorType": "AT_SEQUENCE_NUMBER"}
    assert "SequenceNumber must be specified" in refusal("GetShardIterator", body)
    for half in ({"Type": "CHILD_SHARDS"}, {"ShardId": "s" * 30}):
        body = {"StreamArn": "a" * 40, "ShardFilter": half}
        assert "must both be specified" in refusal("DescribeStream", body)


@pytest.mark.parametrize(
    ("member", "mark", "value"),
    [("ExpressionAttributeNames", "#", "a"), ("ExpressionAttributeValues", ":", {"S": "x"})],
)
def test_placeholders_have_at_most_255_bytes(member: str, mark: str, value: Any) -> None:
    body = {"TableName": "table", "Key": {"k": {"S": "x"}}, "ConditionExpression": "a = b"}
    fits, long = mark + "p" * 254, mark + "p" * 255
    message = refusal("DeleteItem", {**body, member: {fits: value}})
    assert message == f"Value provided in {member} unused in expressions: keys: {{{fits}}}"
    assert refusal("DeleteItem", {**body, member: {long: value}}) == (
        f"{member} contains invalid key: "
        "The expression attribute map contains a key that is too long; size of key: 256"
    )


@pytest.mark.parametrize(
    ("tag", "words"),
    [({"Key": "a!", "Value": ""}, "Tag Key contains invalid"),
     ({"Key": "a", "Value": "100%"}, "Tag Value contains invalid"),
     ({"Key": "AWS:x", "Value": ""}, "aws: prefixed tag key names are not allowed")],
)  # fmt: skip
def test_a_tag_has_its_characters(tag: dict[str, str], words: str) -> None:
    good = {"Key": "Team:\u00e9 1/2 a+b-c=d._@", "Value": "\u05d0"}
    assert parsed("TagResource", {"ResourceArn": ARN, "Tags": [good]}).fields["Tags"] == [good]
    assert words in refusal("TagResource", {"ResourceArn": ARN, "Tags": [good, tag]})

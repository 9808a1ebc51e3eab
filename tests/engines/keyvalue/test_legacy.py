"""Parameters that came before expressions: what they mean, and where that differs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.evaluate.conditions import matches
from engines.keyvalue.evaluate.projections import project
from engines.keyvalue.evaluate.updates import apply
from engines.keyvalue.parse import requests
from engines.keyvalue.parse.expressions.trees import Condition, Expressions, KeyTest, Update
from engines.keyvalue.values import Item

S = {"S": "abc"}
ITEM: Item = {
    "s": S,
    "n": {"N": "10"},
    "b": {"B": "AQID"},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2"]},
    "l": {"L": [{"S": "a"}, {"N": "1"}]},
    "yes": {"BOOL": True},
    "a.b": {"S": "dotted"},
}


def expressions(operation: str, **fields: Any) -> Expressions:
    body = {"TableName": "table", **fields}
    return requests.read(operation, orjson.dumps(body)).expressions


def expected(wishes: dict[str, Any], operator: str | None = None) -> Condition:
    fields = {"ConditionalOperator": operator} if operator else {}
    found = expressions("DeleteItem", Key={"k": S}, Expected=wishes, **fields).condition
    assert found is not None
    return found


def wish(operator: str, *values: dict[str, Any]) -> dict[str, Any]:
    return {"ComparisonOperator": operator, "AttributeValueList": list(values)}


@pytest.mark.parametrize(
    ("name", "operator", "values", "holds"),
    [
        ("s", "EQ", [S], True),
        ("s", "EQ", [{"S": "x"}], False),
        ("s", "EQ", [{"N": "1"}], False),
        ("ss", "EQ", [{"SS": ["b", "a"]}], True),
        ("absent", "EQ", [S], False),
        ("s", "NE", [S], False),
        ("s", "NE", [{"N": "1"}], True),
        ("absent", "NE", [S], True),
        ("n", "LT", [{"N": "9"}], False),
        ("n", "GT", [{"N": "9"}], True),
        ("n", "GE", [{"N": "10.0"}], True),
        ("n", "LE", [{"N": "1E1"}], True),
        ("n", "GT", [{"S": "1"}], False),
        ("absent", "LT", [{"N": "9"}], False),
        ("s", "NOT_NULL", [], True),
        ("absent", "NOT_NULL", [], False),
        ("s", "NULL", [], False),
        ("absent", "NULL", [], True),
        ("s", "CONTAINS", [{"S": "bc"}], True),
        ("s", "CONTAINS", [{"S": "cb"}], False),
        ("ss", "CONTAINS", [{"S": "a"}], True),
        ("ns", "CONTAINS", [{"N": "2"}], True),
        ("ns", "CONTAINS", [{"S": "2"}], False),
        ("l", "CONTAINS", [{"N": "1"}], True),
        ("b", "CONTAINS", [{"B": "Ag=="}], True),
        ("n", "CONTAINS", [{"N": "1"}], False),
        ("s", "NOT_CONTAINS", [{"S": "x"}], True),
        ("s", "NOT_CONTAINS", [{"S": "b"}], False),
        ("n", "NOT_CONTAINS", [{"N": "1"}], True),
        ("absent", "NOT_CONTAINS", [{"S": "x"}], False),
        ("s", "BEGINS_WITH", [{"S": "ab"}], True),
        ("s", "BEGINS_WITH", [{"S": "b"}], False),
        ("b", "BEGINS_WITH", [{"B": "AQI="}], True),
        ("b", "BEGINS_WITH", [{"S": "AQI="}], False),
        ("s", "IN", [{"S": "x"}, S], True),
        ("s", "IN", [{"S": "x"}], False),
        ("absent", "IN", [S], False),
        ("n", "BETWEEN", [{"N": "9"}, {"N": "10"}], True),
        ("n", "BETWEEN", [{"N": "11"}, {"N": "12"}], False),
        ("n", "BETWEEN", [{"S": "0"}, {"S": "2"}], False),
        ("a.b", "EQ", [{"S": "dotted"}], True),
    ],
)
def test_comparison_operators(
    name: str, operator: str, values: list[dict[str, Any]], holds: bool
) -> None:
    wishes = {name: wish(operator, *values)}
    assert matches(expected(wishes), ITEM) is holds
    scanned = expressions("Scan", ScanFilter=wishes)
    assert scanned.filter is not None
    assert matches(scanned.filter, ITEM) is holds
    assert scanned.filter.heads == {name}


def test_value_and_exists_without_an_operator() -> None:
    assert matches(expected({"s": {"Value": S}}), ITEM)
    assert matches(expected({"s": {"Value": S, "Exists": True}}), ITEM)
    assert not matches(expected({"s": {"Value": {"S": "x"}, "Exists": True}}), ITEM)
    assert matches(expected({"absent": {"Exists": False}}), ITEM)
    assert not matches(expected({"s": {"Exists": False}}), ITEM)
    assert matches(expected({"s": {"Exists": False}}), None)
    assert matches(expected({"n": {"ComparisonOperator": "GT", "Value": {"N": "9"}}}), ITEM)


def test_all_wishes_must_hold_unless_the_operator_is_or() -> None:
    wishes = {"s": wish("EQ", S), "n": wish("EQ", {"N": "0"})}
    assert not matches(expected(wishes), ITEM)
    assert not matches(expected(wishes, "AND"), ITEM)
    assert matches(expected(wishes, "OR"), ITEM)


def test_no_wish_is_no_condition() -> None:
    assert expressions("DeleteItem", Key={"k": S}, Expected={}).condition is None
    assert expressions("Scan").filter is None


def test_key_conditions_are_tests_of_keys_in_their_order() -> None:
    conditions = {"a": wish("EQ", S), "b": wish("BETWEEN", {"N": "1"}, {"N": "2.0"})}
    found = expressions("Query", KeyConditions=conditions, QueryFilter={"c": wish("NULL")})
    assert found.key_condition is not None
    assert found.key_condition.tests == (
        KeyTest("a", "=", (S,)),
        KeyTest("b", "between", ({"N": "1"}, {"N": "2"})),
    )
    assert found.filter is not None
    assert matches(found.filter, ITEM)


@pytest.mark.parametrize(
    ("operator", "op"),
    [
        ("NULL", "attribute_not_exists"),
        ("NOT_NULL", "attribute_exists"),
        ("NE", "<>"),
        ("CONTAINS", "contains"),
        ("NOT_CONTAINS", "not_contains"),
        ("IN", "in"),
        ("BEGINS_WITH", "begins_with"),
    ],
)
def test_key_conditions_that_no_index_serves_keep_their_operator(operator: str, op: str) -> None:
    values = () if "NULL" in operator else (S,)
    found = expressions("Query", KeyConditions={"a": wish(operator, *values)}).key_condition
    assert found is not None
    assert found.tests == (KeyTest("a", op, values),)


def test_attributes_to_get_are_names_and_not_paths() -> None:
    for operation, fields in (("GetItem", {"Key": {"k": S}}), ("Scan", {})):
        found = expressions(operation, AttributesToGet=["a.b", "n", "absent"], **fields)
        assert found.projection is not None
        assert project(found.projection, ITEM) == {"a.b": {"S": "dotted"}, "n": {"N": "10"}}
        assert found.projection.heads == {"a.b", "n", "absent"}


def test_each_table_of_a_batch_has_its_own_attributes() -> None:
    body = {
        "RequestItems": {
            "one": {"Keys": [{"k": S}], "AttributesToGet": ["s"]},
            "two": {"Keys": [{"k": S}]},
        }
    }
    one, two = requests.read("BatchGetItem", orjson.dumps(body)).parts
    assert one.projection is not None
    assert project(one.projection, ITEM) == {"s": S}
    assert two.projection is None


def updating(updates: dict[str, Any]) -> Update:
    found = expressions("UpdateItem", Key={"k": S}, AttributeUpdates=updates).update
    assert found is not None
    return found


def test_puts_adds_and_deletes() -> None:
    update = updating(
        {
            "s": {"Value": {"S": "new"}},
            "n": {"Action": "ADD", "Value": {"N": "-10.5"}},
            "ss": {"Action": "ADD", "Value": {"SS": ["b", "c"]}},
            "ns": {"Action": "DELETE", "Value": {"NS": ["1", "2", "3"]}},
            "l": {"Action": "ADD", "Value": {"L": [{"S": "z"}]}},
            "yes": {"Action": "DELETE"},
            "a.b": {"Action": "PUT", "Value": {"NULL": True}},
            "count": {"Action": "ADD", "Value": {"N": "1"}},
            "absent": {"Action": "DELETE", "Value": {"SS": ["x"]}},
        }
    )
    result = apply(update, ITEM)
    assert result.item == {
        "s": {"S": "new"},
        "n": {"N": "-0.5"},
        "b": {"B": "AQID"},
        "ss": {"SS": ["a", "b", "c"]},
        "l": {"L": [{"S": "a"}, {"N": "1"}, {"S": "z"}]},
        "a.b": {"NULL": True},
        "count": {"N": "1"},
    }
    new = result.changed_part(result.item)
    assert new == {name: value for name, value in result.item.items() if name != "b"}
    assert result.changed_part(ITEM) == {n: v for n, v in ITEM.items() if n != "b"}
    assert update.heads == {"s", "n", "ss", "ns", "l", "yes", "a.b", "count", "absent"}
    assert dict(update.new_types())["l"] == "L"


@pytest.mark.parametrize(
    ("name", "action", "value"),
    [
        ("ss", "DELETE", {"NS": ["1"]}),
        ("n", "DELETE", {"NS": ["1"]}),
        ("ss", "ADD", {"NS": ["1"]}),
        ("ns", "ADD", {"N": "1"}),
        ("s", "ADD", {"L": []}),
    ],
)
def test_types_that_do_not_fit_are_told_in_the_older_words(
    name: str, action: str, value: dict[str, Any]
) -> None:
    with pytest.raises(DynamoError) as caught:
        apply(updating({name: {"Action": action, "Value": value}}), ITEM)
    assert caught.value.message == "Type mismatch for attribute to update"


def test_no_updates_are_no_update() -> None:
    assert expressions("UpdateItem", Key={"k": S}, AttributeUpdates={}).update is None

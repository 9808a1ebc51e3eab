"""Updates over items: values of before, lists that grow and close up, what changed."""

from __future__ import annotations

from engines.keyvalue.evaluate.updates import apply
from engines.keyvalue.parse.expressions import read


def test_all_values_are_those_before_the_update_and_elements_beyond_the_end_follow_it() -> None:
    expressions = read(
        {
            "UpdateExpression": "set b.c=((c[1])+(b.a)),b.a = a,c[1] = a, c[4] = b.a - b.b, "
            "c[2] = b.c add c[8] :b, c[6] :a",
            "ExpressionAttributeValues": {":a": {"N": "2"}, ":b": {"SS": ["a"]}},
        },
        ["UpdateExpression"],
    )
    item = {
        "a": {"S": "x"},
        "b": {"M": {"a": {"N": "1"}, "b": {"N": "2"}, "c": {"N": "3"}}},
        "c": {"L": [{"N": "1"}, {"N": "3"}]},
    }
    assert expressions.update is not None
    result = apply(expressions.update, item)
    assert result.item == {
        "a": {"S": "x"},
        "b": {"M": {"a": {"S": "x"}, "b": {"N": "2"}, "c": {"N": "4"}}},
        "c": {"L": [{"N": "1"}, {"S": "x"}, {"N": "3"}, {"N": "-1"}, {"N": "2"}, {"SS": ["a"]}]},
    }
    assert result.changed_part(result.item) == {
        "b": {"M": {"a": {"S": "x"}, "c": {"N": "4"}}},
        "c": {"L": [{"S": "x"}, {"N": "3"}, {"N": "2"}]},
    }
    assert result.changed_part(item) == {
        "b": {"M": {"a": {"N": "1"}, "c": {"N": "3"}}},
        "c": {"L": [{"N": "3"}]},
    }

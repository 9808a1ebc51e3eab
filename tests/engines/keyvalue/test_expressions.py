"""What DynamoDB says of expressions, word for word, and which of several faults it tells of.

The facts are those that tests of dynalite found at DynamoDB, and messages that clients reported.
"""

from __future__ import annotations

import pytest

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.parse.expressions import Expressions, read
from engines.keyvalue.parse.expressions.reserved import RESERVED_WORDS
from engines.keyvalue.parse.expressions.trees import KeyTest
from tests.engines.keyvalue.reading import (
    ALL,
    COUNT,
    MISUSED,
    NO_NAME,
    NO_VALUE,
    OTHER_TYPES,
    PATH,
    REDUNDANT,
    RESERVED,
    SAME,
    TOO_MANY,
    TYPE,
    B,
    N,
    S,
    Values,
    reading,
    refusal,
)

SYNTAX = [
    # Expression, text, token, near.
    ("Filter", "things are not gonna be ok", "are", "things are not"),
    ("Filter", "a > 4", "4", "> 4"),
    ("Filter", "attribute_exists(Pictures-RearView)", "-", "Pictures-RearView"),
    ("Filter", 'attribute_exists("Pictures.RearView")', '"', '("Pictures'),
    ("Filter", "attribute_exists(Pictures..RearView)", ".", "..RearView"),
    ("Filter", "attribute_exists(Pi#ctures.RearView)", "#ctures", "Pi#ctures."),
    ("Filter", "attribute_exists(asdf[a])", "a", "[a]"),
    ("Filter", "attribute_exists()", ")", "()"),
    ("Filter", "a in b, c", "b", "in b,"),
    ("Filter", "a > between", "between", "> between"),
    ("Filter", "a in b", "b", "in b"),
    ("Filter", "a in (b,c,)", ")", ",)"),
    ("Filter", "(a)between(b.(c.d))and(c)", "(", ".(c"),
    ("Filter", "(a)between(b.c.d)and((c)", "<EOF>", ")"),
    ("Filter", "#$.b > a", "#", "#$"),
    ("Filter", "a > :things.stuff", ".", ":things.stuff"),
    ("Filter", "b[:a] > a", ":a", "[:a]"),
    ("Filter", "b[#_] > a", "#_", "[#_]"),
    ("Filter", "ü > a", "ü", "ü >"),
    ("Filter", "(a)between(b.c[4.5].#d)and(:a)", ".", "4.5"),
    ("Filter", "size(a).b > a", ".", ").b"),
    ("Filter", "(size(a)).b > a", ".", ").b"),
    ("Filter", "size(a)[0] > a", "[", ")[0"),
    ("Filter", "(size(a))[0] > a", "[", ")[0"),
    ("KeyCondition", "(size(a))[0] > a", "[", ")[0"),
    ("Condition", "ADD #v :i", "ADD", "ADD #v"),
    ("Condition", "a", "<EOF>", "a"),
    ("Condition", "a AND b = :b", "AND", "a AND b"),
    ("Condition", "a = b = c", "=", "b = c"),
    ("Condition", "(a = b) = c", "=", ") = c"),
    ("Condition", "a = (b = c)", "=", "b = c"),
    ("Condition", "a = NOT b", "NOT", "= NOT b"),
    ("Condition", "a = b)", ")", "b)"),
    ("Condition", "a BETWEEN b OR c", "OR", "b OR c"),
    ("Condition", "a = b AND", "<EOF>", "AND"),
    ("Condition", "(a, b)", ",", "a, b"),
    ("Condition", "contains(a = b, c)", "=", "a = b"),
    ("Condition", "contains((a OR b), c)", "OR", "a OR b"),
    ("Condition", "contains((NOT a), c)", "NOT", "(NOT a"),
    ("Condition", "   ", "<EOF>", ""),
    ("Projection", "whatever(stuff)", "(", "whatever(stuff"),
    ("Projection", ":a", ":a", ":a"),
    ("Projection", "abort,", "<EOF>", ","),
    ("Projection", "a,,b", ",", ",,b"),
    ("Projection", "a..b", ".", "..b"),
    ("Projection", "a[b]", "b", "[b]"),
    ("Projection", "(a.b).c", "(", "(a"),
    ("Projection", "a-b", "-", "a-b"),
    ("Projection", "a b", "b", "a b"),
    ("Update", "whatever", "whatever", "whatever"),
    ("Update", "INVALID SYNTAX HERE", "INVALID", "INVALID SYNTAX"),
    ("Update", "ADD hits : incr", ":", "hits : incr"),
    ("Update", "remove a, #,b", "#", ", #,"),
    ("Update", "set #as, #Context = :v", ",", "#as, #Context"),
    ("Update", "set a = b, updated", "<EOF>", "updated"),
    ("Update", "SET", "<EOF>", "SET"),
    ("Update", "set a", "<EOF>", "a"),
    ("Update", "set a=set", "set", "=set"),
    ("Update", "remove a = b", "=", "a = b"),
    ("Update", "add a = b", "=", "a = b"),
    ("Update", "delete a b", "b", "a b"),
    ("Update", "delete a if_not_exist(b)", "if_not_exist", "a if_not_exist("),
    ("Update", "remove a b", "b", "a b"),
    ("Update", "set a b", "b", "a b"),
    ("Update", "set :a = b", ":a", "set :a ="),
    ("Update", "remove :a", ":a", "remove :a"),
    ("Update", "set a = b / c", "/", "b / c"),
    ("Update", "set a = b * c", "*", "b * c"),
    ("Update", 'set a[1] = "eight"', '"', '= "eight'),
    ("Update", "set a[1] = 1", "1", "= 1"),
    ("Update", "SET a = if_not_exist(a, 100)", "100", ", 100)"),
    ("Update", "SET if_not_exist(a, b) = a", "(", "if_not_exist(a"),
    ("Update", "set (a = (b + c))", "(", "set (a"),
    ("Update", "set a = (b.c).d + e", ".", ").d"),
    ("Update", "set a = (b.c)[0] + e", "[", ")[0"),
    ("Update", "set a = b + c + d", "+", "c + d"),
    ("Update", "set a = (b + c) + d", "+", ") + d"),
    ("Update", "set a = (b + c", "<EOF>", "c"),
    ("Update", "set a = (b set c = d", "set", "b set c"),
]


@pytest.mark.parametrize(("kind", "text", "token", "near"), SYNTAX)
def test_the_first_word_that_fits_nowhere_is_shown_with_its_neighbours(
    kind: str, text: str, token: str, near: str
) -> None:
    assert refusal(kind, text) == f'Syntax error; token: "{token}", near: "{near}"'


CONDITIONS = [
    ("", "The expression can not be empty;"),
    ("a=a and a > ((views))", REDUNDANT),
    ("(a)between(((b.c)).d)and(c)", REDUNDANT),
    ("a > whatever((:things), ((a)))", REDUNDANT),
    ("a=a AND ((a=a AND a=a)) AND a=a", REDUNDANT),
    ("a=a OR ((a=a OR a=a)) OR a=a", REDUNDANT),
    ("a=a AND ((a=a AND (a=a AND a=a)))", REDUNDANT),
    ("a=a OR ((a=a OR (a=a OR a=a)))", REDUNDANT),
    ("((attribute_exists(a)))", REDUNDANT),
    ("a IN (((b)), c)", REDUNDANT),
    ("a=a and whatever((:things)) > a", "Invalid function name; function: whatever"),
    ("attRIbute_exIsts((views), #a)", "Invalid function name; function: attRIbute_exIsts"),
    (
        "if_not_exists(a, b) = c",
        "The function is not allowed in a condition expression; function: if_not_exists",
    ),
    ("a=a and attribute_exists((views), (#a)) > b", MISUSED + "attribute_exists"),
    ("attribute_not_exists(things) > b", MISUSED + "attribute_not_exists"),
    ("attribute_type(things, :a) > b", MISUSED + "attribute_type"),
    ("begins_with(things, a) > b", MISUSED + "begins_with"),
    ("contains(:things, c) > b", MISUSED + "contains"),
    ("size(contains(a, b)) > a", MISUSED + "contains"),
    ("size(things)", MISUSED + "size"),
    ("a = b AND size(things)", MISUSED + "size"),
    ("NOT size(things)", MISUSED + "size"),
    ("a between b and attribute_exists(things)", MISUSED + "attribute_exists"),
    ("a in (b, attribute_exists(things))", MISUSED + "attribute_exists"),
    ("attribute_exists(views, #a)", RESERVED + "views"),
    (":a < abOrT", RESERVED + "abOrT"),
    ("a.b.nAme = :a", RESERVED + "nAme"),
    ("a[2147483648] = b", "List index is not within the allowable range; index: [2147483648]"),
    ("attribute_exists(#Pictures.RearView, :a) and a=a", NO_NAME + "#Pictures"),
    ("begins_with(Pictures.#RearView)", NO_NAME + "#RearView"),
    ("(#P between :lo and :hi) and (#PC in (:cat1, :cat2))", NO_NAME + "#P"),
    ("#4g > a", NO_NAME + "#4g"),
    ("#_ > a", NO_NAME + "#_"),
    ("(a)between(b.c[45].#d)and(:a)", NO_NAME + "#d"),
    ("begins_with(:hello, #a, #b)", NO_VALUE + ":hello"),
    (":a < :b", NO_VALUE + ":a"),
    (":_ > a", NO_VALUE + ":_"),
    ("a = b AND :x = c AND size(a, b) > :y", NO_VALUE + ":x"),
    ("size(a, b) > c AND :x = c", COUNT + "size, number of operands: 2"),
    ("attribute_exists(things, a) and a=a", COUNT + "attribute_exists, number of operands: 2"),
    ("attribute_not_exists(things, b)", COUNT + "attribute_not_exists, number of operands: 2"),
    ("attribute_type(things)", COUNT + "attribute_type, number of operands: 1"),
    ("begins_with(things)", COUNT + "begins_with, number of operands: 1"),
    ("begins_with(things, size(a), b)", COUNT + "begins_with, number of operands: 3"),
    ("contains(things)", COUNT + "contains, number of operands: 1"),
    ("size(things, a) > b", COUNT + "size, number of operands: 2"),
    ("attribute_type(a, b)", TYPE + "attribute_type, operand type: {NS,SS,L,BS,N,M,B,BOOL,NULL,S}"),
    ("a = a AND c = b", SAME + "operator: =, first operand: [a]"),
    ("((a=a) OR (a=a))", SAME + "operator: =, first operand: [a]"),
    ("a[0] < a[0]", SAME + "operator: <, first operand: [a, [0]]"),
    ("a IN (b, a)", SAME + "operator: IN, first operand: [a]"),
    ("a BETWEEN b AND a", SAME + "operator: BETWEEN, first operand: [a]"),
    (
        "contains(ab.bc[1].a, ab.bc[1].a)",
        SAME + "operator: contains, first operand: [ab, bc, [1], a]",
    ),
    ("begins_with(a, size(b)) and a = b", TYPE + "begins_with, operand type: N"),
    ("size(size(a)) > b", TYPE + "size, operand type: N"),
    ("attribute_exists(size(a))", PATH + "attribute_exists"),
    (
        f"a{'.a' * 32} = b",
        "The document path has too many nesting levels; nesting levels: 33",
    ),
    (
        f"a IN ({', '.join(f'b{n}' for n in range(101))})",
        "The IN operator is provided with too many operands; number of operands: 101",
    ),
    (" AND ".join(["a=b"] * 151), TOO_MANY),
    (f"{'NOT ' * 300}a = b", TOO_MANY),
    (f"a < {'size(' * 680}b{')' * 680}", TOO_MANY),
    (f"a < {'f(' * 1355}b{')' * 1355}", "Invalid function name; function: f"),
    (
        f"a = {'b' * 4093}",
        "Expression size has exceeded the maximum allowed size; expression size: 4097",
    ),
    (
        f"a = {'é' * 2047}",
        "Expression size has exceeded the maximum allowed size; expression size: 4098",
    ),
]


@pytest.mark.parametrize(("text", "message"), CONDITIONS)
def test_what_is_wrong_with_a_condition_whatever_its_values(text: str, message: str) -> None:
    for kind in ("Condition", "Filter", "KeyCondition"):
        assert refusal(kind, text) == message


def test_300_operators_and_32_parts_of_a_path_are_let_in() -> None:
    assert reading("Condition", f"NOT {' AND '.join(['a=b'] * 150)}").condition
    assert reading("Condition", f"a{'.a' * 31} = b").condition
    assert reading("Condition", f"a IN ({', '.join(f'b{n}' for n in range(100))})").condition
    assert reading("Condition", f"a = {'b' * 4092}").condition


TYPES = [
    *(("attribute_type(a, :a)", "attribute_type", value) for value in [N, B, *OTHER_TYPES]),
    ("attribute_type(a, size(a)) and a=a and a=:a", "attribute_type", N),
    *(("begins_with(a, :a)", "begins_with", value) for value in [N, *OTHER_TYPES]),
    *(("begins_with(:a, a)", "begins_with", value) for value in [N, *OTHER_TYPES]),
    ("begins_with(a, size(a)) and a=:a", "begins_with", N),
    ("size(size(a)) > :a", "size", N),
    ("attribute_not_exists(size(:a))", "size", N),
    ("size(:a) > a", "size", {"BOOL": True}),
    ("size(:a) > a", "size", {"NULL": True}),
    *(("a < :a", "<", value) for value in OTHER_TYPES),
    ("a BETWEEN :a AND b", "BETWEEN", {"L": []}),
]


@pytest.mark.parametrize(("text", "operator", "value"), TYPES)
def test_operands_of_a_type_that_the_operator_cannot_take(
    text: str, operator: str, value: Values
) -> None:
    message = f"{TYPE}{operator}, operand type: {next(iter(value))}"
    assert refusal("Filter", text, {":a": value}) == message
    # The pattern of the text is kept by now; values are looked at each time.
    assert refusal("Filter", text, {":a": value}) == message


def test_faults_of_values_that_are_told_in_other_words() -> None:
    assert refusal("Filter", "attribute_type(a, :a)", {":a": S}) == (
        "Invalid attribute type name found; type: 1, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}"
    )
    assert refusal("Filter", "attribute_exists(:a) and a=a", {":a": S}) == PATH + "attribute_exists"
    assert (
        refusal("Filter", "attribute_not_exists(size(:a))", {":a": S})
        == PATH + "attribute_not_exists"
    )
    bounds = {":a": {"S": "a"}, ":b": {"N": "1"}}
    assert refusal("KeyCondition", "a between :b and :a", bounds) == (
        "The BETWEEN operator requires same data type for lower and upper bounds; lower bound "
        "operand: AttributeValue: {N:1}, upper bound operand: AttributeValue: {S:a}"
    )
    bounds = {":a": {"S": "a"}, ":b": {"S": "b"}}
    assert refusal("KeyCondition", "a between :b and :a", bounds) == (
        "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
        "lower bound operand: AttributeValue: {S:b}, upper bound operand: AttributeValue: {S:a}"
    )
    # Numbers are no texts, and base64 text has not the order of its bytes.
    reading("Filter", "a between :b and :a", {":a": {"N": "10"}, ":b": {"N": "9"}})
    reading("Filter", "a between :b and :a", {":a": {"B": "+/8="}, ":b": {"B": "AAA="}})
    assert refusal("Filter", "a between :b and :a", {":a": {"B": "AAA="}, ":b": {"B": "+/8="}}) == (
        "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
        "lower bound operand: AttributeValue: {B:java.nio.HeapByteBuffer[pos=0 lim=2 cap=2]}, "
        "upper bound operand: AttributeValue: {B:java.nio.HeapByteBuffer[pos=0 lim=2 cap=2]}"
    )


def test_a_message_repeats_no_more_than_a_kilobyte_of_a_value() -> None:
    long = {"S": "x" * 100_000}
    shown = "x" * 1024
    assert refusal("Filter", "attribute_type(a, :a)", {":a": long}) == (
        f"Invalid attribute type name found; type: {shown}, "
        "valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}"
    )
    assert refusal("Filter", "a BETWEEN :a AND :b", {":a": long, ":b": S}) == (
        "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
        f"lower bound operand: AttributeValue: {{S:{shown}}}, "
        "upper bound operand: AttributeValue: {S:1}"
    )


def test_comparisons_are_looked_at_in_the_order_of_the_text() -> None:
    for kind in ("Condition", "Filter", "KeyCondition"):
        wrong = "begins_with(b, :n)"
        values = {":n": N}
        assert refusal(kind, f"a = :missing AND {wrong}", values) == NO_VALUE + ":missing"
        message = TYPE + "begins_with, operand type: N"
        assert refusal(kind, f"{wrong} AND a = :missing", values) == message


@pytest.mark.parametrize(
    ("text", "operator", "first"),
    [
        ("a = c AND #a = b AND #a = a", "=", "[a]"),
        ("#a <> a", "<>", "[a]"),
        ("a > #a", ">", "[a]"),
        ("attribute_type(ab.bc[1].#a, ab.bc[1].a)", "attribute_type", "[ab, bc, [1], a]"),
    ],
)
def test_operands_are_the_same_by_their_names_and_not_by_their_texts(
    text: str, operator: str, first: str
) -> None:
    message = f"{SAME}operator: {operator}, first operand: {first}"
    assert refusal("Filter", text, names={"#a": "a"}) == message


KEY_CONDITIONS = [
    ("a > b and size(b) > c or a > c", "Invalid operator used in KeyConditionExpression: OR"),
    ("a in (b, size(c), d)", "Invalid operator used in KeyConditionExpression: IN"),
    *(
        (text, f"Invalid operator used in KeyConditionExpression: {name}")
        for text, name in [
            ("attribute_exists(a)", "attribute_exists"),
            ("attribute_not_exists(a)", "attribute_not_exists"),
            ("contains(a.d, b)", "contains"),
            ("not a > b", "NOT"),
            ("a <> b", "<>"),
            ("attribute_type(a, :t)", "attribute_type"),
        ]
    ),
    (
        ":a between size(b) and size(a) and b > :b",
        "Invalid condition in KeyConditionExpression: BETWEEN operator must have the key attribute "
        "as its first operand",
    ),
    (
        "begins_with(:s, b) and a > :b",
        "Invalid condition in KeyConditionExpression: begins_with operator must have the key "
        "attribute as its first operand",
    ),
    *(
        (text, "KeyConditionExpressions cannot contain nested operations")
        for text in [
            "size(b) > a AND a.b > b AND b > c",
            "a > size(b.d)",
            "a between size(b) and size(a)",
        ]
    ),
    *(
        (
            text,
            "Invalid condition in KeyConditionExpression: Multiple attribute names used in one "
            "condition",
        )
        for text in [
            "b > a.b",
            "b between c[1] and d",
            "a between b and size(a)",
            "begins_with(a, b)",
        ]
    ),
    *(
        (text, "KeyConditionExpressions cannot have conditions on nested attributes")
        for text in ["b.d > a AND c.d > e.f", "a.d > c", "b[0] > a"]
    ),
    *(
        (text, "Invalid condition in KeyConditionExpression: No key attribute specified")
        for text in [":b > :a AND a < :b", ":a > b AND :a < :b"]
    ),
    *(
        (text, "KeyConditionExpressions must only contain one condition per key")
        for text in [
            "b > :a AND b < :a and c = :a and d = :a",
            "(a > :a and b > :a) and (b > :a and c > :a)",
        ]
    ),
]


@pytest.mark.parametrize(("text", "message"), KEY_CONDITIONS)
def test_what_a_key_condition_may_not_say(text: str, message: str) -> None:
    given = {":a": N, ":b": N, ":s": {"S": "s"}, ":t": {"S": "N"}}
    values = {name: value for name, value in given.items() if name in text}
    assert refusal("KeyCondition", text, values) == message


def test_a_key_condition_is_one_test_for_each_attribute() -> None:
    values = {":a": {"S": "x"}, ":b": {"N": "1"}, ":c": {"N": "2"}}
    text = "(#h = :a) AND (b BETWEEN :b AND :c)"
    condition = reading("KeyCondition", text, values, {"#h": "hash"}).key_condition
    assert condition is not None
    assert condition.tests == (
        KeyTest("hash", "=", ({"S": "x"},)),
        KeyTest("b", "between", ({"N": "1"}, {"N": "2"})),
    )
    turned = reading("KeyCondition", ":a = a and :b <= b", {":a": S, ":b": N}).key_condition
    assert turned is not None
    assert turned.tests == (KeyTest("a", "=", (S,)), KeyTest("b", ">=", (N,)))
    prefix = reading("KeyCondition", "a = :a and begins_with(b, :a)", {":a": S}).key_condition
    assert prefix is not None
    assert prefix.tests == (KeyTest("a", "=", (S,)), KeyTest("b", "begins_with", (S,)))


def test_placeholders_that_no_expression_uses() -> None:
    fields = {
        "UpdateExpression": "remove a set b = list_append(b, if_not_exists(a, :a))",
        "ConditionExpression": "a = :b",
        "ExpressionAttributeValues": {":a": S, ":b": S},
        "ExpressionAttributeNames": {"#a": "a", "#b": "b"},
    }
    with pytest.raises(DynamoError) as caught:
        read(fields, ALL)
    # The paths overlap only where both are changed.
    assert caught.value.message == (
        "Value provided in ExpressionAttributeNames unused in expressions: keys: {#a, #b}"
    )
    fields = {
        "UpdateExpression": "remove a",
        "ConditionExpression": "a = :b",
        "ExpressionAttributeValues": {":a": S, ":b": S, ":c": S},
    }
    with pytest.raises(DynamoError) as caught:
        read(fields, ALL)
    assert caught.value.message == (
        "Value provided in ExpressionAttributeValues unused in expressions: keys: {:a, :c}"
    )


def test_expressions_are_read_in_dynamodbs_order_and_key_conditions_looked_at_last() -> None:
    empty = dict.fromkeys(ALL, "")
    for name in (
        "UpdateExpression",
        "ConditionExpression",
        "KeyConditionExpression",
        "FilterExpression",
        "ProjectionExpression",
    ):
        with pytest.raises(DynamoError) as caught:
            read(empty, ALL)
        assert caught.value.message == f"Invalid {name}: The expression can not be empty;"
        del empty[name]
    fields = {"KeyConditionExpression": "a <> :a", "ExpressionAttributeValues": {":a": S, ":b": S}}
    with pytest.raises(DynamoError) as caught:
        read(fields, ALL)
    assert caught.value.message.startswith("Value provided in ExpressionAttributeValues unused")


def test_only_the_expressions_that_the_operation_has_are_read() -> None:
    assert read({"FilterExpression": "("}, ["ProjectionExpression"]) == Expressions()


def test_the_same_text_with_other_names_and_values_is_another_condition() -> None:
    text = "#n = :v"
    one = reading("Condition", text, {":v": S}, {"#n": "a"}).condition
    two = reading("Condition", text, {":v": N}, {"#n": "b"}).condition
    assert one is not None
    assert two is not None
    assert (one.heads, two.heads) == ({"a"}, {"b"})
    assert (one.values, two.values) == ({":v": S}, {":v": N})


def test_every_reserved_word_needs_a_placeholder_and_names_near_them_do_not() -> None:
    assert len(RESERVED_WORDS) == 573
    keywords = {"ADD", "AND", "BETWEEN", "DELETE", "IN", "NOT", "OR", "SET"}
    for word in RESERVED_WORDS - keywords:
        assert refusal("Projection", word.lower()) == RESERVED + word.lower()
        assert reading("Projection", f"{word}_").projection
    assert reading("Projection", "#n", names={"#n": "name"}).projection


def test_heads_and_nested_attributes_of_expressions_are_known() -> None:
    condition = reading("Filter", "attribute_exists(a.b) AND c = d[1] OR size(e) > f").filter
    assert condition is not None
    assert condition.heads == {"a", "c", "d", "e", "f"}
    assert condition.nested == {"a", "d"}
    update = reading("Update", "set a = b.c, d[0] = e remove f").update
    assert update is not None
    assert update.heads == {"a", "d", "f"}
    assert update.nested == {"b", "d"}
    projection = reading("Projection", "a.b, a.c, d").projection
    assert projection is not None
    assert projection.heads == {"a", "d"}
    assert projection.nested == {"a"}

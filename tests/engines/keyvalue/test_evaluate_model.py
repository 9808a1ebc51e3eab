"""Random conditions, updates and projections mean what a second, plainer model says."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import orjson
from hypothesis import given, settings

from engines.keyvalue.errors import DynamoError
from engines.keyvalue.evaluate.conditions import matches
from engines.keyvalue.evaluate.projections import project
from engines.keyvalue.evaluate.updates import apply
from engines.keyvalue.parse.attribute_values import canonical_item
from engines.keyvalue.parse.expressions.checks import branches
from engines.keyvalue.parse.expressions.trees import (
    Action,
    AddAction,
    Arithmetic,
    Between,
    Branch,
    Compare,
    Condition,
    DeleteAction,
    Function,
    IfNotExists,
    In,
    ListAppend,
    Not,
    Path,
    Projection,
    RemoveAction,
    SetAction,
    Size,
    Test,
    Update,
    Value,
)
from engines.keyvalue.values import Item
from tests.engines.keyvalue.expression_model import Model, RefusedError, find, natural
from tests.engines.keyvalue.expression_model import update as model_update
from tests.engines.keyvalue.expression_texts import (
    VALUES,
    condition_texts,
    items,
    projection_texts,
    update_texts,
)
from tests.engines.keyvalue.reading import reading


@settings(max_examples=300)
@given(condition_texts(), items)
def test_conditions(drawn: tuple[Test, str], item: Item) -> None:
    test, _ = drawn
    holds = matches(Condition(test, VALUES), item)
    assert holds is Model(item, VALUES).holds(test)
    assert matches(Condition(Not(test), VALUES), item) is not holds


CLOSE: list[dict[str, Any]] = [
    *VALUES.values(),
    {"S": "b"},
    {"S": "aab"},
    {"N": "0"},
    {"N": "10"},
    {"B": ""},
    {"B": "/w=="},
    {"B": "fw=="},
    {"B": "YWE="},
    {"B": "YQBi"},
    {"SS": ["ab", "a"]},
    {"SS": ["a"]},
    {"NS": ["2.5", "1"]},
    {"BS": ["YWI=", "YQ=="]},
    {"L": []},
    {"L": [{"SS": ["ab", "a"]}, {"N": "1"}, {"B": "YQ=="}]},
    {"L": [{"N": "1"}, {"S": "a"}]},
    {"M": {}},
    {"M": {"x": {"SS": ["ab", "a"]}}},
    {"M": {"x": {"SS": ["a", "ab"]}}},
    {"BOOL": False},
]


def test_every_operator_between_every_two_kinds_of_values() -> None:
    a, b = Path(("a",)), Path(("b",))
    tests: list[Test] = [
        *(Compare(op, a, b) for op in ("=", "<>", "<", "<=", ">", ">=")),
        *(Compare(op, Size(a), Size(b)) for op in ("=", "<>", "<")),
        Function("begins_with", (a, b)),
        Function("contains", (a, b)),
        In(a, (Value(":s1"), b)),
        Between(a, b, Value(":n2")),
        Between(Value(":s1"), a, b),
    ]
    for one, two in itertools.product([None, *CLOSE], repeat=2):
        item = {name: value for name, value in (("a", one), ("b", two)) if value is not None}
        model = Model(item, VALUES)
        for test in tests:
            assert matches(Condition(test, VALUES), item) is model.holds(test), (test, one, two)


def tree(paths: list[Path]) -> Branch:
    branch, problem = branches(paths)
    assert problem is None
    return branch


def check_update(actions: tuple[Action, ...], item: Item) -> None:
    """Compare an update with that of the model."""
    before = copy.deepcopy(item)
    made = Update(actions, VALUES, tree([action.path for action in actions]))
    refusal: str | None = None
    expected: dict[str, Any] = {}
    try:
        expected = model_update(actions, item, VALUES)
    except RefusedError as error:
        refusal = str(error)
    try:
        after = apply(made, item).item
    except DynamoError as error:
        assert error.message == refusal
    else:
        assert refusal is None, actions
        assert {name: natural(value) for name, value in after.items()} == expected
        # What is stored is canonical: numbers in their one text, sets without twins.
        assert canonical_item(after) == after
        assert orjson.loads(orjson.dumps(after)) == after
    assert item == before


def test_every_action_on_every_kind_of_value() -> None:
    a, sets = Path(("a",)), [":ss", ":ns", ":bs"]
    actions: list[Action] = [
        *(AddAction(a, Value(name)) for name in [":n0", ":n2", *sets]),
        *(DeleteAction(a, Value(name)) for name in sets),
        *(SetAction(a, Arithmetic(op, a, Value(":n2"))) for op in "+-"),
        SetAction(Path(("x",)), Arithmetic("-", Value(":n2"), a)),
        SetAction(a, ListAppend(a, Value(":l"))),
        SetAction(a, ListAppend(IfNotExists(a, Value(":l")), a)),
        SetAction(Path(("x",)), IfNotExists(a, Value(":nil"))),
        SetAction(Path(("a", "x")), Value(":nil")),
        SetAction(Path(("a", 1)), Value(":nil")),
        RemoveAction(Path(("a", "x"))),
        RemoveAction(Path(("a", 0))),
        RemoveAction(a),
    ]
    for value, action in itertools.product([None, *CLOSE], actions):
        check_update((action,), {} if value is None else {"a": value})
        # The same one level down.
        check_update((action,), {"a": {"L": [value]} if value else {"M": {}}})


def test_every_two_changes_of_elements_of_a_list() -> None:
    item: Item = {"b": {"L": [{"N": "0"}, {"L": [{"N": "10"}, {"N": "11"}]}, {"N": "2"}]}}
    paths = [Path(("b", index)) for index in (0, 1, 2, 3, 4, 9)]
    paths += [Path(("b", 1, index)) for index in (0, 1, 2, 5)]
    changes: list[Action] = [
        action
        for path in paths
        for action in (
            SetAction(path, Value(":s1")),
            SetAction(path, Path(("b", 2))),
            RemoveAction(path),
            AddAction(path, Value(":n2")),
            DeleteAction(path, Value(":ss")),
        )
    ]
    for one, two in itertools.product(changes, repeat=2):
        if branches([one.path, two.path])[1] is None:
            check_update((one, two), item)


@settings(max_examples=300)
@given(update_texts(), items)
def test_updates(drawn: tuple[tuple[Action, ...], str], item: Item) -> None:
    check_update(drawn[0], item)


@given(projection_texts(), items)
def test_projections(drawn: tuple[tuple[Path, ...], str], item: Item) -> None:
    paths, _ = drawn
    part = project(Projection(paths, tree(list(paths))), item)
    model = Model(item, {})
    leaves = [found for path in paths if (found := find(model.item, path)) is not None]
    # Every path's value is there, and nothing else: by count and content of the parts' ends.
    assert count(part, paths) == len(leaves)
    for path in paths:
        if all(isinstance(part, str) for part in path.parts):
            natural_part = {name: natural(value) for name, value in part.items()}
            assert find(natural_part, path) == find(model.item, path)


def count(part: Item, paths: tuple[Path, ...]) -> int:
    """Return how many ends of paths a part of an item holds, going down as the paths do."""
    ends = {path.parts for path in paths}

    def ends_below(value: dict[str, Any], way: tuple[str | int, ...]) -> int:
        if way in ends:
            return 1
        [(kind, content)] = value.items()
        assert content, "a document that nothing is asked of"
        if kind == "M":
            return sum(ends_below(member, (*way, name)) for name, member in content.items())
        # Elements have closed up, so each is any of the indexes that are asked for.
        asked = sorted({end[len(way)] for end in ends if end[: len(way)] == way})
        best = 0
        for indexes in choices(asked, len(content)):
            found = [
                ends_below(element, (*way, index))
                for index, element in zip(indexes, content, strict=True)
            ]
            best = max(best, sum(found) if all(found) else 0)
        return best

    return sum(ends_below(value, (name,)) for name, value in part.items())


def choices(of: list[Any], length: int) -> list[tuple[Any, ...]]:
    """Return all ways to take so many, in order."""
    if not length:
        return [()]
    return [
        (each, *rest)
        for place, each in enumerate(of)
        for rest in choices(of[place + 1 :], length - 1)
    ]


def test_300_nested_conditions_are_evaluated_within_pythons_stack() -> None:
    condition = reading("Condition", "NOT (" * 299 + "a=b" + ")" * 299).condition
    assert condition is not None
    assert matches(condition, {})
    text = "set a = " + "if_not_exists(a," * 240 + ":v" + ")" * 240
    update = reading("Update", text, {":v": {"S": "x"}}).update
    assert update is not None
    assert apply(update, {}).item == {"a": {"S": "x"}}

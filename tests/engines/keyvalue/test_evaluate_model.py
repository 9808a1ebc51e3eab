"""Random conditions, updates and projections mean what a second, plainer model says."""

from __future__ import annotations

import copy
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
    Branch,
    Condition,
    Not,
    Path,
    Projection,
    Test,
    Update,
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


def tree(paths: list[Path]) -> Branch:
    branch, problem = branches(paths)
    assert problem is None
    return branch


@settings(max_examples=300)
@given(update_texts(), items)
def test_updates(drawn: tuple[tuple[Action, ...], str], item: Item) -> None:
    actions, _ = drawn
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
        assert refusal is None
        assert {name: natural(value) for name, value in after.items()} == expected
        # What is stored is canonical: numbers in their one text, sets without twins.
        assert canonical_item(after) == after
        assert orjson.loads(orjson.dumps(after)) == after
    assert item == before


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

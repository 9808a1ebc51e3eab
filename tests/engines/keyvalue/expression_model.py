"""A second, plainer meaning of expressions, which the engine's own is held against.

Values are Python's own: a number is a Decimal, a binary is bytes, a set is a frozenset, each beside
its type. Updates are done in place, one action after the other, to lists that are dictionaries.
"""

from __future__ import annotations

import base64
import copy
from decimal import Decimal
from typing import Any

from engines.keyvalue.parse.expressions.trees import (
    Action,
    AddAction,
    And,
    Arithmetic,
    Between,
    Compare,
    Function,
    IfNotExists,
    In,
    ListAppend,
    Not,
    Or,
    Path,
    RemoveAction,
    SetAction,
    Size,
    Value,
)

Natural = tuple[str, Any]

_ELEMENTS = {
    "S": str,
    "N": Decimal,
    "B": base64.b64decode,
}


def natural(value: dict[str, Any]) -> Natural:
    [(kind, content)] = value.items()
    if kind in _ELEMENTS:
        return kind, _ELEMENTS[kind](content)
    if kind in ("SS", "NS", "BS"):
        return kind, frozenset(map(_ELEMENTS[kind[0]], content))
    if kind == "L":
        return kind, [natural(element) for element in content]
    if kind == "M":
        return kind, {name: natural(member) for name, member in content.items()}
    return kind, content


def find(item: dict[str, Natural], path: Path) -> Natural | None:
    found: Any = ("M", item)
    for part in path.parts:
        kind, content = found
        if kind != ("L" if isinstance(part, int) else "M"):
            return None
        try:
            found = content[part]
        except (KeyError, IndexError):
            return None
    return found  # type: ignore[no-any-return]


class Model:
    """The meaning of conditions over one item."""

    def __init__(self, item: dict[str, Any], values: dict[str, dict[str, Any]]) -> None:
        self.item: dict[str, Natural] = {name: natural(value) for name, value in item.items()}
        self.values = {name: natural(value) for name, value in values.items()}

    def value(self, operand: Any) -> Natural | None:
        if isinstance(operand, Value):
            return self.values[operand.name]
        if isinstance(operand, Path):
            return find(self.item, operand)
        assert isinstance(operand, Size)
        found = self.value(operand.of)
        if found is None or found[0] in ("N", "BOOL", "NULL"):
            return None
        content = found[1]
        if found[0] == "S":
            return "N", Decimal(sum(1 + (ord(char) > 0xFFFF) for char in content))
        return "N", Decimal(len(content))

    def order(self, left: Natural | None, right: Natural | None) -> int | None:
        """Return -1, 0 or 1; None if there is no order."""
        if left is None or right is None or left[0] != right[0] or left[0] not in _ELEMENTS:
            return None
        one, two = left[1], right[1]
        if left[0] == "S":
            one, two = one.encode(), two.encode()
        return (one > two) - (one < two)

    def holds(self, test: Any) -> bool:
        match test:
            case And(terms):
                return not [term for term in terms if not self.holds(term)]
            case Or(terms):
                return bool([term for term in terms if self.holds(term)])
            case Not(term):
                return self.holds(term) is False
            case Compare("=", left, right):
                one = self.value(left)
                return one is not None and one == self.value(right)
            case Compare("<>", left, right):
                return not self.holds(Compare("=", left, right))
            case Compare(op, left, right):
                order = self.order(self.value(left), self.value(right))
                return order in {"<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (0, 1)}[op]
            case Between(of, low, high):
                return self.holds(Compare("<=", low, of)) and self.holds(Compare(">=", high, of))
            case In(of, options):
                return any(self.holds(Compare("=", of, option)) for option in options)
            case Function(name, args):
                return bool(getattr(self, name)(*map(self.value, args)))
        raise AssertionError(test)

    def attribute_exists(self, value: Natural | None) -> bool:
        return value is not None

    def attribute_not_exists(self, value: Natural | None) -> bool:
        return value is None

    def attribute_type(self, value: Natural | None, kind: Natural) -> bool:
        return value is not None and value[0] == kind[1]

    def begins_with(self, value: Natural | None, prefix: Natural | None) -> bool:
        if value is None or prefix is None or value[0] != prefix[0] or value[0] not in "SB":
            return False
        return value[1][: len(prefix[1])] == prefix[1]

    def contains(self, value: Natural | None, part: Natural | None) -> bool:
        if value is None or part is None:
            return False
        (kind, content), (part_kind, part_content) = value, part
        if kind == "L":
            return part in content
        if kind in ("S", "B"):
            return kind == part_kind and part_content in content
        return kind in ("SS", "NS", "BS") and kind[0] == part_kind and part_content in content


class RefusedError(Exception):
    """An action that cannot be done."""


INVALID_PATH = "The document path provided in the update expression is invalid for update"
ABSENT = "The provided expression refers to an attribute that does not exist in the item"
WRONG_TYPE = "An operand in the update expression has an incorrect data type"


def update(
    actions: tuple[Action, ...], item: dict[str, Any], values: dict[str, dict[str, Any]]
) -> dict[str, Natural]:
    """Return the item after the actions. Raises RefusedError with DynamoDB's words."""
    model = Model(item, values)
    news = [_new(model, a.value) if isinstance(a, SetAction) else None for a in actions]
    item_after = _loosened(("M", copy.deepcopy(model.item)))
    for action, new in zip(actions, news, strict=True):
        *way, last = action.path.parts
        place = item_after
        for part in way:
            place = _inside(place, part).get(part)
            if place is None:
                raise RefusedError(INVALID_PATH)
        members = _inside(place, last)
        if isinstance(action, SetAction):
            assert new is not None
            members[last] = _loosened(new)
        elif isinstance(action, RemoveAction):
            members.pop(last, None)
        else:
            _combine(members, last, action, model.values[action.value.name])
    after: dict[str, Natural] = _tightened(item_after)[1]
    return after


def _inside(place: Any, part: str | int) -> Any:
    if place[0] != ("L" if isinstance(part, int) else "M"):
        raise RefusedError(INVALID_PATH)
    return place[1]


def _combine(members: Any, last: str | int, action: Any, operand: Natural) -> None:
    kind, content = operand
    old = members.get(last)
    if old is not None and old[0] != kind:
        raise RefusedError(WRONG_TYPE)
    if isinstance(action, AddAction):
        if kind == "N":
            new = content if old is None else old[1] + content
        else:
            new = content if old is None else old[1] | content
        members[last] = kind, new
    elif old is not None:
        left = old[1] - content
        if left:
            members[last] = kind, left
        else:
            del members[last]


def _new(model: Model, value: Any) -> Natural:
    match value:
        case Path() | Value():
            found = model.value(value)
            if found is None:
                raise RefusedError(ABSENT)
            return found
        case IfNotExists(path, other):
            found = model.value(path)
            return _new(model, other) if found is None else found
        case ListAppend(left, right):
            lists = [_new(model, left), _new(model, right)]
            if {kind for kind, _ in lists} != {"L"}:
                raise RefusedError(WRONG_TYPE)
            return "L", lists[0][1] + lists[1][1]
        case Arithmetic(op, left, right):
            sign = 1 if op == "+" else -1
            numbers = []
            for each in (left, right):
                kind, content = _new(model, each)
                if kind != "N":
                    raise RefusedError(WRONG_TYPE)
                numbers.append(content)
            return "N", numbers[0] + sign * numbers[1]
    raise AssertionError(value)


def _loosened(value: Natural) -> Any:
    """Return a value whose lists are dictionaries by index."""
    kind, content = value
    if kind == "L":
        return kind, {place: _loosened(element) for place, element in enumerate(content)}
    if kind == "M":
        return kind, {name: _loosened(member) for name, member in content.items()}
    return value


def _tightened(value: Any) -> Natural:
    kind, content = value
    if kind == "L":
        return kind, [_tightened(content[place]) for place in sorted(content)]
    if kind == "M":
        return kind, {name: _tightened(member) for name, member in content.items()}
    return kind, content

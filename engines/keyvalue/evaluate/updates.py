"""Updates: an item -> the item after it. Nothing of the item that was is changed.

All values are taken from the item as it was, and all list indexes are those of its lists: elements
put beyond a list's end follow it in the order of their indexes, those removed close up at the end.
So the order of the actions does not matter, except for which of several errors is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from engines.keyvalue.capacity import ITEM_BYTES_MAX, value_size
from engines.keyvalue.errors import DynamoError, validation
from engines.keyvalue.evaluate.comparing import SETS
from engines.keyvalue.evaluate.conditions import resolve
from engines.keyvalue.evaluate.projections import project_branch
from engines.keyvalue.parse.attribute_values import (
    DIGITS_MAX,
    LEVELS_MAX,
    canonical_number,
    too_deep,
)
from engines.keyvalue.parse.expressions.trees import (
    AddAction,
    Branch,
    DeleteAction,
    IfNotExists,
    ListAppend,
    NewValue,
    Path,
    SetAction,
    Update,
    Value,
    Values,
)
from engines.keyvalue.parse.ordering import EXACT
from engines.keyvalue.values import AttributeValue, Item, type_of

# Digits that surely fit once two such integers are added.
_SAFE_DIGITS = DIGITS_MAX - 1


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The item after an update, and the tree of the paths that the update names."""

    item: Item
    changed: Branch

    def changed_part(self, item: Item) -> Item:
        """Return what an item, the old or the new one, has of the paths that the update names."""
        return project_branch(self.changed, item)


def apply(update: Update, item: Item) -> UpdateResult:
    """Return the item after an update of `item`, which is the key alone if it was not there.

    That the update leaves the key alone is the table's to see to, by `update.heads`.

    Raises DynamoError if the update does not fit the item.
    """
    results: list[AttributeValue | None] = [None] * len(update.actions)
    size_bytes = 0
    for place, action in enumerate(update.actions):
        if isinstance(action, SetAction):
            value = _new_value(action.value, item, update.values)
            _check_levels(value, len(action.path.parts))
            # Before the item is built: one list may be named a thousand times.
            size_bytes += value_size(value)
            if size_bytes > ITEM_BYTES_MAX:
                raise _too_large()
            results[place] = value
    for place, action in enumerate(update.actions):
        _check_parent(action.path, item)
        if isinstance(action, AddAction | DeleteAction):
            results[place] = _combined(action, item, update)
    return UpdateResult(_members(update.branch, item, results), update.branch)


def _new_value(value: NewValue, item: Item, values: Values) -> AttributeValue:
    """Return what SET assigns."""
    if isinstance(value, Value):
        return values[value.name]
    if isinstance(value, Path):
        found = resolve(value, item)
        if found is None:
            raise validation(
                "The provided expression refers to an attribute that does not exist in the item"
            )
        return found
    if isinstance(value, IfNotExists):
        found = resolve(value.path, item)
        return _new_value(value.other, item, values) if found is None else found
    left = _new_value(value.left, item, values)
    if isinstance(value, ListAppend):
        right = _new_value(value.right, item, values)
        if "L" not in left or "L" not in right:
            raise _wrong_operand()
        if len(left["L"]) + len(right["L"]) > ITEM_BYTES_MAX:
            raise _too_large()
        return {"L": left["L"] + right["L"]}
    if "N" not in left:
        raise _wrong_operand()
    right = _new_value(value.right, item, values)
    if "N" not in right:
        raise _wrong_operand()
    return {"N": total(left["N"], value.op, right["N"])}


def total(one: str, op: str, two: str) -> str:
    """Return the sum (`op` is +) or difference of two numbers, all of them canonical texts.

    Raises DynamoError if it has more than 38 digits or lies outside of what can be stored.
    """
    if len(one) <= _SAFE_DIGITS and len(two) <= _SAFE_DIGITS and "." not in one + two:
        return str(int(one) + int(two) if op == "+" else int(one) - int(two))
    left, right = Decimal(one), Decimal(two)
    result = EXACT.add(left, right) if op == "+" else EXACT.subtract(left, right)
    if len(EXACT.normalize(result).as_tuple().digits) > DIGITS_MAX:
        raise validation(
            "Number overflow. Attempting to store a number with magnitude larger than "
            "supported range"
        )
    return canonical_number(format(result, "f"))


def _check_parent(path: Path, item: Item) -> None:
    """Refuse a path into something that is not there, or is no document of its kind."""
    parts = path.parts
    if len(parts) == 1:
        return
    parent = resolve(Path(parts[:-1]), item)
    if parent is None or ("L" if isinstance(parts[-1], int) else "M") not in parent:
        raise validation(
            "The document path provided in the update expression is invalid for update"
        )


def _combined(
    action: AddAction | DeleteAction, item: Item, update: Update
) -> AttributeValue | None:
    """Return what ADD or DELETE leaves at a path; None: nothing."""
    old = resolve(action.path, item)
    operand = update.values[action.value.name]
    kind = type_of(operand)
    if old is not None and kind not in old:
        if update.is_legacy:
            raise validation("Type mismatch for attribute to update")
        raise _wrong_operand()
    if isinstance(action, DeleteAction):
        if old is None:
            return None
        gone = set(operand[kind])
        left = [element for element in old[kind] if element not in gone]
        return {kind: left} if left else None
    if old is None:
        return operand
    if kind == "N":
        return {"N": total(old["N"], "+", operand["N"])}
    if kind in SETS:
        present = set(old[kind])
        return {kind: old[kind] + [new for new in operand[kind] if new not in present]}
    return {kind: old[kind] + operand[kind]}


def _members(
    branch: Branch, members: Mapping[str, AttributeValue], results: list[AttributeValue | None]
) -> dict[str, AttributeValue]:
    """Return the members of a map, or the attributes of an item, after the update."""
    new = dict(members)
    for name, child in branch.children.items():
        assert isinstance(name, str)
        result = results[child] if isinstance(child, int) else _rebuilt(child, new[name], results)
        if result is None:
            new.pop(name, None)
        else:
            new[name] = result
    return new


def _elements(
    branch: Branch, elements: list[AttributeValue], results: list[AttributeValue | None]
) -> list[AttributeValue]:
    """Return the elements of a list after the update."""
    new: list[AttributeValue | None] = list(elements)
    for index, child in sorted(branch.children.items(), key=_place):
        assert isinstance(index, int)
        if not isinstance(child, int):
            new[index] = _rebuilt(child, elements[index], results)
        elif index < len(elements):
            new[index] = results[child]
        else:
            new.append(results[child])
    return [element for element in new if element is not None]


def _place(child: tuple[str | int, Any]) -> int:
    return int(child[0])


def _rebuilt(
    branch: Branch, value: AttributeValue, results: list[AttributeValue | None]
) -> AttributeValue:
    """Return a document after the update; that the paths fit it has been looked at."""
    if "M" in value:
        return {"M": _members(branch, value["M"], results)}
    return {"L": _elements(branch, value["L"], results)}


def _check_levels(value: AttributeValue, level: int) -> None:
    """Refuse a value that reaches too deep if it stands at `level`; it is no more than 32 deep."""
    for kind, content in value.items():
        if kind not in ("L", "M"):
            return
        if level >= LEVELS_MAX:
            raise too_deep()
        for element in content if kind == "L" else content.values():
            _check_levels(element, level + 1)


def _too_large() -> DynamoError:
    return validation("Item size to update has exceeded the maximum allowed size")


def _wrong_operand() -> DynamoError:
    return validation("An operand in the update expression has an incorrect data type")

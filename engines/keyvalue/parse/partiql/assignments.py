"""SET and REMOVE of an UPDATE -> the tree that updates of other operations have too.

SET a = 1 SET b.c = b.c + ?, d = list_append(d, ['x']) SET e = set_add(e, <<1>>) REMOVE f[0]
"""

from __future__ import annotations

from collections.abc import Mapping

from engines.keyvalue.parse.expressions.checks import OfType, branches
from engines.keyvalue.parse.expressions.trees import (
    Action,
    AddAction,
    Arithmetic,
    DeleteAction,
    ListAppend,
    NewValue,
    Path,
    RemoveAction,
    SetAction,
    Update,
    Value,
)
from engines.keyvalue.parse.partiql.terms import Reader
from engines.keyvalue.parse.partiql.tokens import malformed, unexpected

ACTIONS_MAX = 300
_SETS = frozenset(("SS", "NS", "BS"))
_SET_ACTIONS: Mapping[str, type[AddAction | DeleteAction]] = {
    "set_add": AddAction,
    "set_delete": DeleteAction,
}


def assignments(reader: Reader) -> Update:
    """Take all that is set and removed. Raises DynamoError."""
    reader.heads, reader.nested = set(), set()
    actions: list[Action] = []
    while True:
        if reader.took("SET"):
            read = _set
        elif reader.took("REMOVE"):
            read = _remove
        else:
            break
        actions.append(read(reader))
        while reader.took_symbol(","):
            actions.append(read(reader))
    if not actions:
        raise unexpected(reader.token)
    if len(actions) > ACTIONS_MAX:
        raise malformed(f"An UPDATE has at most {ACTIONS_MAX} actions")
    branch, clash = branches([action.path for action in actions])
    if clash is not None:
        raise malformed(clash)
    return Update(tuple(actions), reader.values, branch, frozenset(reader.nested))


def _remove(reader: Reader) -> Action:
    return RemoveAction(reader.path())


def _set(reader: Reader) -> Action:
    path = reader.path()
    reader.expect_symbol("=")
    if reader.is_call() and reader.token.text.lower() in _SET_ACTIONS:
        return _set_action(reader, path)
    value = _operand(reader)
    if reader.is_symbol("+", "-"):
        op = reader.next().text
        value = Arithmetic(op, value, _operand(reader))
        _check(reader, op, "N", value.left, value.right)
    return SetAction(path, value)


def _set_action(reader: Reader, target: Path) -> Action:
    name = reader.next().text.lower()
    reader.expect_symbol("(")
    if reader.path() != target:
        raise malformed(f"The first operand of {name} must be the path that is set")
    reader.expect_symbol(",")
    value = reader.constant()
    reader.expect_symbol(")")
    problem = OfType(value.name, _SETS, name).problem(reader.values)
    if problem is not None:
        raise malformed(problem)
    return _SET_ACTIONS[name](target, value)


def _operand(reader: Reader) -> NewValue:
    if reader.is_constant():
        return reader.constant()
    if not reader.is_call():
        return reader.path()
    name = reader.next().text
    if name.lower() != "list_append":
        raise malformed(f"Unsupported function: {name}")
    reader.expect_symbol("(")
    reader.deeper()
    left = _operand(reader)
    reader.expect_symbol(",")
    right = _operand(reader)
    reader.back()
    reader.expect_symbol(")")
    _check(reader, "list_append", "L", left, right)
    return ListAppend(left, right)


def _check(reader: Reader, operator: str, kind: str, *operands: NewValue) -> None:
    for operand in operands:
        if isinstance(operand, Value):
            problem = OfType(operand.name, frozenset((kind,)), operator).problem(reader.values)
            if problem is not None:
                raise malformed(problem)

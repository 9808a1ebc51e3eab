"""hypothesis strategies of PartiQL: statements as texts with parameters, and what they mean."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from engines.keyvalue.parse.expressions.trees import (
    Action,
    AddAction,
    And,
    Arithmetic,
    Between,
    Compare,
    DeleteAction,
    Function,
    In,
    ListAppend,
    Not,
    Operand,
    Or,
    Path,
    RemoveAction,
    SetAction,
    Size,
    Test,
    Value,
    Values,
)
from tests.engines.keyvalue.expression_texts import VALUES, actions, conditions, paths

_MISSING = {"attribute_exists": "IS NOT MISSING", "attribute_not_exists": "IS MISSING"}


def meant(node: Any, values: Values) -> Any:
    """Return a tree with values in the place of their names."""
    if isinstance(node, Value):
        return values[node.name]
    if isinstance(node, tuple):
        return tuple(meant(each, values) for each in node)
    if dataclasses.is_dataclass(node):
        fields = dataclasses.fields(node)
        return type(node), *(meant(getattr(node, field.name), values) for field in fields)
    return node


def holds(node: Any, unwanted: Any) -> bool:
    """Say whether a tree has a node that `unwanted` says so of."""
    if unwanted(node):
        return True
    if isinstance(node, tuple):
        return any(holds(each, unwanted) for each in node)
    if dataclasses.is_dataclass(node):
        return any(holds(getattr(node, each.name), unwanted) for each in dataclasses.fields(node))
    return False


class Printer:
    """Prints trees as PartiQL; `parameters` are what its question marks stand for."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.parameters: list[dict[str, Any]] = []

    def one_of(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def word(self, text: str) -> str:
        return self.one_of(text, text.lower(), text.title())

    def name(self, text: str) -> str:
        quoted = '"' + text.replace('"', '""') + '"'
        is_plain = text in ("a", "b", "c", "x")
        return self.one_of(text, quoted) if is_plain else quoted

    def path(self, path: Path) -> str:
        text = self.name(str(path.parts[0]))
        for part in path.parts[1:]:
            text += f"[{part}]" if isinstance(part, int) else f".{self.name(part)}"
        return text

    def constant(self, value: dict[str, Any]) -> str:
        ((kind, content),) = value.items()
        if kind in ("B", "BS") or self.draw(st.integers(0, 3)) == 0:
            self.parameters.append(value)
            return "?"
        if kind == "S":
            return "'" + content.replace("'", "''") + "'"
        if kind == "N":
            return str(content)
        if kind in ("BOOL", "NULL"):
            return self.word("NULL" if kind == "NULL" else "TRUE" if content else "FALSE")
        if kind == "L":
            return "[" + ", ".join(map(self.constant, content)) + "]"
        if kind == "M":
            members = [
                f"'{name.replace(chr(39), chr(39) * 2)}' : {self.constant(each)}"
                for name, each in content.items()
            ]
            return "{" + ",".join(members) + "}"
        return "<<" + ", ".join(self.constant({kind[0]: each}) for each in content) + ">>"

    def operand(self, operand: Operand) -> str:
        if isinstance(operand, Size):
            return f"{self.word('SIZE')}({self.operand(operand.of)})"
        if isinstance(operand, Path):
            return self.path(operand)
        return self.constant(VALUES[operand.name])

    def test(self, test: Test) -> str:
        match test:
            case And(terms):
                return f" {self.word('AND')} ".join(map(self.term, terms))
            case Or(terms):
                return f" {self.word('OR')} ".join(map(self.term, terms))
            case Not(term):
                return f"{self.word('NOT')} {self.term(term)}"
            case Compare(op, left, right):
                op = self.one_of("<>", "!=") if op == "<>" else op
                return f"{self.operand(left)}{self.one_of(' ', '')}{op} {self.operand(right)}"
            case Between(of, low, high):
                first, lowest = self.operand(of), self.operand(low)
                bounds = f"{lowest} {self.word('AND')} {self.operand(high)}"
                return f"{first} {self.word('BETWEEN')} {bounds}"
            case In(of, options):
                first = self.operand(of)
                shown = ", ".join(map(self.operand, options))
                listed = f"[{shown}]" if self.draw(st.booleans()) else f"({shown})"
                return f"{first} {self.word('IN')} {listed}"
            case Function(name, args) if name in _MISSING:
                return f"{self.operand(args[0])} {_MISSING[name]}"
            case Function(name, args):
                return f"{self.word(name)}({', '.join(map(self.operand, args))})"

    def term(self, test: Test) -> str:
        text = self.test(test)
        return f"({text})" if isinstance(test, And | Or) else self.one_of(text, f"( {text})")

    def new_value(self, value: Any) -> str:
        match value:
            case Arithmetic(op, left, right):
                return f"{self.new_value(left)} {op} {self.new_value(right)}"
            case ListAppend(left, right):
                return f"list_append({self.new_value(left)}, {self.new_value(right)})"
        return self.operand(value)

    def action(self, action: Action) -> str:
        path = self.path(action.path)
        match action:
            case RemoveAction():
                return f"{self.word('REMOVE')} {path}"
            case SetAction(_, value):
                return f"{self.word('SET')} {path} = {self.new_value(value)}"
            case AddAction(target, value):
                call = "set_add"
            case DeleteAction(target, value):
                call = "set_delete"
        shown = f"{call}({self.path(target)}, {self.operand(value)})"
        return f"{self.word('SET')} {path} = {shown}"


def _is_strange(node: Any) -> bool:
    """Say what these languages do not share: sizes of constants, and ADD of numbers."""
    if isinstance(node, Size):
        return not isinstance(node.of, Path)
    if isinstance(node, AddAction):
        return "N" in VALUES[node.value.name]
    return type(node).__name__ == "IfNotExists"


@st.composite
def where_texts(draw: st.DrawFn) -> tuple[Test, str, list[dict[str, Any]]]:
    """Draw a condition, a text of it and its parameters."""
    test = draw(conditions.filter(lambda test: not holds(test, _is_strange)))
    printer = Printer(draw)
    return test, printer.test(test), printer.parameters


@st.composite
def assignment_texts(draw: st.DrawFn) -> tuple[Action, str, list[dict[str, Any]]]:
    """Draw an action of an update, a text of it and its parameters."""
    action = draw(actions.filter(lambda action: not holds(action, _is_strange)))
    printer = Printer(draw)
    return action, printer.action(action), printer.parameters


@st.composite
def path_texts(draw: st.DrawFn) -> tuple[tuple[Path, ...], str]:
    """Draw the paths of a SELECT and a text of them."""
    found = draw(st.lists(paths, min_size=1, max_size=4).map(tuple))
    return found, ", ".join(map(Printer(draw).path, found))

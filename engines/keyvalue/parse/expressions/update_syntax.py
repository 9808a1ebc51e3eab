"""The texts of updates and projections -> their syntax, without names or meaning.

update     = SET path = value, ... | REMOVE path, ...
           | ADD path :value, ... | DELETE path :value, ...     (one or more, in any order)
value      = operand | operand + operand | operand - operand | (value)
operand    = path | :value | function(operand, ...) | (operand)
projection = path, ...
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engines.keyvalue.parse.expressions.condition_syntax import (
    FUNCTIONS,
    OPERATORS_MAX,
    UPDATE_FUNCTIONS,
    Node,
    too_many_operators,
    unknown_function,
)
from engines.keyvalue.parse.expressions.tokens import END, VALUE, Reader, invalid

SECTIONS = ("SET", "REMOVE", "ADD", "DELETE")
# Functions within functions. Each is an operator, of which an expression may have no more anyway.
_DEPTH_MAX = OPERATORS_MAX


@dataclass(slots=True)
class ActionSyntax:
    """One action; `value` is missing for REMOVE."""

    section: str
    path: Node
    value: Node | None = None


@dataclass(slots=True)
class UpdateSyntax:
    """A whole update. `sections` are in the order of the text, one that is repeated twice."""

    actions: list[ActionSyntax] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    operator_count: int = 0
    is_redundant: bool = False


class UpdateReader:
    """Reads one update. Use `read` once."""

    def __init__(self, label: str, text: str) -> None:
        self.reader = Reader(label, text)
        self.syntax = UpdateSyntax()

    def read(self) -> UpdateSyntax:
        """Return the syntax.

        Raises DynamoError for a text that is no update.
        """
        reader = self.reader
        while True:
            section = reader.kind
            if section not in SECTIONS:
                raise reader.syntax_error()
            reader.skip()
            self.syntax.sections.append(section)
            self._action(section)
            while reader.accept(","):
                self._action(section)
            if reader.kind == END:
                return self.syntax

    def _action(self, section: str) -> None:
        action = ActionSyntax(section, Node("path", parts=self.reader.path()))
        if section == "SET":
            self.reader.expect("=")
            action.value = self._value()
        elif section != "REMOVE":
            if self.reader.kind != VALUE:
                raise self.reader.syntax_error()
            action.value = Node("value", self.reader.take())
        self.syntax.actions.append(action)

    def _value(self) -> Node:
        """Take what SET assigns, in at most one pair of parentheses."""
        reader = self.reader
        depth = 0
        while reader.kind == "(":
            reader.skip()
            depth += 1
        closed = self._operand(depth=0)
        # Parentheses that close before an operator were around the operand alone.
        around = 0
        while around < depth and reader.accept(")"):
            around += 1
        node = closed
        if reader.kind in ("+", "-"):
            node = Node("arithmetic", reader.take(), [closed])
            self.syntax.operator_count += 1
            node.children.append(self._grouped_operand())
            outside = depth - around
            for _ in range(outside):
                reader.expect(")")
            if around > 1 or outside > 1:
                self.syntax.is_redundant = True
        elif around < depth:
            raise reader.syntax_error()
        elif depth > 1:
            self.syntax.is_redundant = True
        return node

    def _grouped_operand(self, depth: int = 0) -> Node:
        """Take an operand, in at most one pair of parentheses."""
        count = 0
        while self.reader.accept("("):
            count += 1
        node = self._operand(depth)
        for _ in range(count):
            self.reader.expect(")")
        if count > 1:
            self.syntax.is_redundant = True
        return node

    def _operand(self, depth: int) -> Node:
        reader = self.reader
        if reader.kind == VALUE:
            return Node("value", reader.take())
        if not reader.is_call:
            return Node("path", parts=reader.path())
        if depth == _DEPTH_MAX:
            name = reader.take()
            is_known = name in UPDATE_FUNCTIONS or name in FUNCTIONS
            raise invalid(
                reader.label, too_many_operators() if is_known else unknown_function(name)
            )
        call = Node("call", reader.take())
        reader.skip()
        self.syntax.operator_count += 1
        call.children.append(self._grouped_operand(depth + 1))
        while reader.accept(","):
            call.children.append(self._grouped_operand(depth + 1))
        reader.expect(")")
        return call


def read_projection(label: str, text: str) -> list[Node]:
    """Return the paths of a projection."""
    reader = Reader(label, text)
    paths = [Node("path", parts=reader.path())]
    while reader.accept(","):
        paths.append(Node("path", parts=reader.path()))
    if reader.kind != END:
        raise reader.syntax_error()
    return paths

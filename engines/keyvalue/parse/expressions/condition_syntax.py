"""The text of a condition -> its syntax tree, without names or meaning.

    condition = condition OR condition | condition AND condition | NOT condition | (condition)
              | operand < operand | operand BETWEEN operand AND operand | operand IN (operand, ...)
              | function
    operand   = path | :value | function | (operand)
    function  = name(operand, ...)

What a parenthesis holds shows only at its end, so one loop with a stack of open parentheses reads
both kinds; it also keeps deep texts from going deep in Python's stack. NOT binds tighter than AND,
AND than OR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engines.keyvalue.parse.expressions.tokens import END, VALUE, Reader

# Functions of conditions and how many operands they take.
FUNCTIONS: Mapping[str, int] = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
UPDATE_FUNCTIONS = frozenset(("if_not_exists", "list_append"))

# Limits of expressions, Developer Guide: "Operators and operands".
OPERATORS_MAX = 300
COMPARISONS = frozenset(("=", "<>", "<", "<=", ">", ">="))
_OPERANDS = frozenset(("path", "value"))
_CONDITIONS = frozenset(("and", "between", "compare", "in", "not", "or"))


class Node:
    """A node of a syntax tree.

    `kind` is one of path value call compare between in and or not arithmetic; `text` is the name of
    a value or function or the operator; `parts` belong to a path.
    """

    __slots__ = ("children", "kind", "parts", "text")

    def __init__(
        self,
        kind: str,
        text: str = "",
        children: list[Node] | None = None,
        parts: list[str | int] | None = None,
    ) -> None:
        self.kind = kind
        self.text = text
        self.children: list[Node] = [] if children is None else children
        self.parts: list[str | int] = [] if parts is None else parts


def post_order(root: Node) -> list[Node]:
    """Return a node and all below it, operands before their operators, from left to right."""
    nodes: list[Node] = []
    left = [root]
    while left:
        node = left.pop()
        nodes.append(node)
        left.extend(node.children)
    nodes.reverse()
    return nodes


@dataclass(slots=True)
class Syntax:
    """A whole expression. Parentheses are gone; `is_redundant` tells that some were doubled."""

    root: Node
    operator_count: int
    is_redundant: bool


@dataclass(slots=True)
class _Open:
    """What is open: the text itself, a parenthesis, or the arguments of a function or of IN.

    `pending` is a comparison whose right side is to come, `current` what was read last.
    """

    kind: str
    node: Node | None = None
    takes_operand: bool = False
    ors: list[Node] = field(default_factory=list)
    ands: list[Node] = field(default_factory=list)
    not_count: int = 0
    pending: Node | None = None
    current: Node | None = None
    current_is_group: bool = False


class ConditionReader:
    """Reads one condition. Use `read` once."""

    def __init__(self, label: str, text: str) -> None:
        self.reader = Reader(label, text)
        self.open: list[_Open] = [_Open("text")]
        self.operator_count = 0
        self.is_redundant = False

    def read(self) -> Syntax:
        """Return the tree.

        Raises DynamoError for a text that is no condition.
        """
        while True:
            self._operand()
            root = self._operators()
            if root is not None:
                return Syntax(root, self.operator_count, self.is_redundant)

    def _operand(self) -> None:
        """Take what may stand where an operand or condition begins, up to the end of it."""
        reader = self.reader
        while True:
            scope = self.open[-1]
            kind = reader.kind
            if kind == "NOT":
                if scope.takes_operand or scope.pending is not None:
                    raise reader.syntax_error()
                reader.skip()
                self.operator_count += 1
                scope.not_count += 1
            elif kind == "(":
                reader.skip()
                takes_operand = scope.takes_operand or scope.pending is not None
                self.open.append(_Open("group", takes_operand=takes_operand))
            elif reader.is_call:
                call = Node("call", reader.take())
                reader.skip()
                self.operator_count += 1
                self.open.append(_Open("arguments", call, takes_operand=True))
            else:
                scope.current = self._leaf()
                scope.current_is_group = False
                return

    def _leaf(self) -> Node:
        if self.reader.kind == VALUE:
            return Node("value", self.reader.take())
        return Node("path", parts=self.reader.path())

    def _operators(self) -> Node | None:
        """Take what follows an operand up to where the next begins; the root at the text's end."""
        reader = self.reader
        while True:
            scope = self.open[-1]
            kind = reader.kind
            if kind in COMPARISONS:
                self._begin_comparison(scope, Node("compare", kind))
                return None
            if kind == "BETWEEN":
                self._begin_comparison(scope, Node("between"))
                return None
            if kind == "IN":
                node = self._begin_comparison(scope, Node("in"))
                reader.expect("(")
                self.open.append(_Open("arguments", node, takes_operand=True))
                return None
            if kind in ("AND", "OR"):
                self._connect(scope, kind)
                return None
            if kind == "," and scope.kind == "arguments":
                self._argument(scope)
                reader.skip()
                return None
            if kind == ")" and scope.kind != "text":
                self._close(scope)
            elif kind in (".", "[") and scope.current_is_group:
                self._member(scope)
            elif kind == END and scope.kind == "text":
                return self._condition(scope)
            else:
                raise reader.syntax_error()

    def _begin_comparison(self, scope: _Open, node: Node) -> Node:
        current = scope.current
        assert current is not None
        if scope.takes_operand or scope.pending is not None or current.kind in _CONDITIONS:
            raise self.reader.syntax_error()
        self.reader.skip()
        self.operator_count += 1
        node.children.append(current)
        scope.pending = node
        return node

    def _connect(self, scope: _Open, kind: str) -> None:
        """Take an AND or OR."""
        pending = scope.pending
        assert scope.current is not None
        if kind == "AND" and pending and pending.kind == "between" and len(pending.children) == 1:
            pending.children.append(scope.current)
            self.reader.skip()
            return
        if scope.takes_operand:
            raise self.reader.syntax_error()
        scope.ands.append(self._term(scope))
        if kind == "OR":
            scope.ors.append(_joined("and", scope.ands))
            scope.ands = []
        self.reader.skip()
        self.operator_count += 1

    def _term(self, scope: _Open) -> Node:
        """Return the condition that ends here, with the NOTs before it."""
        node = scope.current
        assert node is not None
        if scope.pending is not None:
            pending = scope.pending
            if node.kind in _CONDITIONS or (
                pending.kind == "between" and len(pending.children) != 2
            ):
                raise self.reader.syntax_error()
            # The options of IN are there already: its node itself is `current`.
            pending.children.append(node)
            node = pending
            scope.pending = None
        elif node.kind in _OPERANDS:
            raise self.reader.syntax_error()
        for _ in range(scope.not_count):
            node = Node("not", children=[node])
        scope.not_count = 0
        return node

    def _condition(self, scope: _Open) -> Node:
        """Return all that stands in a scope, as a condition."""
        scope.ands.append(self._term(scope))
        scope.ors.append(_joined("and", scope.ands))
        return _joined("or", scope.ors)

    def _argument(self, scope: _Open) -> None:
        assert scope.node is not None
        assert scope.current is not None
        scope.node.children.append(scope.current)

    def _close(self, scope: _Open) -> None:
        """Take a closing parenthesis; what it closes becomes the current node around it."""
        if scope.kind == "arguments":
            self._argument(scope)
            node = scope.node
            assert node is not None
            is_group = False
        else:
            node, is_group = self._group(scope), True
        self.reader.skip()
        self.open.pop()
        outer = self.open[-1]
        outer.current = node
        outer.current_is_group = is_group
        if outer.pending is node:
            outer.pending = None

    def _group(self, scope: _Open) -> Node:
        """Return what a parenthesis holds: an operand or a condition."""
        node = scope.current
        assert node is not None
        is_alone = not (scope.ors or scope.ands or scope.not_count or scope.pending)
        if is_alone and scope.current_is_group:
            self.is_redundant = True
        if is_alone and (node.kind == "call" or node.kind in _OPERANDS):
            return node
        if scope.takes_operand:
            raise self.reader.syntax_error()
        return self._condition(scope)

    def _member(self, scope: _Open) -> None:
        """Take what looks into a path in parentheses: `(a.b).c`."""
        assert scope.current is not None
        if scope.current.kind != "path":
            raise self.reader.syntax_error()
        self.reader.path_rest(scope.current.parts)
        scope.current_is_group = False


def _joined(kind: str, nodes: list[Node]) -> Node:
    return nodes[0] if len(nodes) == 1 else Node(kind, children=nodes)


def misused(function: str) -> str:
    """Return the message for a condition as an operand, or the other way round."""
    return f"The function is not allowed to be used this way in an expression; function: {function}"


def unknown_function(name: str) -> str:
    """Return the message for a function that no expression has."""
    return f"Invalid function name; function: {name}"


def too_many_operators() -> str:
    """Return the message; DynamoDB stops counting at the first operator that is too many."""
    return f"The expression contains too many operators; operator count: {OPERATORS_MAX + 1}"

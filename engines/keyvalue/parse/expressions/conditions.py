"""The syntax of a condition -> its tree, and the checks that its values must pass.

Order of DynamoDB's checks: redundant parentheses, names of functions, count of operators, functions
in wrong places, reserved words; then, one comparison or function after the other: placeholders,
counts of operands, operands that are the same, types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.keyvalue.parse.expressions.bounds import BoundsInOrder
from engines.keyvalue.parse.expressions.checks import (
    IN_OPTIONS_MAX,
    REDUNDANT,
    Check,
    Defined,
    Fails,
    Names,
    OfType,
    Resolver,
    TypeName,
    first_wrong_name,
    needs_path,
    wrong_count,
    wrong_type,
)
from engines.keyvalue.parse.expressions.condition_syntax import (
    FUNCTIONS,
    OPERATORS_MAX,
    UPDATE_FUNCTIONS,
    Node,
    Syntax,
    misused,
    post_order,
    too_many_operators,
    unknown_function,
)
from engines.keyvalue.parse.expressions.trees import (
    And,
    Between,
    Compare,
    Function,
    In,
    Not,
    Operand,
    Or,
    Path,
    Size,
    Test,
    Value,
)

_ORDERED = frozenset(("S", "N", "B"))
_TEXTS = frozenset(("S", "B"))
_SIZED = frozenset(("S", "B", "SS", "NS", "BS", "L", "M"))
_CONNECTIVES = frozenset(("and", "not", "or"))


@dataclass(frozen=True, slots=True)
class ConditionPattern:
    """A condition for all requests of the same text and names.

    `checks` are all in order; `late` leaves out those of values being there.
    """

    test: Test
    checks: tuple[Check, ...]
    late: tuple[Check, ...]
    values: frozenset[str]
    heads: frozenset[str]
    nested: frozenset[str]


def condition_pattern(syntax: Syntax, names: Names) -> ConditionPattern:
    """Return the tree and checks of a condition."""
    early = _early_problem(syntax)
    resolver = Resolver(names)
    if early is not None:
        checks: list[Check] = [Fails(early)]
        return _pattern(_NEVER, checks, resolver)
    builder = _Builder(resolver)
    test = builder.test(syntax.root)
    return _pattern(test, builder.checks, resolver)


_NEVER = Or(())


def _pattern(test: Test, checks: Sequence[Check], resolver: Resolver) -> ConditionPattern:
    return ConditionPattern(
        test,
        tuple(checks),
        tuple(check for check in checks if not isinstance(check, Defined)),
        frozenset(resolver.values),
        frozenset(resolver.heads),
        frozenset(resolver.nested),
    )


def _early_problem(syntax: Syntax) -> str | None:
    """Return what is wrong with the expression as a whole."""
    if syntax.is_redundant:
        return REDUNDANT
    nodes = post_order(syntax.root)
    for node in nodes:
        if node.kind == "call" and node.text not in FUNCTIONS:
            if node.text in UPDATE_FUNCTIONS:
                return (
                    f"The function is not allowed in a condition expression; function: {node.text}"
                )
            return unknown_function(node.text)
    if syntax.operator_count > OPERATORS_MAX:
        return too_many_operators()
    for node in [*nodes, Node("and", children=[syntax.root])]:
        name = _misused_child(node)
        if name is not None:
            return misused(name)
    return first_wrong_name(node for node in nodes if node.kind == "path")


def _misused_child(node: Node) -> str | None:
    """Return a child that is a condition where an operand belongs, or the other way round."""
    is_connective = node.kind in _CONNECTIVES
    for child in node.children:
        if child.kind == "call" and (child.text == "size") is is_connective:
            return child.text
    return None


class _Builder:
    """Builds the tree and collects the checks, one comparison or function after the other."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.checks: list[Check] = []
        self.is_failed = False
        # The checks of the comparison at hand, by rank.
        self.placeholders: list[Check] = []
        self.counts: list[Check] = []
        self.same: list[Check] = []
        self.types: list[Check] = []

    def test(self, node: Node) -> Test:
        """Return the tree of a condition."""
        if node.kind == "and":
            return And(tuple([self.test(child) for child in node.children]))
        if node.kind == "or":
            return Or(tuple([self.test(child) for child in node.children]))
        if node.kind == "not":
            return Not(self.test(node.children[0]))
        test = self._single(node)
        self._rank()
        return test

    def _rank(self) -> None:
        """Put the checks of one comparison behind those of the earlier ones."""
        for checks in (self.placeholders, self.counts, self.same, self.types):
            for check in checks:
                if not self.is_failed:
                    self.checks.append(check)
                    self.is_failed = isinstance(check, Fails)
            checks.clear()

    def _single(self, node: Node) -> Test:
        operands = [self._operand(child) for child in node.children]
        if node.kind == "compare":
            self._distinct(node.text, operands)
            if node.text not in ("=", "<>"):
                self._typed(node.text, operands, _ORDERED)
            return Compare(node.text, operands[0], operands[1])
        if node.kind == "between":
            self._distinct("BETWEEN", operands)
            self._typed("BETWEEN", operands, _ORDERED)
            low, high = operands[1], operands[2]
            if isinstance(low, Value) and isinstance(high, Value):
                self.types.append(BoundsInOrder(low.name, high.name))
            return Between(operands[0], low, high)
        if node.kind == "in":
            count = len(operands) - 1
            if count > IN_OPTIONS_MAX:
                self.counts.append(
                    Fails(
                        "The IN operator is provided with too many operands; "
                        f"number of operands: {count}"
                    )
                )
            self._distinct("IN", operands)
            return In(operands[0], tuple(operands[1:]))
        self._check_call(node.text, operands)
        return Function(node.text, tuple(operands))

    def _operand(self, node: Node) -> Operand:
        if node.kind == "path":
            path, problem = self.resolver.path(node)
            if problem is not None:
                self.placeholders.append(Fails(problem))
            return path
        if node.kind == "value":
            self.resolver.values.add(node.text)
            self.placeholders.append(Defined(node.text))
            return Value(node.text)
        operands = [self._operand(child) for child in node.children]
        self._check_call(node.text, operands)
        return Size(operands[0])

    def _check_call(self, name: str, operands: list[Operand]) -> None:
        if len(operands) != FUNCTIONS[name]:
            self.counts.append(Fails(wrong_count(name, len(operands))))
            return
        self._distinct(name, operands)
        first = operands[0]
        if name in ("attribute_exists", "attribute_not_exists"):
            if not isinstance(first, Path):
                self.types.append(Fails(needs_path(name)))
        elif name == "size":
            self._typed(name, operands, _SIZED)
        elif name == "begins_with":
            self._typed(name, operands, _TEXTS)
        elif name == "attribute_type":
            second = operands[1]
            if isinstance(second, Value):
                self.types.append(TypeName(second.name))
            else:
                kind = "N" if isinstance(second, Size) else None
                self.types.append(Fails(wrong_type(name, kind)))

    def _distinct(self, operator: str, operands: list[Operand]) -> None:
        """Refuse a path that is compared with itself."""
        first = operands[0]
        if isinstance(first, Path) and first in operands[1:]:
            self.same.append(
                Fails(
                    "The first operand must be distinct from the remaining operands for this "
                    f"operator or function; operator: {operator}, first operand: {first}"
                )
            )

    def _typed(self, operator: str, operands: list[Operand], types: frozenset[str]) -> None:
        for operand in operands:
            if isinstance(operand, Value):
                self.types.append(OfType(operand.name, types, operator))
            elif isinstance(operand, Size) and "N" not in types:
                self.types.append(Fails(wrong_type(operator, "N")))

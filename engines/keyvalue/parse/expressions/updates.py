"""The syntax of an update or projection -> its tree, and the checks that its values must pass.

Order of DynamoDB's checks: redundant parentheses, reserved words, names and places of functions,
count of operators, repeated sections, undefined names, undefined values, overlapping and
conflicting paths, operands of ADD and DELETE, operands of functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.keyvalue.parse.expressions.checks import (
    REDUNDANT,
    Check,
    Defined,
    Fails,
    Names,
    OfType,
    Resolver,
    branches,
    first_wrong_name,
    needs_path,
    wrong_count,
)
from engines.keyvalue.parse.expressions.condition_syntax import (
    FUNCTIONS,
    OPERATORS_MAX,
    UPDATE_FUNCTIONS,
    Node,
    misused,
    post_order,
    too_many_operators,
    unknown_function,
)
from engines.keyvalue.parse.expressions.trees import (
    Action,
    AddAction,
    Arithmetic,
    Branch,
    DeleteAction,
    IfNotExists,
    ListAppend,
    NewValue,
    Path,
    Projection,
    RemoveAction,
    SetAction,
    Value,
)
from engines.keyvalue.parse.expressions.update_syntax import ActionSyntax, UpdateSyntax

_NO_BRANCH = Branch({})
_SETS = frozenset(("SS", "NS", "BS"))
_ACTION_TYPES: Mapping[str, frozenset[str]] = {"ADD": _SETS | {"N"}, "DELETE": _SETS}
# What types are called in messages about ADD and DELETE.
_TYPE_WORDS: Mapping[str, str] = {
    "S": "STRING",
    "N": "NUMBER",
    "B": "BINARY",
    "NULL": "NULL",
    "BOOL": "BOOLEAN",
    "L": "LIST",
    "M": "MAP",
}
_LISTS = frozenset("L")
_NUMBERS = frozenset("N")


@dataclass(frozen=True, slots=True)
class UpdatePattern:
    """An update for all requests of the same text and names; its parts are as in `Update`."""

    actions: tuple[Action, ...]
    checks: tuple[Check, ...]
    late: tuple[Check, ...]
    values: frozenset[str]
    branch: Branch
    nested: frozenset[str]


@dataclass(frozen=True, slots=True)
class ProjectionPattern:
    """A projection for all requests of the same text and names, or what is wrong with it."""

    projection: Projection
    problem: str | None


def update_pattern(syntax: UpdateSyntax, names: Names) -> UpdatePattern:
    """Return the actions and checks of an update."""
    early = _early_problem(syntax)
    if early is not None:
        fails = (Fails(early),)
        return UpdatePattern((), fails, fails, frozenset(), _NO_BRANCH, frozenset())
    builder = _Builder(Resolver(names))
    actions = tuple(builder.action(action) for action in syntax.actions)
    # Only paths that are right have a tree: others may be as deep as the text is long.
    branch, clash = _NO_BRANCH, None
    if not builder.names:
        branch, clash = branches([action.path for action in actions])
    clashes = [Fails(clash)] if clash is not None else []
    checks: list[Check] = []
    for check in (
        *builder.names,
        *builder.values,
        *clashes,
        *builder.operands,
        *builder.functions,
    ):
        checks.append(check)
        if isinstance(check, Fails):
            break
    return UpdatePattern(
        actions,
        tuple(checks),
        tuple(check for check in checks if not isinstance(check, Defined)),
        frozenset(builder.resolver.values),
        branch,
        frozenset(builder.resolver.nested),
    )


def projection_pattern(nodes: list[Node], names: Names) -> ProjectionPattern:
    """Return the paths of a projection."""
    resolver = Resolver(names)
    problem = first_wrong_name(nodes)
    paths = []
    for node in nodes:
        path, path_problem = resolver.path(node)
        problem = problem or path_problem
        paths.append(path)
    branch = _NO_BRANCH
    if problem is None:
        branch, problem = branches(paths)
    projection = Projection(tuple(paths), branch, frozenset(resolver.nested))
    return ProjectionPattern(projection, problem)


def _early_problem(syntax: UpdateSyntax) -> str | None:
    """Return what is wrong with the expression as a whole."""
    if syntax.is_redundant:
        return REDUNDANT
    nodes: list[Node] = []
    for action in syntax.actions:
        nodes.append(action.path)
        if action.value is not None:
            nodes += post_order(action.value)
    wrong = first_wrong_name(node for node in nodes if node.kind == "path")
    if wrong is not None:
        return wrong
    for node in nodes:
        if node.kind == "call" and node.text not in UPDATE_FUNCTIONS:
            if node.text in FUNCTIONS:
                return f"The function is not allowed in an update expression; function: {node.text}"
            return unknown_function(node.text)
        if node.text == "list_append" and any(child.text == node.text for child in node.children):
            return misused(node.text)
    if syntax.operator_count > OPERATORS_MAX:
        return too_many_operators()
    for place, section in enumerate(syntax.sections):
        if section in syntax.sections[:place]:
            return f'The "{section}" section can only be used once in an update expression;'
    return None


class _Builder:
    """Builds the actions and collects the checks by rank."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.names: list[Check] = []
        self.values: list[Check] = []
        self.operands: list[Check] = []
        self.functions: list[Check] = []

    def action(self, syntax: ActionSyntax) -> Action:
        """Return the tree of one action."""
        path = self._path(syntax.path)
        if syntax.value is None:
            return RemoveAction(path)
        if syntax.section == "SET":
            return SetAction(path, self._value(syntax.value))
        value = self._placeholder(syntax.value)
        types = _ACTION_TYPES[syntax.section]
        self.operands.append(OfType(value.name, types, syntax.section, _TYPE_WORDS))
        return (AddAction if syntax.section == "ADD" else DeleteAction)(path, value)

    def _path(self, node: Node) -> Path:
        path, problem = self.resolver.path(node)
        if problem is not None:
            self.names.append(Fails(problem))
        return path

    def _placeholder(self, node: Node) -> Value:
        self.resolver.values.add(node.text)
        self.values.append(Defined(node.text))
        return Value(node.text)

    def _value(self, node: Node) -> NewValue:
        if node.kind == "path":
            return self._path(node)
        if node.kind == "value":
            return self._placeholder(node)
        operands = [self._value(child) for child in node.children]
        name = node.text
        if len(operands) != 2:
            self.functions.append(Fails(wrong_count(name, len(operands))))
            return operands[0]
        left, right = operands
        if node.kind == "arithmetic":
            self._typed(name, operands, _NUMBERS)
            return Arithmetic(name, left, right)
        if name == "list_append":
            self._typed(name, operands, _LISTS)
            return ListAppend(left, right)
        if isinstance(left, Path):
            return IfNotExists(left, right)
        self.functions.append(Fails(needs_path(name)))
        return right

    def _typed(self, operator: str, operands: list[NewValue], types: frozenset[str]) -> None:
        for operand in operands:
            if isinstance(operand, Value):
                self.functions.append(OfType(operand.name, types, operator))

"""What is wrong with an expression: its names, places, counts and types, in DynamoDB's words.

An expression is looked at once for all requests of the same text and names; the values come later.
So a look leaves a list of checks in the order in which DynamoDB would make them; one that is
decided already (`Fails`) ends the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engines.keyvalue.parse.expressions.condition_syntax import Node
from engines.keyvalue.parse.expressions.reserved import is_reserved
from engines.keyvalue.parse.expressions.trees import Branch, Path, Values
from engines.keyvalue.values import type_of

IN_OPTIONS_MAX = 100
PATH_PARTS_MAX = 32
INDEX_MAX = 2**31 - 1
# How much of a value its message repeats.
SHOWN_LENGTH_MAX = 1024

REDUNDANT = "The expression has redundant parentheses;"

Names = Mapping[str, str | None]

TYPE_NAMES = frozenset(("S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS"))
# Sets in messages; their order is that of a Java set, which clients cannot rely on.
_ANY_TYPE = "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}"
_VALID_TYPE_NAMES = "{B,NULL,SS,BOOL,L,BS,N,NS,S,M}"


class Check(Protocol):
    """Something that an expression's values may break."""

    def problem(self, values: Values) -> str | None:
        """Return the message, or None if all is well."""


@dataclass(slots=True)
class Fails:
    """Wrong whatever the values are."""

    message: str

    def problem(self, values: Values) -> str | None:
        """Return the message."""
        return self.message


@dataclass(slots=True)
class Defined:
    """The request must give this value."""

    name: str

    def problem(self, values: Values) -> str | None:
        """Return the message if it does not."""
        if self.name in values:
            return None
        return (
            "An expression attribute value used in expression is not defined; "
            f"attribute value: {self.name}"
        )


@dataclass(slots=True)
class OfType:
    """A value must be of one of the types; others have words of their own in the message."""

    name: str
    types: frozenset[str]
    operator: str
    words: Mapping[str, str] | None = None

    def problem(self, values: Values) -> str | None:
        """Return the message if it is of another type."""
        kind = type_of(values[self.name])
        if kind in self.types:
            return None
        if self.words is None:
            return wrong_type(self.operator, kind)
        return (
            "Incorrect operand type for operator or function; "
            f"operator: {self.operator}, operand type: {self.words[kind]}"
        )


@dataclass(slots=True)
class TypeName:
    """A value must be a string that is the name of a type."""

    name: str

    def problem(self, values: Values) -> str | None:
        """Return the message if it is not."""
        value = values[self.name]
        kind = type_of(value)
        if kind != "S":
            return wrong_type("attribute_type", kind)
        if value["S"] in TYPE_NAMES:
            return None
        return (
            f"Invalid attribute type name found; type: {value['S'][:SHOWN_LENGTH_MAX]}, "
            f"valid types: {_VALID_TYPE_NAMES}"
        )


def wrong_type(operator: str, kind: str | None) -> str:
    """Return the message for an operand of a wrong type; None: nothing is known of it."""
    return (
        "Incorrect operand type for operator or function; "
        f"operator or function: {operator}, operand type: {kind or _ANY_TYPE}"
    )


def wrong_count(function: str, count: int) -> str:
    """Return the message for a function with too few or too many operands."""
    return (
        "Incorrect number of operands for operator or function; "
        f"operator or function: {function}, number of operands: {count}"
    )


def needs_path(function: str) -> str:
    """Return the message for a function whose operand must be a document path."""
    return f"Operator or function requires a document path; operator or function: {function}"


def first_wrong_name(paths: Iterable[Node]) -> str | None:
    """Return what is wrong with the first reserved word or too large index of the paths."""
    for path in paths:
        for part in path.parts:
            if isinstance(part, int):
                if part > INDEX_MAX:
                    return f"List index is not within the allowable range; index: [{part}]"
            elif part[0] != "#" and is_reserved(part):
                return f"Attribute name is a reserved keyword; reserved keyword: {part}"
    return None


class Resolver:
    """Puts attribute names where paths have placeholders, and keeps what it meets.

    A path with an undefined name stays as it is: its message ends the list of checks, so nothing
    after it counts.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.heads: set[str] = set()
        self.nested: set[str] = set()
        self.values: set[str] = set()

    def path(self, node: Node) -> tuple[Path, str | None]:
        """Return the path, and what is wrong with its names."""
        parts: list[str | int] = []
        problem = None
        for part in node.parts:
            if isinstance(part, str) and part[0] == "#":
                name = self.names.get(part)
                if name is None:
                    problem = problem or (
                        "An expression attribute name used in the document path is not defined; "
                        f"attribute name: {part}"
                    )
                    name = part
                parts.append(name)
            else:
                parts.append(part)
        if problem is None and len(parts) > PATH_PARTS_MAX:
            problem = f"The document path has too many nesting levels; nesting levels: {len(parts)}"
        head = str(parts[0])
        self.heads.add(head)
        if len(parts) > 1:
            self.nested.add(head)
        return Path(tuple(parts)), problem


class _Fork:
    """A node while the paths of an expression are put into one tree.

    `first` is the place of the earliest path that comes through; `by_kind` those of the earliest
    that go on by a name, and by an index.
    """

    __slots__ = ("by_kind", "children", "end", "first")

    def __init__(self, first: int) -> None:
        self.first = first
        self.end: int | None = None
        self.children: dict[str | int, _Fork] = {}
        self.by_kind: dict[bool, int] = {}

    def frozen(self) -> Branch | int:
        """Return the tree that evaluation walks."""
        if self.end is not None:
            return self.end
        return self.branch()

    def branch(self) -> Branch:
        """Return the tree below this node."""
        return Branch({part: child.frozen() for part, child in self.children.items()})


def branches(paths: Sequence[Path]) -> tuple[Branch, str | None]:
    """Return the tree of paths, and the message if two of them cannot stand together.

    Of two that overlap, one is the other or lies in it; two conflict that take the same attribute
    for a map and a list. Overlaps are told of first.
    """
    root = _Fork(0)
    conflict = None
    for place, path in enumerate(paths):
        fork = root
        for part in path.parts:
            if fork.end is not None:
                return Branch({}), _clash("overlap", paths[fork.end], path)
            is_index = isinstance(part, int)
            other = fork.by_kind.get(not is_index)
            if other is not None and conflict is None:
                conflict = _clash("conflict", paths[other], path)
            fork.by_kind.setdefault(is_index, place)
            child = fork.children.get(part)
            if child is None:
                child = fork.children[part] = _Fork(place)
            fork = child
        if fork.end is not None or fork.children:
            return Branch({}), _clash("overlap", paths[fork.first], path)
        fork.end = place
    return root.branch(), conflict


def _clash(verb: str, one: Path, two: Path) -> str:
    return (
        f"Two document paths {verb} with each other; must remove or rewrite one of these paths; "
        f"path one: {one}, path two: {two}"
    )

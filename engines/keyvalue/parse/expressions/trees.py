"""What the expressions of a request mean, as `evaluate` walks it.

    b.c[0] = :x AND NOT size(d) > :n

    And((Compare("=", Path(("b", "c", 0)), Value(":x")),
         Not(Compare(">", Size(Path(("d",))), Value(":n")))))

Names are resolved: a path holds attribute names and list indexes. Values are not part of a tree, so
that one tree serves all requests of the same text; `Value(":x")` stands for `values[":x"]` of the
object that holds the root: `Condition`, `Update`. Nothing in a tree or among the values may be
changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from engines.keyvalue.values import AttributeValue, type_of

Parts: TypeAlias = tuple[str | int, ...]
Values: TypeAlias = Mapping[str, AttributeValue]

NO_VALUES: Values = {}


@dataclass(frozen=True, slots=True)
class Path:
    """A document path: an attribute's name, then names of map members and list indexes."""

    parts: Parts

    def __str__(self) -> str:
        """Return the path as DynamoDB shows it in messages: `[b, c, [0]]`."""
        shown = (part if isinstance(part, str) else f"[{part}]" for part in self.parts)
        return f"[{', '.join(shown)}]"


@dataclass(frozen=True, slots=True)
class Value:
    """The value that the request gives under this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a value: characters, bytes, or count of elements."""

    of: Operand


Operand: TypeAlias = Path | Value | Size


@dataclass(frozen=True, slots=True)
class Compare:
    """`op` is one of = <> < <= > >=."""

    op: str
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class Between:
    """`of` lies between `low` and `high`, both included."""

    of: Operand
    low: Operand
    high: Operand


@dataclass(frozen=True, slots=True)
class In:
    """`of` equals one of the options."""

    of: Operand
    options: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A function that is a condition: attribute_exists, attribute_not_exists, attribute_type,
    begins_with, contains; of the legacy parameters also not_contains."""

    name: str
    args: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class And:
    """All terms are true."""

    terms: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of the terms is true."""

    terms: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The term is not true."""

    term: Test


Test: TypeAlias = Compare | Between | In | Function | And | Or | Not


class Condition(NamedTuple):
    """A ConditionExpression or FilterExpression, or a legacy parameter of the same meaning.

    `heads` are the names of the top-level attributes it looks at, `nested` those of them that it
    looks into.
    """

    test: Test
    values: Values
    heads: frozenset[str] = frozenset()
    nested: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KeyTest:
    """One key attribute's condition.

    `op` is one of = < <= > >= between begins_with; of KeyConditions also those that no index can
    serve: <> in contains not_contains exists not_exists. `values`: two of between, else one.
    """

    name: str
    op: str
    values: tuple[AttributeValue, ...]


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """A KeyConditionExpression or KeyConditions: one test for each attribute, in their order.

    Which attributes, operators and types a table or index takes is not known here.
    """

    tests: tuple[KeyTest, ...]


@dataclass(frozen=True, slots=True)
class IfNotExists:
    """The value at `path`, or `other` where there is none."""

    path: Path
    other: NewValue


@dataclass(frozen=True, slots=True)
class ListAppend:
    """A list, and behind it the elements of another."""

    left: NewValue
    right: NewValue


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A sum or difference; `op` is + or -."""

    op: str
    left: NewValue
    right: NewValue


NewValue: TypeAlias = Path | Value | IfNotExists | ListAppend | Arithmetic


@dataclass(frozen=True, slots=True)
class SetAction:
    """SET path = value. All values are those before the update."""

    path: Path
    value: NewValue


@dataclass(frozen=True, slots=True)
class RemoveAction:
    """REMOVE path."""

    path: Path


@dataclass(frozen=True, slots=True)
class AddAction:
    """ADD path value: to a number, or to a set."""

    path: Path
    value: Value


@dataclass(frozen=True, slots=True)
class DeleteAction:
    """DELETE path value: from a set."""

    path: Path
    value: Value


Action: TypeAlias = SetAction | RemoveAction | AddAction | DeleteAction


@dataclass(frozen=True, slots=True)
class Branch:
    """The paths of several actions or of a projection as a tree.

    A child is a branch, or a path's end: its place among the actions or paths.
    """

    children: Mapping[str | int, Branch | int]


class Update(NamedTuple):
    """An UpdateExpression, its actions in the order of the text; no two paths overlap.

    `nested` are the names of the attributes that it looks into or changes in part. `branch` is the
    tree of the actions' paths. `is_legacy`: the words of AttributeUpdates for a type mismatch.
    """

    actions: tuple[Action, ...]
    values: Values
    branch: Branch
    nested: frozenset[str] = frozenset()
    is_legacy: bool = False

    @property
    def heads(self) -> frozenset[str]:
        """Return the names of the top-level attributes that are changed, wholly or in part."""
        return frozenset(str(name) for name in self.branch.children)

    @property
    def makes_item(self) -> bool:
        """Say whether an absent item comes to be; not by taking something away from it."""
        return not self.actions or any(
            isinstance(action, SetAction | AddAction) for action in self.actions
        )

    def new_types(self) -> Iterator[tuple[str, str]]:
        """Yield (attribute, type) of each attribute that gets, as a whole, a type known already."""
        for action in self.actions:
            if len(action.path.parts) == 1 and not isinstance(action, RemoveAction):
                kind = static_type(action.value, self.values)
                if kind:
                    yield str(action.path.parts[0]), kind


def static_type(value: NewValue, values: Values) -> str:
    """Return the type that a value has whatever the item is, or ""."""
    match value:
        case Value(name):
            return type_of(values[name])
        case IfNotExists(_, other):
            return static_type(other, values)
        case ListAppend():
            return "L"
        case Arithmetic():
            return "N"
        case Path():
            return ""


@dataclass(frozen=True, slots=True)
class Projection:
    """A ProjectionExpression or AttributesToGet; no two paths overlap.

    `nested` are the names of the attributes of which only a part is asked for.
    """

    paths: tuple[Path, ...]
    branch: Branch
    nested: frozenset[str] = frozenset()

    @property
    def heads(self) -> frozenset[str]:
        """Return the names of the top-level attributes that are asked for, wholly or in part."""
        return frozenset(str(name) for name in self.branch.children)


class Expressions(NamedTuple):
    """The expressions of one request; None for those that it has not."""

    condition: Condition | None = None
    filter: Condition | None = None
    key_condition: KeyCondition | None = None
    projection: Projection | None = None
    update: Update | None = None


NOTHING = Expressions()

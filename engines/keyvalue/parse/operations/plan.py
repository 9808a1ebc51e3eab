"""What an operation's table is, and the request that comes of it.

An operation has the shape of its fields, checks that come before the constraints (`before`), and
steps, which look at the request as a whole in the order in which DynamoDB does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines.keyvalue.parse.expressions.trees import NOTHING, Expressions
from engines.keyvalue.parse.shapes import Shape

Fields = dict[str, Any]


@dataclass(slots=True)
class Parsed:
    """A checked request.

    `fields` are the members as the service model names them, tables by name, all attribute values
    canonical. `expressions` are those of the request itself, `parts` those of a batch's entries
    or a transaction's, in their order. `table_arns` are the ARNs that stood where
    `fields` has names: whoever knows region and account compares them.
    """

    fields: Fields
    expressions: Expressions = NOTHING
    parts: list[Expressions] = field(default_factory=list)
    table_arns: list[str] = field(default_factory=list)


Step = Callable[[Parsed], None]
Before = Callable[[Fields], None]


@dataclass(frozen=True, slots=True)
class Operation:
    """The table of one operation."""

    shape: Shape
    steps: Sequence[Step] = ()
    before: Before | None = None

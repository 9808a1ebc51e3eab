"""What a statement of PartiQL says; conditions and updates are those of DynamoDB's expressions.

SELECT b.c FROM "t"."i" WHERE a = 'x' ORDER BY d DESC
Select("t", "i", (Path(("b", "c")),), Condition(...), (("d", False),))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from engines.keyvalue.parse.expressions import trees
from engines.keyvalue.parse.expressions.trees import Condition, Path
from engines.keyvalue.values import Item


@dataclass(frozen=True, slots=True)
class Select:
    """`paths` is None for `*`; `order` has names, and whether their order is ascending."""

    table: str
    index: str | None
    paths: tuple[Path, ...] | None
    where: Condition | None
    order: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Insert:
    """A new item."""

    table: str
    item: Item


@dataclass(frozen=True, slots=True)
class Update:
    """`returning` is a ReturnValues of UpdateItem: NONE, ALL_OLD, UPDATED_NEW ..."""

    table: str
    update: trees.Update
    where: Condition
    returning: str = "NONE"


@dataclass(frozen=True, slots=True)
class Delete:
    """`returning` is NONE or ALL_OLD."""

    table: str
    where: Condition
    returning: str = "NONE"


@dataclass(frozen=True, slots=True)
class Exists:
    """A condition of a transaction: the item that is selected is there."""

    select: Select

    @property
    def table(self) -> str:
        """The table."""
        return self.select.table


Statement: TypeAlias = Select | Insert | Update | Delete | Exists

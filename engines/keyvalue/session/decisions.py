"""What becomes of one item: conditions, puts, updates and deletes as `Decide`s.

Each is asked with the item as it is (None: there is none), may be asked again with a newer one, and
returns the item that is to be stored, or None.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.keyvalue.capacity import ITEM_BYTES_MAX, item_size
from engines.keyvalue.errors import conditional_failed, duplicate_item, validation
from engines.keyvalue.evaluate import conditions, updates
from engines.keyvalue.parse.expressions.trees import Condition, Update
from engines.keyvalue.plan import checks
from engines.keyvalue.plan.catalogue import Table
from engines.keyvalue.values import Item


@dataclass(frozen=True, slots=True)
class Check:
    """A condition, and whether its failure shows the item; `must_exist`: there must be one."""

    condition: Condition | None
    shows_item: bool = False
    must_exist: bool = False

    def __call__(self, old: Item | None) -> Item | None:
        """Return the item as it is. Raises DynamoError: the condition is false."""
        is_missed = self.must_exist and old is None
        if is_missed or (
            self.condition is not None and not conditions.matches(self.condition, old)
        ):
            raise conditional_failed(old if self.shows_item else None)
        return old


class Absent:
    """There must be no item: the condition of PartiQL's INSERT."""

    def __call__(self, old: Item | None) -> Item | None:
        """Return no item. Raises DynamoError: there is one."""
        if old is not None:
            raise duplicate_item()
        return None


@dataclass(frozen=True, slots=True)
class Put:
    """Store an item whatever was there."""

    check: Check | Absent
    item: Item

    def __call__(self, old: Item | None) -> Item:
        """Return the new item."""
        self.check(old)
        return self.item


@dataclass(frozen=True, slots=True)
class Delete:
    """Leave nothing."""

    check: Check

    def __call__(self, old: Item | None) -> None:
        """Return no item."""
        self.check(old)


@dataclass(slots=True)
class Change:
    """Change the item of `key`, or make it; `result` is what came of it last."""

    check: Check
    table: Table
    key: Item
    update: Update | None
    result: updates.UpdateResult | None = None

    def __call__(self, old: Item | None) -> Item | None:
        """Return the changed item, or None if there is none and none is made.

        Raises DynamoError: an action cannot be done to this item.
        """
        self.check(old)
        if old is None and self.update is not None and not self.update.makes_item:
            self.result = None
            return None
        base = old if old is not None else dict(self.key)
        if self.update is None:
            return base
        self.result = updates.apply(self.update, base)
        checks.check_updated_index_keys(self.table, self.result.item)
        if item_size(self.result.item) > ITEM_BYTES_MAX:
            raise validation("Item size to update has exceeded the maximum allowed size")
        return self.result.item


def check_update(table: Table, update: Update) -> None:
    """Raise DynamoError for an update that no item of the table can have."""
    checks.check_updated_names(table, update.heads)
    checks.check_new_types(table, update.new_types())
    checks.check_nested_names(table, update.nested)

"""One item is read, decided on and written: compare-and-swap on its version.

    read (item, ver) -> decide -> write where ver is still the same, or the key still absent

Tasks of this worker that write the same item wait for each other before they read, so a swap fails
only against other workers. After a few failures the row itself is locked, and the writer's turn
comes whatever the others do.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engines.keyvalue.plan.changes import change_body
from engines.keyvalue.plan.keys import KeyBytes
from engines.keyvalue.plan.rows import row_values
from engines.keyvalue.session.context import Known
from engines.keyvalue.values import Item, decode
from engines.kit.http.whole import HttpPorts
from engines.kit.ports import Statements, Store
from engines.kit.records import InstanceRecord

SWAPS_MAX = 3
VERSION_BITS = 63

# The new item, or None to delete; raises what the request is refused with.
Decide = Callable[[Item | None], Item | None]


class Writer(Protocol):
    """Who writes: a request's context, or work in the background."""

    @property
    def ports(self) -> HttpPorts:
        """What the worker offers."""
        ...

    @property
    def record(self) -> InstanceRecord:
        """The instance."""
        ...

    @property
    def store(self) -> Store:
        """Its tables."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """An item before and after a write, with the size before in bytes."""

    old: Item | None
    new: Item | None
    old_bytes: int


def new_version() -> int:
    """Return a version that no row has had: one that comes back would hide a change."""
    return secrets.randbits(VERSION_BITS)


async def write_item(
    context: Writer, known: Known, key: KeyBytes, decide: Decide, *, by_ttl: bool = False
) -> Written:
    """Replace, make or delete one item as `decide` says of what is there.

    `decide` may be asked again, with a newer item. Raises what it raises; RequestError.
    """
    lock = (context.record.instance_id, known.table.table_id, key.pk, key.rk)
    async with context.ports.hold(lock):
        for _ in range(SWAPS_MAX):
            written = await _swapped(context, known, key, decide, context.store, by_ttl=by_ttl)
            if written is not None:
                return written
        return await _locked(context, known, key, decide, by_ttl=by_ttl)


async def _locked(
    context: Writer, known: Known, key: KeyBytes, decide: Decide, *, by_ttl: bool
) -> Written:
    """Write while nobody else can; a key that is absent still has to be won by inserting it."""
    while True:
        async with context.store.transaction() as statements:
            written = await _swapped(context, known, key, decide, statements, True, by_ttl=by_ttl)
            if written is not None:
                return written


async def _swapped(
    context: Writer,
    known: Known,
    key: KeyBytes,
    decide: Decide,
    statements: Statements,
    locks: bool = False,
    *,
    by_ttl: bool,
) -> Written | None:
    """Try once; None if somebody else was quicker."""
    sql = known.sql
    where = (key.sk, key.pk, key.rk)
    rows = await statements.fetch(sql.lock if locks else sql.read, *where)
    old, version, old_bytes = None, 0, 0
    if rows:
        stored, version, old_bytes = rows[0]
        old = decode(stored)
    new = decide(old)
    written = Written(old, new, old_bytes)
    log: tuple[object, ...] = ()
    if known.table.stream_view:
        if old == new:
            return written
        body = change_body(known.table, old, new, context.ports.clock.now(), by_ttl=by_ttl)
        log = (body,)
    if new is None:
        if old is None:
            return written
        done = await statements.fetch(sql.remove, *where, version, *log)
    else:
        values = row_values(known.table, new, new_version())
        if old is None:
            done = await statements.fetch(sql.insert, *where, *values, *log)
        else:
            done = await statements.fetch(sql.swap, *where, *values, version, *log)
    return written if done else None

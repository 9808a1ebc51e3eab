"""Rows of the table `work`: what goes on in the background of an instance, and who does it now.

A row is free once `lease_until` has passed; whoever sets it higher has the lease, and loses it if
it is not set again in time. So work goes on after any worker's death, and a row that comes back
regularly is one whose lease ends when it is due again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from engines.keyvalue.plan.catalogue import Table
from engines.keyvalue.session.context import Known, Tables
from engines.keyvalue.storage import names
from engines.kit.http.whole import HttpPorts
from engines.kit.ports import Statements, Store
from engines.kit.records import InstanceRecord
from engines.kit.statement import Name, with_names

# Kinds of work.
INDEX = "index"  # fill and build a new global index
TTL = "ttl"  # fill expiry times, then delete what has expired
TRIM = "trim"  # delete what streams no longer show
BACKUP = "backup"  # copy a table's rows for a backup
RESTORE = "restore"  # copy a backup's rows into a new table

LEASE_S = 30.0

_ADD = (
    "INSERT INTO {work} (work_id, kind, table_id, body, lease_until) "
    "SELECT $1::int8, $2::text, $3::int8, $4::text::jsonb, 'epoch' "
    "WHERE NOT ($5::bool AND EXISTS (SELECT 1 FROM {work} WHERE sk = 0 AND kind = $2::text))"
)
_HAS = "SELECT 1 FROM {work} WHERE sk = 0 AND kind = $1::text AND table_id = $2::int8 LIMIT 1"
_DUE = (
    "SELECT work_id, kind, table_id, body::text, lease_until FROM {work} "
    "WHERE sk = 0 AND lease_until <= now() ORDER BY lease_until LIMIT 100"
)
# Equality with what was read makes this the swap: two that saw the same row do not both win.
_LEASE = (
    "UPDATE {work} SET lease_until = now() + make_interval(secs => $3::float8), "
    "body = $4::text::jsonb WHERE sk = 0 AND work_id = $1::int8 AND lease_until = $2::timestamptz "
    "RETURNING lease_until"
)
_DONE = (
    "DELETE FROM {work} WHERE sk = 0 AND work_id = $1::int8 AND lease_until = $2::timestamptz "
    "RETURNING 1"
)


class LostError(Exception):
    """Somebody else has the lease, or the work is no longer wanted."""


@dataclass(slots=True)
class Work:
    """A row; `body` is kept with each renewal of the lease."""

    work_id: int
    kind: str
    table_id: int
    body: dict[str, Any]
    lease_until: datetime


@dataclass(slots=True)
class Job:
    """One piece of work whose lease this worker has; what its performers are given."""

    ports: HttpPorts
    record: InstanceRecord
    store: Store
    tables: Tables
    work: Work

    async def keep(self, seconds: float = LEASE_S, statements: Statements | None = None) -> None:
        """Renew the lease and keep `work.body`, perhaps in a transaction; raises LostError."""
        await lease(statements or self.store, names(self.tables.schema), self.work, seconds)

    async def known(self, name: str) -> Known | None:
        """Return the table that the work is for as it is now; None if it is gone."""
        known = await self.tables.read(self.store, name)
        if known is None or known.table.table_id != self.work.table_id:
            return None
        return known

    async def table(self, name: str) -> Table | None:
        """Return the same without its statements."""
        known = await self.known(name)
        return None if known is None else known.table


async def add_work(
    schema: str,
    statements: Statements,
    kind: str,
    table_id: int,
    body: dict[str, Any],
    *,
    is_single: bool = False,
) -> None:
    """Add a row in the transaction of the change that makes it necessary.

    With `is_single` there is one of this kind in the instance at most.
    """
    text = with_names(_ADD, names(schema))
    stored = orjson.dumps(body).decode()
    await statements.execute(text, secrets.randbits(63), kind, table_id, stored, is_single)


async def has_work(statements: Statements, schema: str, kind: str, table_id: int) -> bool:
    """Say whether there is work of a kind for a table."""
    return bool(await statements.fetch(with_names(_HAS, names(schema)), kind, table_id))


async def due_work(store: Store, named: dict[str, Name]) -> Sequence[Work]:
    """Return what nobody does at this moment, longest due first."""
    rows = await store.fetch(with_names(_DUE, named))
    return [
        Work(work_id, kind, table_id, orjson.loads(body), lease_until)
        for work_id, kind, table_id, body, lease_until in rows
    ]


async def lease(
    statements: Statements, named: dict[str, Name], work: Work, seconds: float = LEASE_S
) -> None:
    """Take or renew the lease, and keep the work's body.

    Raises LostError.
    """
    rows = await statements.fetch(
        with_names(_LEASE, named),
        work.work_id,
        work.lease_until,
        seconds,
        orjson.dumps(work.body).decode(),
    )
    if not rows:
        raise LostError
    work.lease_until = rows[0][0]


async def done(statements: Statements, named: dict[str, Name], work: Work) -> None:
    """Remove a row whose lease is held; raises LostError if it is not."""
    if not await statements.fetch(with_names(_DONE, named), work.work_id, work.lease_until):
        raise LostError

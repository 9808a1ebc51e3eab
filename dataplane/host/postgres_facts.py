"""What is in a database: rows of each table, and a sum of their digests that knows no order.

Read by COPY, which calls nothing that a tenant has defined (a cast of its row type would run with
our rights), and passes by row level policies.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from dataplane.host.feed import Connection
from engines.kit.pg_tasks import TableFacts

# Unlogged tables are empty after every recovery, temporary ones nobody else's business.
TABLES = """
    SELECT n.nspname AS schema, c.relname AS name
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p'
        AND (n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
            OR c.oid = 'pg_largeobject'::regclass)
    ORDER BY 1, 2
"""
MASK = 2**64 - 1


@dataclass(slots=True)
class _Sum:
    """Rows in COPY's text format, counted and digested as they come."""

    rows: int = 0
    total: int = 0
    rest: bytes = b""

    def take(self, data: bytes) -> None:
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        self.rows += len(lines)
        total = self.total
        for line in lines:
            total += int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "big")
        self.total = total & MASK


async def table_facts(connection: Connection, check: Callable[[], None]) -> list[TableFacts]:
    """Read every table; `check` is called now and then and may raise."""
    found = []
    for row in await connection.fetch(TABLES):
        summed = _Sum()

        async def take(data: bytes, summed: _Sum = summed) -> None:
            check()
            await asyncio.to_thread(summed.take, data)

        await connection.copy_from_table(row["name"], schema_name=row["schema"], output=take)
        found.append(TableFacts(row["schema"], row["name"], summed.rows, f"{summed.total:016x}"))
    # Large objects are in a table of the system that is always there.
    return [each for each in found if each.schema != "pg_catalog" or each.rows]


def checksum_of(tables: list[TableFacts]) -> str:
    """Return one checksum of all tables."""
    digest = hashlib.sha256()
    for each in tables:
        digest.update(f"{each.schema!r} {each.name!r} {each.rows} {each.checksum}\n".encode())
    return digest.hexdigest()[:32]

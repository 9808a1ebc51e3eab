"""What is in a database: rows of each table, and a sum of their digests that knows no order.

Read by COPY, which calls nothing that a tenant has defined (a cast of its row type would run with
our rights), and passes by row level policies. A row may be as large as a gigabyte, so it is psql
that holds it, in a process of its own; to us it comes in pieces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from dataplane.host import template
from dataplane.host.bounds import MEBIBYTE
from dataplane.host.postgres_program import connection_arguments, running
from dataplane.host.work import Order
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
# An owner may have set anything for its database; what is said here goes before that.
OPTIONS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "bytea_output": "hex",
    "datestyle": "iso",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
}
READER = (
    f"dbname={template.DATABASE} client_encoding=UTF8 "
    f"options='{' '.join(f'-c {name}={value}' for name, value in OPTIONS.items())}'"
)
SYSTEM = "pg_catalog"
MASK = 2**64 - 1
DIGEST_BYTES = 8
# psql keeps the row that comes, and the one that it writes.
READER_BYTES_MAX = 3 * 1024 * MEBIBYTE


def table_facts(
    order: Order, socket: Path, workplace: Path, tables: Sequence[tuple[str, str]]
) -> list[TableFacts]:
    """Read every table (schema, name); blocks. Raises ProgramError, TaskCancelledError."""
    found = []
    for schema, name in tables:
        arguments: list[str | Path] = [
            *connection_arguments(socket), "--no-psqlrc", "--quiet", f"--dbname={READER}",
            f"--command=COPY {_quoted(schema)}.{_quoted(name)} TO STDOUT",
        ]  # fmt: skip
        program = order.settings.postgres_bin / "psql"
        with running(
            program, arguments, workplace, is_read=True, data_bytes=READER_BYTES_MAX
        ) as reading:
            rows, total = _summed(order, reading.chunks())
        # Large objects are in a table of the system that is always there.
        if schema != SYSTEM or rows:
            found.append(TableFacts(schema, name, rows, f"{total:016x}"))
    return found


def checksum_of(tables: Sequence[TableFacts]) -> str:
    """Return one checksum of all tables."""
    digest = hashlib.sha256()
    for each in tables:
        digest.update(f"{each.schema!r} {each.name!r} {each.rows} {each.checksum}\n".encode())
    return digest.hexdigest()[:32]


def _summed(order: Order, chunks: Iterator[bytes]) -> tuple[int, int]:
    """Count the lines of COPY's text format, and add up their digests."""
    rows = total = 0
    line = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for chunk in chunks:
        order.progress.check()
        *ends, begin = chunk.split(b"\n")
        for end in ends:
            line.update(end)
            total += int.from_bytes(line.digest(), "big")
            line = hashlib.blake2b(digest_size=DIGEST_BYTES)
        rows += len(ends)
        line.update(begin)
    return rows, total & MASK


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

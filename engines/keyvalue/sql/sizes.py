"""How many items a table has and how large they are: exact for a small one, else an estimate.

The first COUNTED_MAX rows are counted. Where there are more, what was found in those is multiplied:
up to the planner's own estimate of the rows (its last ANALYZE, at the table's length of today), or,
where there was no ANALYZE yet, by how much longer the table is than the part that was counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from engines.keyvalue.plan.catalogue import Table
from engines.keyvalue.plan.descriptions import Sizes
from engines.kit.ports import Row
from engines.kit.statement import Statement

COUNTED_MAX = 10_000

# The planner's rows and pages, and the pages of now.
_PLANNED = """
    SELECT ARRAY[c.reltuples, c.relpages, pg_relation_size(c.oid) / 8192]::float8[]
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relname = $2::text
"""
# How many pages the counted rows are in. They are not the first ones: PostgreSQL goes on where the
# last who read the table has stopped.
_PAGES = "count(DISTINCT (counted.ctid::text::point)[0])"


def sizes_statement(table: Table) -> Statement:
    """Ask for the sizes of a table and of its indexes; see `sizes_of`."""
    parts, columns = [], []
    for index in table.slots:
        k, r = f"k{index.slot}", f"r{index.slot}"
        present = f"{k if index.is_global else r} IS NOT NULL"
        # Of an index that does not hold everything the keys are counted.
        keys = f"octet_length(pk) + octet_length(rk) + coalesce(octet_length({r}), 0)"
        size = "size_bytes" if index.projection == "ALL" else keys
        parts.append(f"count(*) FILTER (WHERE {present})")
        parts.append(f"coalesce(sum({size}) FILTER (WHERE {present}), 0)::int8")
        columns += [k, r]
    listed = ", ".join(["size_bytes", "pk", "rk", *columns])
    counted = ", ".join(["count(*)", "coalesce(sum(size_bytes), 0)::int8", *parts])
    text = (
        f"SELECT ({_PLANNED}), {_PAGES}, {counted} "
        f"FROM (SELECT ctid, {listed} FROM {table.sql_name} LIMIT {COUNTED_MAX + 1}) counted"
    )
    return Statement(text, (table.sql_name.schema, table.sql_name.name))


def sizes_of(table: Table, rows: Sequence[Row]) -> Sizes:
    """Turn the row of `sizes_statement` into sizes."""
    planned, pages, items, size_bytes, *parts = rows[0]
    factor = 1.0
    if items > COUNTED_MAX and planned is not None:
        tuples, pages_then, pages_now = planned
        # A page of now has as many rows as one at the last ANALYZE.
        per_page = tuples / pages_then if tuples > 0 and pages_then else items / pages
        factor = max(1.0, per_page * pages_now / items)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return Sizes(
        items=round(items * factor),
        size_bytes=round(size_bytes * factor),
        indexes={
            index.slot: (round(count * factor), round(size * factor))
            for index, (count, size) in zip(table.slots, pairs, strict=True)
        },
    )

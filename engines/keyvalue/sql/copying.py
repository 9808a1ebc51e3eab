"""Rows from a table into a backup, and from a backup into a new table."""

from __future__ import annotations

from collections.abc import Sequence

from engines.keyvalue.storage import copied_columns
from engines.kit.statement import Name

ROWS_MAX = 5_000
BYTES_MAX = 8 * 1024 * 1024

# $1, $2: schema and name of a table -> its bytes, with what is stored apart from the rows.
TABLE_BYTES = """
    SELECT pg_table_size(c.oid)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relname = $2::text
"""
# A backup's rows have no version; a table's need one, and any will do for rows nobody has read.
_VERSIONS = "('x' || substr(md5(random()::text), 1, 15))::bit(60)::int8"


def copy_all(source: Name, target: Name, slots: Sequence[int]) -> str:
    """Return what copies a table into a backup by one statement."""
    columns = ", ".join(copied_columns(slots))
    return f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {source}"


def copy_page(source: Name, target: Name, slots: Sequence[int], *, into_table: bool) -> str:
    """Return what copies the next rows behind a key, $1, $2, $3 -> the last key, if there was one.

    Rows that are there already are left alone: a page may be copied again.
    """
    columns = ", ".join(copied_columns(slots))
    version, value = (", ver", f", {_VERSIONS}") if into_table else ("", "")
    return (
        f"WITH page AS (SELECT {columns} FROM (SELECT {columns}, sum(size_bytes) OVER "
        "(ORDER BY sk, pk, rk ROWS UNBOUNDED PRECEDING) - size_bytes AS bytes_before FROM ("
        f"SELECT {columns} FROM {source} WHERE (sk, pk, rk) > ($1::int4, $2::bytea, $3::bytea) "
        f"ORDER BY sk, pk, rk LIMIT {ROWS_MAX}) walked) summed "
        f"WHERE bytes_before < {BYTES_MAX}), "
        f"put AS (INSERT INTO {target} ({columns}{version}) SELECT {columns}{value} FROM page "
        "ON CONFLICT (sk, pk, rk) DO NOTHING) "
        "SELECT sk, pk, rk FROM page ORDER BY sk DESC, pk DESC, rk DESC LIMIT 1"
    )

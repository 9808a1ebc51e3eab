"""How rows that were there before are given what is new: columns of an index, expiry times.

Pages come in the order of the key and are bound by rows and bytes. An update takes only rows whose
version is still the one that was read: who wrote in between knew the new form of the table.
"""

from __future__ import annotations

from engines.keyvalue.plan.catalogue import Index
from engines.kit.statement import Name

ROWS_MAX = 500
BYTES_MAX = 4 * 1024 * 1024


def fill_page(table: Name) -> str:
    """Return the text of a page: $1, $2, $3 the key before -> sk, pk, rk, ver, exp, item."""
    columns = "sk, pk, rk, ver, exp, item"
    return (
        f"SELECT {columns} FROM (SELECT {columns}, sum(size_bytes) OVER (ORDER BY sk, pk, rk "
        "ROWS UNBOUNDED PRECEDING) - size_bytes AS bytes_before FROM ("
        f"SELECT {columns}, size_bytes FROM {table} "
        "WHERE (sk, pk, rk) > ($1::int4, $2::bytea, $3::bytea) "
        f"ORDER BY sk, pk, rk LIMIT {ROWS_MAX}) walked) summed "
        f"WHERE bytes_before < {BYTES_MAX} ORDER BY sk, pk, rk"
    )


def fill_index(table: Name, index: Index) -> str:
    """Return what fills the columns of an index: sk[], pk[], rk[], ver[], tie[], k[], r[]."""
    return (
        f"UPDATE {table} t SET tie = g.tie, k{index.slot} = g.k, r{index.slot} = g.r "
        "FROM unnest($1::int4[], $2::bytea[], $3::bytea[], $4::int8[], $5::int4[], $6::bytea[], "
        "$7::bytea[]) AS g (sk, pk, rk, ver, tie, k, r) "
        "WHERE t.sk = g.sk AND t.pk = g.pk AND t.rk = g.rk AND t.ver = g.ver"
    )


def fill_expiry(table: Name) -> str:
    """Return what fills expiry times: sk[], pk[], rk[], ver[], exp[]."""
    return (
        f"UPDATE {table} t SET exp = g.exp "
        "FROM unnest($1::int4[], $2::bytea[], $3::bytea[], $4::int8[], $5::int8[]) "
        "AS g (sk, pk, rk, ver, exp) "
        "WHERE t.sk = g.sk AND t.pk = g.pk AND t.rk = g.rk AND t.ver = g.ver"
    )


# Is there a b-tree of this name ($1, $2: schema, name), can it be used, and is it being built?
INDEX_STATE = """
    SELECT i.indisvalid,
           EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_create_index p
                   WHERE p.index_relid = i.indexrelid)
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relname = $2::text
"""


def expired_keys(table: Name) -> str:
    """Return the text: $1 now, $2 long ago (seconds since 1970), $3 limit -> sk, pk, rk."""
    return (
        f"SELECT sk, pk, rk FROM {table} WHERE exp IS NOT NULL AND exp <= $1::int8 "
        "AND exp > $2::int8 ORDER BY exp LIMIT $3::int8"
    )


def delete_expired(table: Name) -> str:
    """Return the text that deletes without a stream: $1 now, $2 long ago, $3 limit -> rows."""
    return (
        f"WITH old AS ({expired_keys(table)}) DELETE FROM {table} t USING old "
        "WHERE t.sk = old.sk AND t.pk = old.pk AND t.rk = old.rk AND t.exp <= $1::int8 RETURNING 1"
    )

"""A table's statements: the texts, made once for each shape, and the order of their values.

Values are only ever parameters. `$1, $2, $3` are the key (sk, pk, rk); what follows is said at each
text. A text that writes returns one row if it wrote, so the caller counts rows. With a stream the
log's entry is made by the same statement, from the row that was written, so both are there or none.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from engines.keyvalue.plan.catalogue import Table
from engines.keyvalue.plan.rows import COLUMNS
from engines.keyvalue.storage import stream_log
from engines.kit.statement import Name

_KEY = "sk = $1::int4 AND pk = $2::bytea AND rk = $3::bytea"
_TYPES = {"ver": "int8", "size_bytes": "int4", "page_bytes": "int4", "tie": "int4", "exp": "int8"}


@dataclass(frozen=True, slots=True)
class TableSql:
    """The statements of one table."""

    get: str  # -> item, size_bytes
    read: str  # -> item, ver, size_bytes
    lock: str  # the same, FOR UPDATE
    get_many: str  # $1 sk[], $2 pk[], $3 rk[] -> position from 1, item, size_bytes
    lock_many: str  # the same with ver, FOR UPDATE
    put: str  # key, COLUMNS.. -> size_bytes of the item before, or null
    insert: str  # key, COLUMNS.. -> a row if the key was absent
    swap: str  # key, COLUMNS.., ver before -> a row if it was
    remove: str  # key, ver before -> a row if it was
    delete: str  # key -> item, size_bytes
    put_many: str  # sk[], pk[], rk[], COLUMNS[].. -> a row for each item, size_bytes before
    collection_bytes: str  # $1 sk, $2 pk -> the size of all items of a partition key
    delete_many: str  # sk[], pk[], rk[] -> position, size_bytes


def table_sql(table: Table) -> TableSql:
    """Return the statements of a table at its shape; those of a stream append to its log."""
    slots = tuple(index.slot for index in table.slots)
    return _table_sql(table.sql_name, slots, table.table_id, bool(table.stream_view))


@functools.lru_cache(maxsize=1024)
def _table_sql(name: Name, slots: tuple[int, ...], table_id: int, has_stream: bool) -> TableSql:
    columns = list(COLUMNS)
    for slot in slots:
        columns += [f"k{slot}", f"r{slot}"]
    log = _log_clause(name, table_id) if has_stream else None
    # The entry of the log is the value behind all others.
    n = 3 + len(columns)
    values = ", ".join(f"${at}::{_type(column)}" for at, column in enumerate(columns, 4))
    listed = ", ".join(columns)
    row = f"({listed}) = ROW({values})"
    replaced = ", ".join(f"{column} = EXCLUDED.{column}" for column in columns)
    insert = (
        f"INSERT INTO {name} AS t (sk, pk, rk, {listed}) "
        f"VALUES ($1::int4, $2::bytea, $3::bytea, {values}) ON CONFLICT (sk, pk, rk)"
    )
    read = f"SELECT item, ver, size_bytes FROM {name} WHERE {_KEY}"
    return TableSql(
        get=f"SELECT item, size_bytes FROM {name} WHERE {_KEY}",
        read=read,
        lock=f"{read} FOR UPDATE",
        get_many=_many(name, "t.item, t.size_bytes", ""),
        lock_many=_many(name, "t.item, t.size_bytes, t.ver", " FOR UPDATE OF t"),
        put=(
            f"WITH old AS (SELECT size_bytes FROM {name} WHERE {_KEY}), "
            f"put AS ({insert} DO UPDATE SET {replaced} RETURNING 1) "
            "SELECT (SELECT size_bytes FROM old) FROM put"
        ),
        insert=_written(f"{insert} DO NOTHING RETURNING 1", log, n + 1),
        swap=_written(
            f"UPDATE {name} SET {row} WHERE {_KEY} AND ver = ${n + 1}::int8 RETURNING 1",
            log,
            n + 2,
        ),
        remove=_written(f"DELETE FROM {name} WHERE {_KEY} AND ver = $4::int8 RETURNING 1", log, 5),
        delete=f"DELETE FROM {name} WHERE {_KEY} RETURNING item, size_bytes",
        put_many=_put_many(name, columns, replaced),
        collection_bytes=(
            f"SELECT coalesce(sum(size_bytes), 0)::int8 FROM {name} "
            "WHERE sk = $1::int4 AND pk = $2::bytea"
        ),
        delete_many=(
            f"WITH gone AS (SELECT * FROM {_UNNESTED} ORDER BY sk, pk, rk) "
            f"DELETE FROM {name} t USING gone k "
            "WHERE t.sk = k.sk AND t.pk = k.pk AND t.rk = k.rk RETURNING k.i, t.size_bytes"
        ),
    )


_UNNESTED = "unnest($1::int4[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS k (sk, pk, rk, i)"


def _many(name: Name, selected: str, how: str) -> str:
    # In the order of keys, so that two of these wait for each other and never in a circle.
    return (
        f"SELECT k.i, {selected} FROM {_UNNESTED} JOIN {name} t "
        f"ON t.sk = k.sk AND t.pk = k.pk AND t.rk = k.rk ORDER BY t.sk, t.pk, t.rk{how}"
    )


def _put_many(name: Name, columns: Sequence[str], replaced: str) -> str:
    listed = ", ".join(columns)
    arrays = ", ".join(f"${at}::{_type(column)}[]" for at, column in enumerate(columns, 4))
    return (
        f"WITH given AS (SELECT * FROM unnest($1::int4[], $2::bytea[], $3::bytea[], {arrays}) "
        f"AS g (sk, pk, rk, {listed})), "
        f"old AS (SELECT g.sk, g.pk, g.rk, t.size_bytes FROM given g JOIN {name} t "
        "ON t.sk = g.sk AND t.pk = g.pk AND t.rk = g.rk), "
        f"put AS (INSERT INTO {name} (sk, pk, rk, {listed}) "
        f"SELECT sk, pk, rk, {listed} FROM given ORDER BY sk, pk, rk "
        f"ON CONFLICT (sk, pk, rk) DO UPDATE SET {replaced} RETURNING sk, pk, rk) "
        "SELECT p.sk, p.pk, p.rk, o.size_bytes FROM put p LEFT JOIN old o "
        "ON o.sk = p.sk AND o.pk = p.pk AND o.rk = p.rk"
    )


def _written(statement: str, log: str | None, at: int) -> str:
    """Return a writing statement that also writes the log's entry, value `$at`, if it wrote."""
    if log is None:
        return statement
    entry = log.replace("$LAST", f"${at}")
    return f"WITH written AS ({statement}), logged AS ({entry}) SELECT 1 FROM written"


def _log_clause(name: Name, table_id: int) -> str:
    return stream_log(name.schema).append_from("written", "0", str(table_id), "$LAST")


def _type(column: str) -> str:
    return _TYPES.get(column, "bytea")

"""Statements of transactions: many keys of one table at a time, and the tokens of clients.

`$1, $2, $3` are the keys: sk[], pk[], rk[]. A transaction claims all of its keys before it looks at
any. A row that is there is locked; a key without one gets an empty row, which keeps everybody else
from making it. Nobody sees that row: the transaction gives it an item, or deletes it again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from engines.keyvalue.plan.catalogue import Table
from engines.keyvalue.plan.rows import COLUMNS
from engines.keyvalue.storage import names
from engines.kit.statement import Name, with_names

# How long a claim waits for each key that somebody else has: below the second after which
# PostgreSQL looks for deadlocks, so who waits in a circle is told of a conflict too.
LOCK_WAIT_MS = 700
TOKEN_MINUTES = 10
# Old tokens that each new one sweeps away.
_SWEPT = 4

BOUND_WAIT = f"SELECT set_config('lock_timeout', '{LOCK_WAIT_MS}ms', true)"

_TYPES = {"ver": "int8", "size_bytes": "int4", "page_bytes": "int4", "tie": "int4", "exp": "int8"}
_GIVEN = "unnest($1::int4[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS k (sk, pk, rk, i)"
_SAME = "t.sk = k.sk AND t.pk = k.pk AND t.rk = k.rk"
# The only row without an item is a claim's.
CLAIM = b""


@dataclass(frozen=True, slots=True)
class TransactionSql:
    """The statements of one table."""

    claim: str  # -> nothing; waits for who has one of the keys
    read: str  # $4 bytes -> position from 1, item, size_bytes; no item if all are more than $4
    free: str  # -> position of each row that is there, and whether nobody has it
    replace: str  # COLUMNS[]..
    remove: str


def transaction_sql(table: Table) -> TransactionSql:
    """Return the statements of a table at its shape."""
    return _transaction_sql(table.sql_name, tuple(index.slot for index in table.slots))


@functools.lru_cache(maxsize=1024)
def _transaction_sql(name: Name, slots: Sequence[int]) -> TransactionSql:
    columns = [*COLUMNS]
    for slot in slots:
        columns += [f"k{slot}", f"r{slot}"]
    listed = ", ".join(columns)
    arrays = ", ".join(
        f"${at}::{_TYPES.get(column, 'bytea')}[]" for at, column in enumerate(columns, 4)
    )
    new = ", ".join(f"k.{column}" for column in columns)
    return TransactionSql(
        # In the order of keys, so that two of these wait for each other and never in a circle. An
        # upsert locks the row that is there before it finds that it has nothing to do.
        claim=(
            f"INSERT INTO {name} AS t (sk, pk, rk, ver, size_bytes, page_bytes, tie, item) "
            f"SELECT k.sk, k.pk, k.rk, 0, 0, 0, 0, ''::bytea FROM {_GIVEN} "
            "ORDER BY k.sk, k.pk, k.rk "
            "ON CONFLICT (sk, pk, rk) DO UPDATE SET ver = t.ver WHERE false"
        ),
        read=(
            "SELECT k.i, CASE WHEN sum(t.size_bytes) OVER () <= $4::int8 THEN t.item END, "
            f"t.size_bytes FROM {_GIVEN} JOIN {name} t ON {_SAME}"
        ),
        free=(
            f"WITH free AS (SELECT t.sk, t.pk, t.rk FROM {_GIVEN} JOIN {name} t ON {_SAME} "
            "FOR UPDATE OF t SKIP LOCKED) "
            f"SELECT k.i, EXISTS (SELECT FROM free f WHERE f.sk = k.sk AND f.pk = k.pk "
            f"AND f.rk = k.rk) FROM {_GIVEN} JOIN {name} t ON {_SAME}"
        ),
        replace=(
            f"UPDATE {name} AS t SET ({listed}) = ROW({new}) "
            f"FROM unnest($1::int4[], $2::bytea[], $3::bytea[], {arrays}) "
            f"AS k (sk, pk, rk, {listed}) WHERE {_SAME}"
        ),
        remove=f"DELETE FROM {name} AS t USING {_GIVEN} WHERE {_SAME}",
    )


@dataclass(frozen=True, slots=True)
class TokenSql:
    """The statements of client tokens; `$1` is one."""

    take: str  # $2 digest -> a row if it was free, or so old that it is free again
    digest: str  # -> the digest of the request that used it


@functools.lru_cache(maxsize=1024)
def token_sql(schema: str) -> TokenSql:
    """Return the statements of the client tokens of an instance."""
    age = f"interval '{TOKEN_MINUTES} minutes'"
    return TokenSql(
        take=with_names(
            "WITH old AS (SELECT sk, token FROM {token} "
            f"WHERE sk = 0 AND at < now() - {age} AND token <> $1::bytea "
            f"ORDER BY at LIMIT {_SWEPT} FOR UPDATE SKIP LOCKED), "
            "swept AS (DELETE FROM {token} t USING old o WHERE t.sk = o.sk AND t.token = o.token) "
            "INSERT INTO {token} AS t (sk, token, digest) VALUES (0, $1::bytea, $2::bytea) "
            "ON CONFLICT (sk, token) DO UPDATE SET digest = EXCLUDED.digest, at = now() "
            f"WHERE t.at < now() - {age} RETURNING 1",
            names(schema),
        ),
        digest=with_names(
            "SELECT digest FROM {token} WHERE sk = 0 AND token = $1::bytea", names(schema)
        ),
    )

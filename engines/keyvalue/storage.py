"""The tables of an instance in its schema: those of an empty one, and those of a DynamoDB table.

    catalogue            a row a table: what DescribeTable tells, with the slots of its indexes
    t<table_id>_<shape>  a row an item; for each secondary index two columns and a b-tree
    streamlog            what was written to tables with a stream, for 24 hours
    token                client tokens of transactions, for ten minutes
    work                 what goes on in the background: one row a piece of work
    stream               a row a stream, also one that was closed less than a day ago
    backup               a row a backup
    b<backup_id>         the rows of a table when it was backed up

Every key begins with `sk`: the hash of an item's partition key, or 0. The b-tree of a global
secondary index begins with its own partition key, whose first 4 bytes are a hash too.
"""

from __future__ import annotations

from collections.abc import Sequence

from engines.kit.changelog import TransactionLog
from engines.kit.statement import Name, quote_name, with_names

VERSION = 1
_ROLES = ("catalogue", "token", "work", "stream", "backup")

_DDL = (
    """
    CREATE TABLE {catalogue} (
        sk int4 NOT NULL DEFAULT 0,
        name text COLLATE "C" NOT NULL,
        table_id bigint NOT NULL,
        shape bigint NOT NULL,
        body jsonb NOT NULL,
        PRIMARY KEY (sk, name)
    ) WITH (fillfactor = 80)
    """,
    """
    CREATE TABLE {token} (
        sk int4 NOT NULL DEFAULT 0,
        token bytea NOT NULL,
        digest bytea NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (sk, token)
    )
    """,
    "CREATE INDEX ON {token} (sk, at)",
    """
    CREATE TABLE {work} (
        sk int4 NOT NULL DEFAULT 0,
        work_id bigint NOT NULL,
        kind text NOT NULL,
        table_id bigint NOT NULL,
        body jsonb NOT NULL,
        lease_until timestamptz NOT NULL DEFAULT 'epoch',
        PRIMARY KEY (sk, work_id)
    ) WITH (fillfactor = 80)
    """,
    # A stream's feed of the log is its table_id: a table gets a new one with each new stream.
    # `begins` and `ends` are positions as tokens, which sort as the positions do.
    """
    CREATE TABLE {stream} (
        sk int4 NOT NULL DEFAULT 0,
        table_id bigint NOT NULL,
        name text COLLATE "C" NOT NULL,
        label text COLLATE "C" NOT NULL,
        body jsonb NOT NULL,
        begins text COLLATE "C" NOT NULL,
        ends text COLLATE "C",
        closed_at timestamptz,
        PRIMARY KEY (sk, name, label)
    )
    """,
    """
    CREATE TABLE {backup} (
        sk int4 NOT NULL DEFAULT 0,
        name text COLLATE "C" NOT NULL,
        backup_id text COLLATE "C" NOT NULL,
        body jsonb NOT NULL,
        PRIMARY KEY (sk, name, backup_id)
    )
    """,
)

_ITEMS = """
    CREATE TABLE {table} (
        sk int4 NOT NULL,
        pk bytea NOT NULL,
        rk bytea NOT NULL DEFAULT '',
        ver bigint NOT NULL,
        size_bytes int4 NOT NULL,
        page_bytes int4 NOT NULL,
        tie int4 NOT NULL,
        exp bigint,
        item bytea NOT NULL,
        PRIMARY KEY (sk, pk, rk)
    ) WITH (fillfactor = 80)
"""

_ADD_COLUMNS = "ALTER TABLE {table} ADD COLUMN k%(slot)d bytea, ADD COLUMN r%(slot)d bytea"
_DROP_COLUMNS = "ALTER TABLE {table} DROP COLUMN k%(slot)d, DROP COLUMN r%(slot)d"
_GLOBAL_INDEX = (
    "CREATE INDEX %(how)s%(bare)s ON {table} (k%(slot)d, r%(slot)d, tie, sk, pk, rk) "
    "WHERE k%(slot)d IS NOT NULL"
)
_LOCAL_INDEX = (
    "CREATE INDEX %(how)s%(bare)s ON {table} (sk, pk, r%(slot)d, tie, rk) "
    "WHERE r%(slot)d IS NOT NULL"
)
# Expiry times are not among what is copied: a restored table has no TTL.
_COPIED = ("sk", "pk", "rk", "size_bytes", "page_bytes", "tie", "item")
_BACKUP = """
    CREATE TABLE {backup} (
        sk int4 NOT NULL,
        pk bytea NOT NULL,
        rk bytea NOT NULL,
        size_bytes int4 NOT NULL,
        page_bytes int4 NOT NULL,
        tie int4 NOT NULL,
        item bytea NOT NULL,
        %s
        PRIMARY KEY (sk, pk, rk)
    )
"""
_TTL_INDEX = "CREATE INDEX %(how)s%(bare)s ON {table} (exp) WHERE exp IS NOT NULL"


def names(schema: str) -> dict[str, Name]:
    """Return the tables of every instance by their role."""
    return {role: Name(schema, role) for role in _ROLES}


def stream_log(schema: str) -> TransactionLog:
    """Return the log that all streams of an instance share; a feed is a table's id."""
    return TransactionLog(schema, "streamlog")


def ddl(schema: str) -> tuple[str, ...]:
    """Return what creates the tables of an empty instance; the schema is there."""
    own = tuple(with_names(template, names(schema)) for template in _DDL)
    return (*own, *stream_log(schema).ddl())


def items_ddl(table: Name) -> str:
    """Return what creates the rows of one DynamoDB table, without secondary indexes."""
    return with_names(_ITEMS, {"table": table})


def columns_ddl(table: Name, slot: int) -> str:
    """Return what adds the columns of a secondary index."""
    return with_names(_ADD_COLUMNS % {"slot": slot}, {"table": table})


def drop_columns_ddl(table: Name, slot: int) -> str:
    """Return what drops a secondary index: its columns, and its b-tree with them."""
    return with_names(_DROP_COLUMNS % {"slot": slot}, {"table": table})


def index_ddl(table: Name, name: str, slot: int, *, is_global: bool, concurrently: bool) -> str:
    """Return what creates the b-tree of a secondary index, in the schema of its table."""
    template = _GLOBAL_INDEX if is_global else _LOCAL_INDEX
    return _index(template, table, name, slot, concurrently)


def rename_ddl(table: Name, to: Name) -> str:
    """Return what gives a table its next name; `to` is in the same schema."""
    return with_names("ALTER TABLE {table} RENAME TO ", {"table": table}) + quote_name(to.name)


def backup_table(schema: str, copy_id: int) -> Name:
    """Return where the rows of a backup are."""
    return Name(schema, f"b{copy_id}")


def backup_ddl(backup: Name, slots: Sequence[int]) -> str:
    """Return what creates a backup's table, with the columns of the indexes of these slots."""
    columns = "".join(f"k{slot} bytea, r{slot} bytea, " for slot in slots)
    return with_names(_BACKUP % columns, {"backup": backup})


def copied_columns(slots: Sequence[int]) -> tuple[str, ...]:
    """Return the columns that tables and backups have in common, the key first."""
    return (*_COPIED, *(column for slot in slots for column in (f"k{slot}", f"r{slot}")))


def drop_ddl(table: Name) -> str:
    """Return what drops a table, if it is there."""
    return with_names("DROP TABLE IF EXISTS {table}", {"table": table})


def drop_index_ddl(schema: str, name: str, *, concurrently: bool) -> str:
    """Return what drops the b-tree of this name, if it is there."""
    how = "CONCURRENTLY " if concurrently else ""
    return with_names(f"DROP INDEX {how}IF EXISTS {{name}}", {"name": Name(schema, name)})


def ttl_index_ddl(table: Name, name: str, *, concurrently: bool) -> str:
    """Return what creates the b-tree of expiry times."""
    return _index(_TTL_INDEX, table, name, 0, concurrently)


def _index(template: str, table: Name, name: str, slot: int, concurrently: bool) -> str:
    how = "CONCURRENTLY IF NOT EXISTS " if concurrently else ""
    # An index is always in its table's schema, and takes no other one in its name.
    words = {"slot": slot, "how": how, "bare": quote_name(name)}
    return with_names(template % words, {"table": table})

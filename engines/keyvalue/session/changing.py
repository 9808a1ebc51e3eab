"""How a table is changed: one transaction that holds its row of the catalogue.

    async with transaction(context, name) as statements:
        row = await locked(context, statements, name)
        ...
        await rename(statements, row)
        await save_row(statements, row)

Whatever writers must know is part of the SQL table's name, which `rename` changes. That waits for
the requests under way, for a bounded time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from engines.keyvalue.errors import in_use, table_not_found
from engines.keyvalue.plan.catalogue import sql_table
from engines.keyvalue.plan.descriptions import Body, has_new_index, is_changing
from engines.keyvalue.session.context import Context
from engines.keyvalue.storage import names, rename_ddl
from engines.kit.errors import RequestError
from engines.kit.ports import Statements, Store
from engines.kit.statement import Name, with_names

# How long a change waits for requests that use the table; those that come behind it wait as well.
LOCK_WAIT_MS = 5_000
_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK = "40P01"

_INSERT = (
    "INSERT INTO {catalogue} (name, table_id, shape, body) "
    "VALUES ($1::text, $2::int8, $3::int8, $4::text::jsonb) ON CONFLICT (sk, name) DO NOTHING "
    "RETURNING 1"
)
_FIND = (
    "SELECT table_id, shape, body::text FROM {catalogue} WHERE sk = 0 AND name = $1::text "
    "FOR UPDATE"
)
_SAVE = (
    "UPDATE {catalogue} SET table_id = $2::int8, shape = $3::int8, body = $4::text::jsonb "
    "WHERE sk = 0 AND name = $1::text"
)


@dataclass(slots=True)
class Row:
    """A row of the catalogue that is locked; `body` may be changed and saved."""

    name: str
    table_id: int
    shape: int
    body: Body
    schema: str

    @property
    def sql_name(self) -> Name:
        """The SQL table."""
        return sql_table(self.schema, self.table_id, self.shape)


@asynccontextmanager
async def transaction(context: Context, name: str) -> AsyncIterator[Statements]:
    """Run a change of the table `name`.

    Raises DynamoError: somebody uses or changes the table for too long.
    """
    try:
        async with context.store.transaction() as statements:
            await statements.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_MS}ms'")
            yield statements
    except RequestError as error:
        if error.sqlstate in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
            raise being_updated(name) from error
        raise


@asynccontextmanager
async def background_transaction(store: Store) -> AsyncIterator[Statements]:
    """Run a change that nobody waits for; one that finds the table in use is tried again later."""
    async with store.transaction() as statements:
        await statements.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_MS}ms'")
        yield statements


async def locked(context: Context, statements: Statements, name: str) -> Row:
    """Return the row of a table; nobody else changes it before the transaction ends.

    Raises DynamoError: there is none.
    """
    row = await found(context.tables.schema, statements, name)
    if row is None:
        raise table_not_found(name)
    return row


async def found(schema: str, statements: Statements, name: str) -> Row | None:
    """Return the row of a table, locked, if there is one."""
    rows = await statements.fetch(with_names(_FIND, names(schema)), name)
    if not rows:
        return None
    table_id, shape, body = rows[0]
    return Row(name, table_id, shape, orjson.loads(body), schema)


async def insert(
    context: Context, statements: Statements, name: str, table_id: int, body: Body
) -> bool:
    """Add a row at shape 1; False if there is one of this name."""
    text = with_names(_INSERT, names(context.tables.schema))
    return bool(await statements.fetch(text, name, table_id, 1, orjson.dumps(body).decode()))


async def save_row(statements: Statements, row: Row) -> None:
    """Write a row that has changed."""
    text = with_names(_SAVE, names(row.schema))
    body = orjson.dumps(row.body).decode()
    await statements.execute(text, row.name, row.table_id, row.shape, body)


async def rename(statements: Statements, row: Row, table_id: int | None = None) -> None:
    """Give the SQL table its next name: from then on nobody uses it as it was. Save the row then.

    With `table_id` the table begins a new feed of the change log.
    """
    before = row.sql_name
    row.shape += 1
    if table_id is not None:
        row.table_id = table_id
    await statements.execute(rename_ddl(before, row.sql_name))


def index_name(table_id: int, slot: int, shape: int) -> str:
    """Return the name of the b-tree of an index that was added at this shape; 0 is that of TTL."""
    return f"t{table_id}_{shape}_i{slot}"


def check_unchanging(name: str, body: Body) -> None:
    """Raise DynamoError if an earlier change of the table has not ended."""
    if body["TableStatus"] == "CREATING":
        raise in_use(
            "Attempt to change a resource which is still in use: Table is being created: " + name
        )
    if is_changing(body):
        raise being_updated(name)


def check_deletable(name: str, body: Body) -> None:
    """Raise DynamoError if the table is being updated.

    TTL that is being filled may go, and so may a restore: what cannot be completed must not stay.
    """
    if has_new_index(body):
        raise being_updated(name)


def being_updated(name: str) -> Exception:
    """An earlier change of the table has not ended."""
    return in_use(
        f"Attempt to change a resource which is still in use: Table is being updated: {name}"
    )

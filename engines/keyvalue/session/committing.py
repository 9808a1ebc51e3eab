"""Many items of several tables, written all or not at all: the core of every transaction.

    take the client's token, claim all keys, look at all items, decide on each, write, commit

One PostgreSQL transaction does it, so neither a killed worker nor a killed server leaves half. Keys
are claimed in one order everywhere (`sql/transactions`); who waits too long for one gets a
TransactionConflict for it, and nothing is written. Tasks of this worker wait for each other before
they take a session, as those that write one item do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from engines.keyvalue.capacity import item_size
from engines.keyvalue.errors import (
    DynamoError,
    idempotent_mismatch,
    transaction_canceled,
    transaction_conflict,
    transaction_in_progress,
    validation,
)
from engines.keyvalue.plan.changes import change_body
from engines.keyvalue.plan.keys import KeyBytes
from engines.keyvalue.plan.rows import row_values
from engines.keyvalue.session.context import Context, Known
from engines.keyvalue.session.writing import Decide, Written, new_version
from engines.keyvalue.sql.transactions import (
    BOUND_WAIT,
    CLAIM,
    TransactionSql,
    token_sql,
    transaction_sql,
)
from engines.keyvalue.storage import stream_log
from engines.keyvalue.values import Item, decode
from engines.kit.errors import RequestError
from engines.kit.ports import Statements

# "TransactWriteItems": what all items of a transaction may have together.
TRANSACTION_BYTES_MAX = 4 * 1024 * 1024
TOO_LARGE = "The aggregate size of the items in the transaction exceeds 4 MB"
# Who has waited for other tasks of its worker for so long gives up when its turn comes.
QUEUE_SECONDS_MAX = 5.0
TWICE = "Transaction request cannot include multiple operations on one item"

# "lock_not_available", "deadlock_detected".
_BUSY = frozenset({"55P03", "40P01"})
NO_REASON: Mapping[str, Any] = {"Code": "None"}
# What a refusal of one item is called among the reasons why a transaction was canceled.
REASON_CODES: Mapping[str, str] = {
    "ConditionalCheckFailedException": "ConditionalCheckFailed",
    "DuplicateItemException": "DuplicateItem",
    "ItemCollectionSizeLimitExceededException": "ItemCollectionSizeLimitExceeded",
    "ProvisionedThroughputExceededException": "ProvisionedThroughputExceeded",
    "ThrottlingException": "ThrottlingError",
    "TransactionConflictException": "TransactionConflict",
    "ValidationException": "ValidationError",
}


@dataclass(frozen=True, slots=True)
class Action:
    """What one entry of a transaction does to its item; a bare `Check` returns it unchanged."""

    known: Known
    key: KeyBytes
    decide: Decide


@dataclass(frozen=True, slots=True)
class Token:
    """A client's token and a digest of the request that it stands for."""

    text: str
    digest: bytes


@dataclass(slots=True)
class _Part:
    """The entries of a transaction for one table, in the order of their keys."""

    known: Known
    sql: TransactionSql
    positions: list[int]
    columns: tuple[list[int], list[bytes], list[bytes]]


class _BusyError(Exception):
    """Somebody else has had a key for too long."""

    def __init__(self, part: _Part) -> None:
        super().__init__(part.known.table.name)
        self.part = part


async def commit(
    context: Context, actions: Sequence[Action], token: Token | None
) -> list[Written] | None:
    """Perform all actions; None if the token says that this was done before.

    Raises DynamoError: TransactionCanceledException with a reason for each action, and what tokens
    are refused with; RequestError.
    """
    parts = _parts(actions)
    async with AsyncExitStack() as held:
        await _hold(context, held, actions, parts)
        try:
            async with context.store.transaction() as statements:
                await statements.fetch(BOUND_WAIT)
                if token is not None and not await _take(statements, context, token):
                    return None
                return await _commit(context, statements, actions, parts)
        except _BusyError as error:
            busy = await _busy_positions(context, error.part)
            raise _conflict(len(actions), busy) from error


async def _hold(
    context: Context, held: AsyncExitStack, actions: Sequence[Action], parts: Sequence[_Part]
) -> None:
    """Wait for the tasks of this worker that write the same items."""
    began = context.ports.clock.monotonic()
    for part in parts:
        for position in part.positions:
            key = actions[position].key
            lock = (context.record.instance_id, part.known.table.table_id, key.pk, key.rk)
            await held.enter_async_context(context.ports.hold(lock))
            # A long line gets shorter at once: all who stand in it for too long leave it.
            if context.ports.clock.monotonic() - began > QUEUE_SECONDS_MAX:
                raise _conflict(len(actions), {position})


def _conflict(count: int, busy: set[int]) -> DynamoError:
    reason = reason_of(transaction_conflict())
    return transaction_canceled([reason if at in busy else NO_REASON for at in range(count)])


async def _commit(
    context: Context, statements: Statements, actions: Sequence[Action], parts: Sequence[_Part]
) -> list[Written]:
    for part in parts:
        try:
            await statements.fetch(part.sql.claim, *part.columns)
        except RequestError as error:
            if error.sqlstate in _BUSY:
                raise _BusyError(part) from error
            raise
    olds: list[tuple[Item | None, int]] = [(None, 0)] * len(actions)
    absent = [True] * len(actions)
    bytes_left = TRANSACTION_BYTES_MAX
    for part in parts:
        rows = await statements.fetch(part.sql.read, *part.columns, bytes_left)
        for place, stored, size_bytes in rows:
            if stored is None:
                raise validation(TOO_LARGE)
            if stored != CLAIM:
                position = part.positions[place - 1]
                olds[position] = decode(stored), size_bytes
                absent[position] = False
                bytes_left -= size_bytes
    written = _decided(actions, olds)
    for part in parts:
        await _write(context, statements, part, actions, written, absent)
    return written


def _decided(actions: Sequence[Action], olds: Sequence[tuple[Item | None, int]]) -> list[Written]:
    """Return what becomes of each item, or refuse all with the reason of each."""
    reasons: list[Mapping[str, Any]] = []
    written = []
    size_bytes = 0
    for action, (old, old_bytes) in zip(actions, olds, strict=True):
        reason, new = NO_REASON, old
        try:
            new = action.decide(old)
        except DynamoError as error:
            reason = reason_of(error)
        reasons.append(reason)
        written.append(Written(old, new, old_bytes))
        new_bytes = item_size(new) if new is not None else 0
        size_bytes += max(old_bytes, new_bytes)
    if any(reason is not NO_REASON for reason in reasons):
        raise transaction_canceled(reasons)
    if size_bytes > TRANSACTION_BYTES_MAX:
        raise validation(TOO_LARGE)
    return written


async def _write(
    context: Context,
    statements: Statements,
    part: _Part,
    actions: Sequence[Action],
    written: Sequence[Written],
    absent: Sequence[bool],
) -> None:
    """Write the items of one table, take back the claims of what stays absent, and log."""
    table = part.known.table
    now = context.ports.clock.now()
    put, gone, bodies = [], [], []
    for position in part.positions:
        old, new = written[position].old, written[position].new
        if new is None:
            gone.append(position)
        elif absent[position] or old != new:
            put.append(position)
        body = change_body(table, old, new, now) if table.stream_view else None
        if body is not None:
            bodies.append(body)
    if put:
        values = [row_values(table, written[at].new or {}, new_version()) for at in put]
        columns = [list(column) for column in zip(*values, strict=True)]
        await statements.fetch(
            part.sql.replace, *key_columns([actions[at].key for at in put]), *columns
        )
    if gone:
        await statements.fetch(part.sql.remove, *key_columns([actions[at].key for at in gone]))
    if bodies:
        entry = stream_log(context.tables.schema).append(table.table_id, bodies)
        await statements.fetch(entry.text, *entry.params)


async def _take(statements: Statements, context: Context, token: Token) -> bool:
    """Take a token for this request; False if the same request has taken it before.

    Raises DynamoError: another request has, or one with this token goes on at the moment.
    """
    sql = token_sql(context.tables.schema)
    text = token.text.encode()
    try:
        if await statements.fetch(sql.take, text, token.digest):
            return True
    except RequestError as error:
        if error.sqlstate in _BUSY:
            raise transaction_in_progress() from error
        raise
    rows = await statements.fetch(sql.digest, text)
    if rows and bytes(rows[0][0]) == token.digest:
        return False
    raise idempotent_mismatch()


async def _busy_positions(context: Context, part: _Part) -> set[int]:
    """Return the entries whose keys somebody else has, as well as it can be told afterwards.

    A lock on a row can be seen; a key that somebody else is about to make cannot, so where no row
    is locked it is one of those without a row. Where all is free by now it may have been any.
    """
    rows = await context.store.fetch(part.sql.free, *part.columns)
    there = {part.positions[place - 1]: is_free for place, is_free in rows}
    locked = {position for position, is_free in there.items() if not is_free}
    return locked or {at for at in part.positions if at not in there} or set(part.positions)


def _parts(actions: Sequence[Action]) -> list[_Part]:
    """Return the entries by table, in the order in which everybody claims keys.

    Raises DynamoError: two entries are for the same item.
    """
    tables: dict[int, list[int]] = {}
    for position, action in enumerate(actions):
        tables.setdefault(action.known.table.table_id, []).append(position)
    parts = []
    for table_id in sorted(tables):
        positions = sorted(tables[table_id], key=lambda at: _order(actions[at].key))
        keys = [actions[at].key for at in positions]
        if len(set(keys)) != len(keys):
            raise validation(TWICE)
        known = actions[positions[0]].known
        parts.append(_Part(known, transaction_sql(known.table), positions, key_columns(keys)))
    return parts


def _order(key: KeyBytes) -> tuple[int, bytes, bytes]:
    return key.sk, key.pk, key.rk


def key_columns(keys: Sequence[KeyBytes]) -> tuple[list[int], list[bytes], list[bytes]]:
    """Return keys as the three arrays that statements over many of them take."""
    return [key.sk for key in keys], [key.pk for key in keys], [key.rk for key in keys]


def reason_of(error: DynamoError) -> Mapping[str, Any]:
    """Return a refusal of one entry as the reason why a transaction is canceled.

    Raises it where it is none: it then is the refusal of the request.
    """
    code = REASON_CODES.get(error.code)
    if code is None:
        raise error
    reason: dict[str, Any] = {"Code": code, "Message": error.message}
    reason.update(error.extra)
    return reason

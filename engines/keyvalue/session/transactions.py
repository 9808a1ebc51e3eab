"""TransactWriteItems and TransactGetItems: up to 100 items, all of one moment.

A write is digested, so that the same token with the same request is performed once: the token is
committed with the items. What the second request costs is reading them. A read is a snapshot of the
database, and so never in conflict with anybody.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from engines.keyvalue.capacity import item_size, read_units, write_units
from engines.keyvalue.errors import (
    DynamoError,
    throughput_exceeded,
    transaction_canceled,
    translated,
    validation,
)
from engines.keyvalue.evaluate import projections
from engines.keyvalue.parse.expressions.trees import Expressions, Projection
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan import checks
from engines.keyvalue.plan.keys import KeyBytes
from engines.keyvalue.reply import collection_metrics, index_writes, member_of
from engines.keyvalue.session.committing import (
    NO_REASON,
    TOO_LARGE,
    TRANSACTION_BYTES_MAX,
    TWICE,
    Action,
    Token,
    commit,
    key_columns,
    reason_of,
)
from engines.keyvalue.session.context import Context, Known
from engines.keyvalue.session.decisions import Change, Check, Delete, Put, check_update
from engines.keyvalue.sql.transactions import transaction_sql
from engines.keyvalue.values import decode
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import RequestClass, Statements


@dataclass(slots=True)
class Spent:
    """Units by table, and by table and index; `wrote` unless the writes were done before."""

    wrote: bool = False
    knowns: dict[str, Known] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, known: Known, units: float, parts: Mapping[str, float] | None = None) -> None:
        """Count one item; what `parts` has is the units of indexes outside of a transaction."""
        name = known.table.name
        self.knowns[name] = known
        self.units[name] = self.units.get(name, 0.0) + units
        own = self.parts.setdefault(name, {})
        for index, index_units in (parts or {}).items():
            own[index] = own.get(index, 0.0) + 2 * index_units

    @property
    def total(self) -> float:
        """All units."""
        return sum(self.units.values()) + sum(sum(part.values()) for part in self.parts.values())


@dataclass(frozen=True, slots=True)
class Get:
    """One item to read, and what of it."""

    known: Known
    key: KeyBytes
    projection: Projection | None


Made = TypeVar("Made")


async def transact_write_items(context: Context, parsed: Parsed) -> dict[str, Any]:
    """TransactWriteItems."""
    fields = parsed.fields
    entries = [pair for entry in fields["TransactItems"] for pair in entry.items()]
    knowns = [await context.table(entry["TableName"]) for _, entry in entries]
    actions = together(
        functools.partial(_action_of, known, kind, entry, part)
        for known, (kind, entry), part in zip(knowns, entries, parsed.parts, strict=True)
    )
    spent = await perform(context, actions, fields, fields["TransactItems"])
    answer = consumed(fields, spent, "WriteCapacityUnits" if spent.wrote else "ReadCapacityUnits")
    if fields.get("ReturnItemCollectionMetrics") == "SIZE":
        answer |= await _metrics(context, entries, actions)
    return answer


async def transact_get_items(context: Context, parsed: Parsed) -> bytes:
    """TransactGetItems."""
    fields = parsed.fields
    entries = [entry["Get"] for entry in fields["TransactItems"]]
    knowns = [await context.table(entry["TableName"]) for entry in entries]
    gets = together(
        functools.partial(_get_of, known, entry, part)
        for known, entry, part in zip(knowns, entries, parsed.parts, strict=True)
    )
    pieces, spent = await read(context, gets)
    responses = b",".join(b'{"Item":' + piece + b"}" if piece else b"{}" for piece in pieces)
    rest = orjson.dumps(consumed(fields, spent, "ReadCapacityUnits"))
    return b'{"Responses":[' + responses + b"]" + (b"}" if rest == b"{}" else b"," + rest[1:])


def together(makers: Iterable[Callable[[], Made]]) -> list[Made]:
    """Make all entries. Raises DynamoError: a reason for each if one of them cannot be made."""
    made: list[Made] = []
    reasons: list[Mapping[str, Any]] = []
    for make in makers:
        try:
            made.append(make())
            reasons.append(NO_REASON)
        except DynamoError as error:
            reasons.append(reason_of(error))
    if len(made) < len(reasons):
        raise transaction_canceled(reasons)
    return made


def _action_of(known: Known, kind: str, entry: Mapping[str, Any], part: Expressions) -> Action:
    check = Check(part.condition, entry.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD")
    table = known.table
    if part.condition is not None:
        checks.check_nested_names(table, part.condition.nested)
    if kind == "Put":
        key = checks.item_key_bytes(table, entry["Item"])
        return Action(known, key, Put(check, entry["Item"]))
    key = checks.key_bytes(table, entry["Key"])
    if kind == "Update":
        assert part.update is not None
        check_update(table, part.update)
        return Action(known, key, Change(check, table, entry["Key"], part.update))
    if kind == "Delete":
        return Action(known, key, Delete(check))
    return Action(known, key, check)


def _get_of(known: Known, entry: Mapping[str, Any], part: Expressions) -> Get:
    if part.projection is not None:
        checks.check_nested_names(known.table, part.projection.nested)
    return Get(known, checks.key_bytes(known.table, entry["Key"]), part.projection)


async def perform(
    context: Context, actions: Sequence[Action], fields: Mapping[str, Any], content: Any
) -> Spent:
    """Commit all actions, and return what they cost; what they did once costs reading it.

    `content` is what the client's token stands for. Raises DynamoError, RequestError.
    """
    token = _token_of(context, fields, content)
    spent = Spent()
    for action in actions:
        decide = action.decide
        new_bytes = item_size(decide.item) if isinstance(decide, Put) else 0
        spent.add(action.known, write_units(new_bytes, transactional=True))
    grows = any(isinstance(action.decide, Put | Change) for action in actions)
    await _admit(context, actions, RequestClass.WRITE, spent, grows=grows)
    try:
        written = await commit(context, actions, token)
    except DynamoError:
        # What is canceled has cost its units, as in the original.
        raise
    except RequestError:
        context.settle(RequestClass.WRITE, 0, spent.total)
        raise
    if written is None:
        context.settle(RequestClass.WRITE, 0, spent.total)
        return await _read_again(context, actions)
    cost = Spent(wrote=True)
    for action, each in zip(actions, written, strict=True):
        new_bytes = item_size(each.new) if each.new is not None else 0
        units = write_units(max(new_bytes, each.old_bytes), transactional=True)
        cost.add(action.known, units, index_writes(action.known.table, each.old, each.new))
    context.settle(RequestClass.WRITE, cost.total, spent.total)
    return cost


def _token_of(context: Context, fields: Mapping[str, Any], content: Any) -> Token | None:
    text = fields.get("ClientRequestToken")
    if text is None:
        return None
    data = orjson.dumps([context.operation, content], option=orjson.OPT_SORT_KEYS)
    return Token(text, hashlib.sha256(data).digest())


async def _admit(
    context: Context,
    entries: Sequence[Action | Get],
    request_class: RequestClass,
    spent: Spent,
    *,
    grows: bool = False,
) -> None:
    """Take the units of all tables at once: no plan is so small that a transaction never fits.

    Raises DynamoError: they were refused, which is the reason for each entry.
    """
    try:
        await context.admit(request_class, spent.total, grows=grows)
    except RequestError as error:
        if error.reason is not Reason.RATE:
            raise
        reasons = [
            reason_of(
                translated(error)
                if entry.known.table.is_on_demand
                else throughput_exceeded(error.retry_after_s)
            )
            for entry in entries
        ]
        canceled = transaction_canceled(reasons)
        canceled.retry_after_s = error.retry_after_s
        raise canceled from error


async def _read_again(context: Context, actions: Sequence[Action]) -> Spent:
    """Meter a transaction that was performed before as a read of its items."""
    sizes = {}
    for known, positions in _by_table(actions):
        keys = key_columns([actions[at].key for at in positions])
        for place, _, size_bytes in await context.store.fetch(
            transaction_sql(known.table).read, *keys, 0
        ):
            sizes[positions[place - 1]] = size_bytes
    cost = Spent()
    for position, action in enumerate(actions):
        size_bytes = sizes.get(position, 0)
        cost.add(action.known, read_units(size_bytes, consistent=True, transactional=True))
    context.settle(RequestClass.READ, cost.total, 0)
    return cost


async def read(context: Context, gets: Sequence[Get]) -> tuple[list[bytes], Spent]:
    """Return the items of one moment in the order of `gets`, b"" for those that are not there.

    Raises DynamoError: one item twice, or more than 4 MB; RequestError.
    """
    parts = _by_table(gets)
    for _, positions in parts:
        if len({gets[at].key for at in positions}) != len(positions):
            raise validation(TWICE)
    least = Spent()
    for get in gets:
        least.add(get.known, read_units(0, consistent=True, transactional=True))
    await _admit(context, gets, RequestClass.READ, least)
    found: list[tuple[bytes, int]] = [(b"", 0)] * len(gets)
    async with AsyncExitStack() as opened:
        statements: Statements = context.store
        if len(parts) > 1:
            # One statement sees one moment by itself.
            statements = await opened.enter_async_context(
                context.store.transaction("repeatable_read")
            )
        bytes_left = TRANSACTION_BYTES_MAX
        for known, positions in parts:
            keys = key_columns([gets[at].key for at in positions])
            sql = transaction_sql(known.table).read
            for place, stored, size_bytes in await statements.fetch(sql, *keys, bytes_left):
                if stored is None:
                    raise validation(TOO_LARGE)
                found[positions[place - 1]] = stored, size_bytes
                bytes_left -= size_bytes
    cost = Spent()
    for get, (_, size_bytes) in zip(gets, found, strict=True):
        cost.add(get.known, read_units(size_bytes, consistent=True, transactional=True))
    context.settle(RequestClass.READ, cost.total, least.total)
    return [_sent(get, stored) for get, (stored, _) in zip(gets, found, strict=True)], cost


def _sent(get: Get, stored: bytes) -> bytes:
    if not stored or get.projection is None:
        return stored
    return orjson.dumps(projections.project(get.projection, decode(stored)))


def _by_table(entries: Sequence[Action | Get]) -> list[tuple[Known, list[int]]]:
    """Return the tables of the entries, and the positions of those of each."""
    tables: dict[int, tuple[Known, list[int]]] = {}
    for position, entry in enumerate(entries):
        tables.setdefault(entry.known.table.table_id, (entry.known, []))[1].append(position)
    return list(tables.values())


def consumed(fields: Mapping[str, Any], spent: Spent, kind: str) -> dict[str, Any]:
    """Return {"ConsumedCapacity": [...]}, one element a table, if the request wants it."""
    wanted = fields.get("ReturnConsumedCapacity")
    if wanted not in ("TOTAL", "INDEXES"):
        return {}
    listed = []
    for name, units in spent.units.items():
        parts = spent.parts[name]
        total = units + sum(parts.values())
        capacity: dict[str, Any] = {"TableName": name, "CapacityUnits": total, kind: total}
        if wanted == "INDEXES":
            capacity["Table"] = {"CapacityUnits": units, kind: units}
            for index, index_units in parts.items():
                member = capacity.setdefault(member_of(spent.knowns[name].table.indexes[index]), {})
                member[index] = {"CapacityUnits": index_units, kind: index_units}
        listed.append(capacity)
    return {"ConsumedCapacity": listed}


async def _metrics(
    context: Context, entries: Sequence[tuple[str, Mapping[str, Any]]], actions: Sequence[Action]
) -> dict[str, Any]:
    """Return the member ItemCollectionMetrics; only tables with local indexes are in it."""
    found: dict[str, dict[bytes, Any]] = {}
    for (kind, entry), action in zip(entries, actions, strict=True):
        table = action.known.table
        if kind == "ConditionCheck" or all(index.is_global for index in table.indexes.values()):
            continue
        collections = found.setdefault(table.name, {})
        if action.key.pk not in collections:
            sql = action.known.sql.collection_bytes
            rows = await context.store.fetch(sql, action.key.sk, action.key.pk)
            item = entry["Item"] if kind == "Put" else entry["Key"]
            collections[action.key.pk] = collection_metrics(table, item, int(rows[0][0]))
    metrics = {name: list(collections.values()) for name, collections in found.items()}
    return {"ItemCollectionMetrics": metrics} if metrics else {}

"""ExecuteStatement: one statement of PartiQL, by the same ways as the operations on items.

A SELECT with a partition key is a query, or one for each of several; one without is a scan. What
is written is one item, whose key stands in full in the WHERE; the rest of it is the condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from engines.keyvalue.capacity import PAGE_BYTES_MAX, item_size, read_units, write_units
from engines.keyvalue.errors import invalid_parameter, validation
from engines.keyvalue.parse import partiql
from engines.keyvalue.parse.operations import steps
from engines.keyvalue.parse.partiql import Exists, Insert, Select, Statement
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan import checks
from engines.keyvalue.plan.catalogue import Index, Table
from engines.keyvalue.plan.ranges import (
    StartKey,
    check_scan_start,
    key_of,
    key_start,
    query_range,
    start_names,
)
from engines.keyvalue.plan.statements import (
    NO_KEY,
    Access,
    access_of,
    flattened,
    primary_key,
)
from engines.keyvalue.reply import consumed_by_read, consumed_by_write
from engines.keyvalue.session import tokens
from engines.keyvalue.session.committing import Action
from engines.keyvalue.session.context import READ, WRITE, Context, Known
from engines.keyvalue.session.decisions import Absent, Change, Check, Delete, Put, check_update
from engines.keyvalue.session.reads import Page, Wanted, index_of, read_page
from engines.keyvalue.session.writing import Written, write_item
from engines.keyvalue.sql.pages import query_page, scan_page
from engines.keyvalue.values import Item, decode
from engines.kit.ports import RequestClass
from engines.kit.statement import Statement as SqlStatement

_EXISTS_ALONE = "EXISTS is only allowed in transactions"


@dataclass(slots=True)
class Found:
    """What a SELECT has read so far, and where the next request goes on."""

    items: list[bytes]
    scanned: int = 0
    table_bytes: int = 0
    index_bytes: int = 0
    next: tokens.Place | None = None

    def add(self, page: Page) -> None:
        """Add a page of one partition."""
        self.items += page.items
        self.scanned += page.scanned
        self.table_bytes += page.table_bytes
        self.index_bytes += page.index_bytes


async def execute_statement(context: Context, parsed: Parsed) -> Mapping[str, Any] | bytes:
    """ExecuteStatement."""
    fields = parsed.fields
    statement = partiql.read(fields["Statement"], fields.get("Parameters", ()))
    known = await opened(context, parsed, statement)
    if isinstance(statement, Select):
        return await _select(context, known, statement, fields)
    for member in ("Limit", "NextToken"):
        if member in fields:
            raise validation(f"{member} is only allowed with SELECT")
    attributes, capacity = await write(context, known, statement, fields)
    return {"Items": [] if attributes is None else [attributes]} | capacity


async def opened(context: Context, parsed: Parsed, statement: Statement) -> Known:
    """Return the table of a statement, for reading or writing. Raises DynamoError."""
    context.action = READ if isinstance(statement, Select) else WRITE
    name = steps.named(parsed, statement.table)
    context.check_accounts(parsed.table_arns)
    return await context.table(name)


async def write(
    context: Context, known: Known, statement: Statement, fields: Mapping[str, Any]
) -> tuple[Item | None, dict[str, Any]]:
    """Perform a statement that writes; returns what it is RETURNING, and ConsumedCapacity."""
    action = action_of(known, statement, shows_item(fields))
    if isinstance(statement, Exists):
        raise validation(_EXISTS_ALONE)
    decide = action.decide
    admitted = write_units(item_size(decide.item) if isinstance(decide, Put) else 0)
    grows = isinstance(decide, Put | Change)
    await context.admit(RequestClass.WRITE, admitted, known.table, grows=grows)
    written = await write_item(context, known, action.key, decide)
    new_bytes = item_size(written.new) if written.new is not None else 0
    units = write_units(max(new_bytes, written.old_bytes))
    capacity, total = consumed_by_write(fields, known.table, units, written.old, written.new)
    context.settle(RequestClass.WRITE, total, admitted)
    returning = "NONE" if isinstance(statement, Insert | Select) else statement.returning
    return _returned(returning, decide, written), capacity


def shows_item(fields: Mapping[str, Any]) -> bool:
    """Say whether a failed condition shows the item."""
    return fields.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"


def action_of(known: Known, statement: Statement, shows: bool) -> Action:
    """Return what a statement does to its item. Raises DynamoError: it names no single item."""
    table = known.table
    if isinstance(statement, Insert):
        item = statement.item
        return Action(known, checks.item_key_bytes(table, item), Put(Absent(), item))
    if isinstance(statement, Select):
        raise validation(_EXISTS_ALONE)
    where = statement.select.where if isinstance(statement, Exists) else statement.where
    found = primary_key(table, where)
    if found is None:
        raise validation(NO_KEY)
    key_item, rest = found
    key = checks.key_bytes(table, key_item)
    if rest is not None:
        checks.check_nested_names(table, rest.nested)
    if isinstance(statement, Exists):
        if statement.select.index is not None:
            raise validation("EXISTS cannot read an index")
        return Action(known, key, Check(rest, shows, must_exist=True))
    if isinstance(statement, partiql.Delete):
        return Action(known, key, Delete(Check(rest, shows)))
    check_update(table, statement.update)
    check = Check(rest, shows, must_exist=True)
    return Action(known, key, Change(check, table, key_item, statement.update))


def _returned(returning: str, decide: Any, written: Written) -> Item | None:
    """Return the one item behind RETURNING."""
    if returning == "ALL_OLD":
        return written.old
    if returning == "ALL_NEW":
        return written.new
    if not isinstance(decide, Change) or decide.result is None:
        return None
    if returning == "UPDATED_OLD" and written.old is not None:
        return decide.result.changed_part(written.old)
    if returning == "UPDATED_NEW" and written.new is not None:
        return decide.result.changed_part(written.new)
    return None


async def _select(
    context: Context, known: Known, select: Select, fields: Mapping[str, Any]
) -> bytes:
    table = known.table
    is_consistent = bool(fields.get("ConsistentRead"))
    index = index_of(table, {"IndexName": select.index, "ConsistentRead": is_consistent})
    access = access_of(table, index, select)
    if access.filter is not None:
        checks.check_nested_names(table, access.filter.nested)
    digest = tokens.digest_of(
        table.table_id, fields["Statement"], fields.get("Parameters"), is_consistent
    )
    place = tokens.read(fields["NextToken"], digest) if "NextToken" in fields else tokens.BEGIN
    least = read_units(0, consistent=is_consistent)
    await context.admit(RequestClass.READ, least, table)
    found = await _pages(context, known, index, select, access, place, fields.get("Limit"))
    table_units = _units(found.table_bytes, is_consistent)
    index_units = _units(found.index_bytes, is_consistent)
    context.settle(RequestClass.READ, max(least, table_units + index_units), least)
    if select.paths is not None:
        found.items = [
            orjson.dumps(flattened(select.paths, decode(stored))) for stored in found.items
        ]
    members: dict[str, Any] = {}
    if found.next is not None:
        members["NextToken"] = tokens.write(found.next, digest)
        if found.next.key is not None:
            members["LastEvaluatedKey"] = found.next.key
    members |= consumed_by_read(fields, table, table_units, index, index_units)
    body = b'{"Items":[' + b",".join(found.items) + b"]"
    return body + b"," + orjson.dumps(members)[1:] if members else body + b"}"


async def _pages(
    context: Context,
    known: Known,
    index: Index | None,
    select: Select,
    access: Access,
    place: tokens.Place,
    limit: int | None,
) -> Found:
    """Read up to a page: of the partitions one after the other, from a place on."""
    table = known.table
    found = Found([])
    whole = _needs_whole(table, index, select)
    partitions = access.partitions or ((),)
    if place.partition >= len(partitions):
        raise tokens.invalid()
    partition, start_key = place.partition, place.key
    while True:
        wanted = Wanted(
            index=index,
            limit=None if limit is None else limit - found.scanned,
            filter=access.filter,
            projection=None,
            whole=whole,
            counts_only=False,
        )
        tests = partitions[partition] if access.partitions else None
        page = await _page(context, table, wanted, tests, start_key, access.is_forward)
        found.add(page)
        if page.last is not None:
            last = key_of(start_names(table, index), page.last)
            found.next = tokens.Place(partition, last)
            return found
        partition, start_key = partition + 1, None
        if partition == len(partitions):
            return found
        if found.scanned == limit or found.table_bytes + found.index_bytes >= PAGE_BYTES_MAX:
            found.next = tokens.Place(partition, None)
            return found


async def _page(
    context: Context,
    table: Table,
    wanted: Wanted,
    tests: tuple[Any, ...] | None,
    start_key: Item | None,
    is_forward: bool,
) -> Page:
    """Read a page of a partition, or of everything if `tests` is None."""
    index = wanted.index
    if tests is None:
        start = None
        if start_key is not None:
            check_scan_start(table, index, start_key)
            start = key_start(table, index, start_key)

        def scanned(place: StartKey | None, rows_max: int, bytes_left: int) -> SqlStatement:
            return scan_page(table, index, None, place, rows_max=rows_max, bytes_left=bytes_left)

        return await read_page(context, table, wanted, scanned, start)
    wanted_range = query_range(table, index, tests, start_key)

    def queried(place: StartKey | None, rows_max: int, bytes_left: int) -> SqlStatement:
        return query_page(
            table, index, wanted_range, place,
            is_forward=is_forward, rows_max=rows_max, bytes_left=bytes_left,
        )  # fmt: skip

    return await read_page(context, table, wanted, queried, wanted_range.start)


def _needs_whole(table: Table, index: Index | None, select: Select) -> bool:
    """Say whether a SELECT of an index needs more of the items than the index holds.

    Raises DynamoError: a global one does not fetch it.
    """
    names = {str(path.parts[0]) for path in select.paths or ()}
    checks.check_nested_names(
        table, [str(path.parts[0]) for path in select.paths or () if len(path.parts) > 1]
    )
    if index is None or not index.projected or names <= index.projected:
        return False
    if index.is_global:
        missing = ", ".join(sorted(names - index.projected))
        raise invalid_parameter(f"Global secondary index {index.name} does not project [{missing}]")
    return True


def _units(size_bytes: int, is_consistent: bool) -> float:
    return read_units(size_bytes, consistent=is_consistent) if size_bytes else 0.0

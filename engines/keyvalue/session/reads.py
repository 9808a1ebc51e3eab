"""Query and Scan: pages of at most 1 MB, read in pieces, filtered, projected.

What a page has read, not what it returns, is what it may read and what it costs. Where the client
wants items whole and all of them, they are sent as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from engines.keyvalue.capacity import PAGE_BYTES_MAX, item_size, page_size, read_units
from engines.keyvalue.errors import invalid_parameter, validation
from engines.keyvalue.evaluate import conditions, projections
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan import checks
from engines.keyvalue.plan.catalogue import ACTIVE, Index, Table
from engines.keyvalue.plan.keys import segment_range
from engines.keyvalue.plan.ranges import (
    StartKey,
    check_scan_start,
    key_of,
    key_start,
    place_of,
    query_range,
    start_names,
)
from engines.keyvalue.reply import consumed_by_read
from engines.keyvalue.session.context import Context, Known
from engines.keyvalue.sql.pages import query_page, scan_page
from engines.keyvalue.values import Item, decode
from engines.kit.ports import RequestClass
from engines.kit.statement import Statement

# The first piece is small, because most pages are; each further one is larger.
PIECE_ROWS = 64
PIECE_GROWTH = 4
PIECE_ROWS_MAX = 4096

Piece = Callable[[StartKey | None, int, int], Statement]


@dataclass(slots=True)
class Wanted:
    """What a page is read for."""

    index: Index | None
    limit: int | None
    filter: Any  # a condition, or None
    projection: Any  # what is asked of each item, or None
    whole: bool  # attributes that the index does not hold are wanted too
    counts_only: bool


@dataclass(slots=True)
class Page:
    """What was read: items as they are sent, and what reading them cost."""

    items: list[bytes] = field(default_factory=list)
    count: int = 0
    scanned: int = 0
    last: Item | None = None  # the last that was read, if there may be more
    table_bytes: int = 0
    index_bytes: int = 0


async def query(context: Context, parsed: Parsed) -> bytes:
    """Query."""
    fields = parsed.fields
    known = await context.table(fields["TableName"])
    table, index = known.table, index_of(known.table, fields)
    condition = parsed.expressions.key_condition
    wanted_range = query_range(
        table, index, condition.tests if condition else (), fields.get("ExclusiveStartKey")
    )
    _check_filter(parsed, table, index)
    wanted = _wanted(parsed, table, index)
    _check_nested_filter(parsed, table)
    is_forward = fields.get("ScanIndexForward", True)

    def piece(start: StartKey | None, rows_max: int, bytes_left: int) -> Statement:
        return query_page(
            table, index, wanted_range, start,
            is_forward=is_forward, rows_max=rows_max, bytes_left=bytes_left,
        )  # fmt: skip

    return await _answer(context, known, fields, wanted, piece, wanted_range.start)


async def scan(context: Context, parsed: Parsed) -> bytes:
    """Scan, of a segment if the request names one."""
    fields = parsed.fields
    known = await context.table(fields["TableName"])
    table, index = known.table, index_of(known.table, fields)
    start_key, start, hashes = fields.get("ExclusiveStartKey"), None, None
    if start_key is not None:
        check_scan_start(table, index, start_key)
    wanted = _wanted(parsed, table, index)
    if start_key is not None:
        start = key_start(table, index, start_key)
    if fields.get("TotalSegments", 1) > 1:
        segment, total = fields["Segment"], fields["TotalSegments"]
        hashes = segment_range(segment, total)
        if start is not None and not hashes[0] <= _hash_of(start) <= hashes[1]:
            raise validation(
                "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use "
                f"ExclusiveStartKey with correct Segment. TotalSegments: {total} "
                f"Segment: {segment}"
            )
    _check_nested_filter(parsed, table)

    def piece(place: StartKey | None, rows_max: int, bytes_left: int) -> Statement:
        return scan_page(table, index, hashes, place, rows_max=rows_max, bytes_left=bytes_left)

    return await _answer(context, known, fields, wanted, piece, start)


async def _answer(
    context: Context,
    known: Known,
    fields: Mapping[str, Any],
    wanted: Wanted,
    piece: Piece,
    start: StartKey | None,
) -> bytes:
    table, index = known.table, wanted.index
    is_consistent = bool(fields.get("ConsistentRead"))
    least = read_units(0, consistent=is_consistent)
    await context.admit(RequestClass.READ, least, table)
    page = await read_page(context, table, wanted, piece, start)
    table_units = _units(page.table_bytes, is_consistent)
    index_units = _units(page.index_bytes, is_consistent)
    context.settle(RequestClass.READ, max(least, table_units + index_units), least)
    members: dict[str, Any] = {"Count": page.count, "ScannedCount": page.scanned}
    if page.last is not None:
        members["LastEvaluatedKey"] = key_of(start_names(table, index), page.last)
    members |= consumed_by_read(fields, table, table_units, index, index_units)
    body = orjson.dumps(members)
    if wanted.counts_only:
        return body
    return b'{"Items":[' + b",".join(page.items) + b"]," + body[1:]


async def read_page(
    context: Context, table: Table, wanted: Wanted, piece: Piece, start: StartKey | None
) -> Page:
    """Read one page, in as many pieces as it needs."""
    page = Page()
    rows_max, bytes_left = PIECE_ROWS, PAGE_BYTES_MAX
    while True:
        if wanted.limit is not None:
            rows_max = min(rows_max, wanted.limit - page.scanned)
        statement = piece(start, rows_max, bytes_left)
        rows = await context.store.fetch(statement.text, *statement.params)
        # The server counts items whole. Where an index holds parts of them, a page has room left
        # when the server stops.
        server_left, stored = bytes_left, b""
        for stored, size_bytes, page_bytes in rows:
            server_left -= page_bytes
            bytes_left -= _take(page, table, wanted, stored, size_bytes, page_bytes)
            if bytes_left <= 0:
                break
        if bytes_left <= 0 or page.scanned == wanted.limit:
            page.last = decode(stored)
            return page
        if len(rows) < rows_max and server_left > 0:
            return page
        start = place_of(table, wanted.index, decode(stored))
        rows_max = min(rows_max * PIECE_GROWTH, PIECE_ROWS_MAX)


def _take(
    page: Page, table: Table, wanted: Wanted, stored: bytes, size_bytes: int, page_bytes: int
) -> int:
    """Take one item into a page; return what it counts towards the page's bytes."""
    index = wanted.index
    page.scanned += 1
    item: Item | None = None
    if index is None:
        page.table_bytes += size_bytes
    elif not index.projected:
        page.index_bytes += size_bytes
    else:
        item = decode(stored)
        part = {name: value for name, value in item.items() if name in index.projected}
        page.index_bytes += item_size(part)
        page_bytes = page_size(part, table.range.name if table.range else None)
        if wanted.whole:
            page.table_bytes += size_bytes
        else:
            item = part
    if wanted.filter is not None:
        item = decode(stored) if item is None else item
        if not conditions.matches(wanted.filter, item):
            return page_bytes
    page.count += 1
    if not wanted.counts_only:
        page.items.append(_sent(wanted, stored, item))
    return page_bytes


def _sent(wanted: Wanted, stored: bytes, item: Item | None) -> bytes:
    """Return an item as it is sent; `item` is what is left of it, if it was decoded."""
    if wanted.projection is not None:
        item = decode(stored) if item is None else item
        return orjson.dumps(projections.project(wanted.projection, item))
    if item is None or wanted.index is None or wanted.whole:
        return stored
    return orjson.dumps(item) if wanted.index.projected else stored


def index_of(table: Table, fields: Mapping[str, Any]) -> Index | None:
    """Return the index that a request names."""
    name = fields.get("IndexName")
    if name is None:
        return None
    index = table.indexes.get(name)
    if index is None:
        raise validation(f"The table does not have the specified index: {name}")
    if index.status != ACTIVE:
        raise validation(f"Cannot read from backfilling global secondary index: {name}")
    if index.is_global and fields.get("ConsistentRead"):
        raise validation("Consistent reads are not supported on global secondary indexes")
    return index


def _wanted(parsed: Parsed, table: Table, index: Index | None) -> Wanted:
    fields, projection = parsed.fields, parsed.expressions.projection
    whole = index is not None and fields.get("Select") == "ALL_ATTRIBUTES"
    if index is not None and index.projected and index.is_global:
        if whole:
            raise invalid_parameter(
                "Select type ALL_ATTRIBUTES is not supported for global secondary index "
                f"{index.name} because its projection type is not ALL"
            )
        if projection is not None and (names := projection.heads - index.projected):
            raise invalid_parameter(
                f"Global secondary index {index.name} does not project [{', '.join(sorted(names))}]"
            )
    if projection is not None:
        checks.check_nested_names(table, projection.nested)
        # A local index fetches from the table what it does not hold.
        whole = whole or (index is not None and bool(projection.heads - index.projected))
    return Wanted(
        index=index,
        limit=fields.get("Limit"),
        filter=parsed.expressions.filter,
        projection=projection,
        whole=whole,
        counts_only=fields.get("Select") == "COUNT",
    )


def _check_filter(parsed: Parsed, table: Table, index: Index | None) -> None:
    """A query's filter must not speak of the key that it reads by."""
    condition = parsed.expressions.filter
    if condition is None:
        return
    word = "QueryFilter" if "QueryFilter" in parsed.fields else "Filter Expression"
    for attribute in table.keys if index is None else index.keys:
        if attribute.name in condition.heads:
            raise validation(
                f"{word} can only contain non-primary key attributes: Primary key attribute: "
                f"{attribute.name}"
            )


def _check_nested_filter(parsed: Parsed, table: Table) -> None:
    if parsed.expressions.filter is not None:
        checks.check_nested_names(table, parsed.expressions.filter.nested)


def _units(size_bytes: int, is_consistent: bool) -> float:
    return read_units(size_bytes, consistent=is_consistent) if size_bytes else 0.0


def _hash_of(start: StartKey) -> int:
    if start.index_key is not None:
        return int.from_bytes(start.index_key[:4]) - (1 << 31)
    return start.key.sk

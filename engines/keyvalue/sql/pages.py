"""What Query and Scan read: rows of a range in order, bound by their count and by their bytes.

    query of a table          sk, pk fixed       in the order of rk
    ... of a local index      sk, pk fixed       r<n>, tie, rk
    ... of a global index     k<n> fixed         r<n>, tie, sk, pk, rk
    scan of a table           sk in the segment  sk, pk, rk
    ... of a local index      sk in the segment  sk, pk, r<n>, tie, rk
    ... of a global index     k<n>'s hash        k<n>, r<n>, tie, sk, pk, rk

The innermost SELECT walks the b-tree and stops at a count; around it the sizes are summed up, so
that no more than a page of items leaves the server however large they are. Rows are (item,
size_bytes, page_bytes).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from engines.keyvalue.plan.catalogue import Index, Table
from engines.keyvalue.plan.ranges import QueryRange, StartKey
from engines.kit.statement import Name, Statement

_TYPES = {"sk": "int4", "tie": "int4"}
_SIGN_BIT = 1 << 31


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the text of a page depends on."""

    table: Name
    order: tuple[str, ...]
    fixed: tuple[str, ...]  # columns that equal a value
    present: str  # a column that must not be null; "" for none
    bounds: tuple[tuple[str, str], ...]  # (column, operator)
    has_start: bool
    is_forward: bool


def query_page(
    table: Table,
    index: Index | None,
    wanted: QueryRange,
    start: StartKey | None,
    *,
    is_forward: bool,
    rows_max: int,
    bytes_left: int,
) -> Statement:
    """Read a piece of a query behind `start`."""
    column = "rk" if index is None else f"r{index.slot}"
    if index is not None and index.is_global:
        fixed: dict[str, object] = {f"k{index.slot}": wanted.pk}
    else:
        fixed = {"sk": wanted.sk, "pk": wanted.pk}
    sort, bounds = wanted.sort, []
    if sort.low is not None:
        bounds.append((column, ">=" if sort.low_is_in else ">", sort.low))
    if sort.high is not None:
        bounds.append((column, "<=" if sort.high_is_in else "<", sort.high))
    order = tuple(each for each in order_of(index) if each not in fixed)
    return _statement(table, index, order, fixed, bounds, start, is_forward, rows_max, bytes_left)


def scan_page(
    table: Table,
    index: Index | None,
    hashes: tuple[int, int] | None,
    start: StartKey | None,
    *,
    rows_max: int,
    bytes_left: int,
) -> Statement:
    """Read a piece of a scan behind `start`; `hashes` are the first and last of its segment."""
    bounds: list[tuple[str, str, object]] = []
    if hashes is not None:
        first, last = hashes
        if index is not None and index.is_global:
            column = f"k{index.slot}"
            bounds.append((column, ">=", (first + _SIGN_BIT).to_bytes(4)))
            if last + 1 < _SIGN_BIT:
                bounds.append((column, "<", (last + 1 + _SIGN_BIT).to_bytes(4)))
        else:
            bounds += [("sk", ">=", first), ("sk", "<=", last)]
    return _statement(table, index, order_of(index), {}, bounds, start, True, rows_max, bytes_left)


def order_of(index: Index | None) -> tuple[str, ...]:
    """Return the columns in whose order a table or an index lies."""
    if index is None:
        return ("sk", "pk", "rk")
    if index.is_global:
        return (f"k{index.slot}", f"r{index.slot}", "tie", "sk", "pk", "rk")
    return ("sk", "pk", f"r{index.slot}", "tie", "rk")


def _statement(
    table: Table,
    index: Index | None,
    order: tuple[str, ...],
    fixed: dict[str, object],
    bounds: Sequence[tuple[str, str, object]],
    start: StartKey | None,
    is_forward: bool,
    rows_max: int,
    bytes_left: int,
) -> Statement:
    present = ""
    if index is not None:
        present = f"k{index.slot}" if index.is_global else f"r{index.slot}"
    shape = _Shape(
        table=table.sql_name,
        order=order,
        fixed=tuple(fixed),
        present=present,
        bounds=tuple((column, operator) for column, operator, _ in bounds),
        has_start=start is not None,
        is_forward=is_forward,
    )
    params = [*fixed.values(), *(value for _, _, value in bounds)]
    if start is not None:
        params += _place(start, order)
    return Statement(_text(shape), (*params, rows_max, bytes_left))


def _place(start: StartKey, order: Sequence[str]) -> list[object]:
    own: dict[str, object] = {
        "sk": start.key.sk,
        "pk": start.key.pk,
        "rk": start.key.rk,
        "tie": start.tie,
        "k": start.index_key,
        "r": start.index_range,
    }
    return [own[column if column in own else column[0]] for column in order]


@functools.lru_cache(maxsize=4096)
def _text(shape: _Shape) -> str:
    conditions = [f"{column} = ${at}::{_type(column)}" for at, column in enumerate(shape.fixed, 1)]
    at = len(conditions) + 1
    for column, operator in shape.bounds:
        conditions.append(f"{column} {operator} ${at}::{_type(column)}")
        at += 1
    if shape.has_start:
        places = ", ".join(
            f"${at + step}::{_type(column)}" for step, column in enumerate(shape.order)
        )
        operator = ">" if shape.is_forward else "<"
        conditions.append(f"({', '.join(shape.order)}) {operator} ({places})")
        at += len(shape.order)
    if shape.present:
        conditions.append(f"{shape.present} IS NOT NULL")
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    direction = "" if shape.is_forward else " DESC"
    order = ", ".join(f"{column}{direction}" for column in shape.order)
    columns = ", ".join(shape.order)
    return (
        "SELECT item, size_bytes, page_bytes FROM ("
        f"SELECT item, size_bytes, page_bytes, {columns}, sum(page_bytes) OVER "
        f"(ORDER BY {order} ROWS UNBOUNDED PRECEDING) - page_bytes AS bytes_before FROM ("
        f"SELECT item, size_bytes, page_bytes, {columns} FROM {shape.table} {where}"
        f"ORDER BY {order} LIMIT ${at}::int8) walked) summed "
        f"WHERE bytes_before < ${at + 1}::int8 ORDER BY {order}"
    )


def _type(column: str) -> str:
    return _TYPES.get(column, "bytea")

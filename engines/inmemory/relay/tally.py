"""Counting the whole commands at the beginning of a chunk, by class: the hot path, compiled.

    *3 CRLF $3 CRLF SET CRLF $1 CRLF k CRLF $64 CRLF ... CRLF *2 CRLF ...

Names are looked up; all else is skipped by its length. What is no exact array of bulk strings, or
needs a closer look (`parse.TRACKED`), ends the count: the relay takes it from there. Interpreted,
this is slower than hiredis, so `tally_plain` does the same where nothing is compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engines.inmemory.parse import IS_EXEC, IS_MULTI, KINDS, kind_of

if TYPE_CHECKING:
    from mypy_extensions import i64  # a machine word, where compiled

_ARRAY: Final = 0x2A
_BULK: Final = 0x24
_CR: Final = 0x0D
_LF: Final = 0x0A
_ZERO: Final = 0x30
# What is whole within a chunk is shorter by far. Redis' own bounds are checked by `wire`.
_NUMBER_MAX: Final = 999_999_999
# No server knows a longer name.
_NAME_BYTES_MAX: Final = 128
_IS_MULTI: Final[int] = IS_MULTI
_IS_EXEC: Final[int] = IS_EXEC
# `RequestClass`, as numbers.
_UNLIMITED: Final = 0
_READ: Final = 1
_WRITE: Final = 2
_QUERY: Final = 3


def count_commands(data: bytes, units: list[int]) -> int:
    """Add the whole commands at the beginning of `data` to `units`, by class.

    Return where they end. A transaction is whole from MULTI to EXEC, and counts as the commands
    inside of it, with two that are unlimited.
    """
    kinds = KINDS
    size: i64 = len(data)
    position: i64 = 0
    unlimited: i64 = 0
    read: i64 = 0
    write: i64 = 0
    query: i64 = 0
    multi: i64 = -1  # where a MULTI stands that no EXEC has followed yet
    while position < size and data[position] == _ARRAY:
        arguments, at = _read_number(data, position + 1, size)
        name, at = _skip_bulk(data, at, size)
        if arguments < 1 or name < 0 or at - name - 2 > _NAME_BYTES_MAX:
            break
        end = _skip_arguments(data, at, arguments - 1, size)
        if end < 0:
            break
        spelling = data[name : at - 2]
        kind: i64 = kinds.get(spelling, -1)
        if kind < 0:
            kind = kind_of(spelling)
        if kind == _READ:
            read += 1
        elif kind == _WRITE:
            write += 1
        elif kind == _QUERY:
            query += 1
        elif kind != _UNLIMITED:
            if arguments > 1 or kind != (_IS_MULTI if multi < 0 else _IS_EXEC):
                break
            multi = position if multi < 0 else -1
            unlimited += 1
        else:
            unlimited += 1
        position = end
    if multi >= 0:
        return count_commands(data[:multi], units)
    units[_UNLIMITED] += unlimited
    units[_READ] += read
    units[_WRITE] += write
    units[_QUERY] += query
    return position


def _skip_arguments(data: bytes, at: i64, count: i64, size: i64) -> i64:
    """Return where the `count` bulk strings at `at` end; -1 if they are not all here."""
    while count > 0:
        start, at = _skip_bulk(data, at, size)
        if start < 0:
            return -1
        count -= 1
    return at


def _skip_bulk(data: bytes, at: i64, size: i64) -> tuple[i64, i64]:
    """Return where the bytes of the bulk string at `at` begin, and where the next one does.

    The former is -1 if it is not all here, or is none. The CRLF behind the bytes is skipped
    unseen, as Redis does.
    """
    if at >= size or data[at] != _BULK:
        return -1, at
    length, start = _read_number(data, at + 1, size)
    at = start + length + 2
    if length < 0 or at > size:
        return -1, at
    return start, at


def _read_number(data: bytes, at: i64, size: i64) -> tuple[i64, i64]:
    """Return the number of the header line whose digits begin at `at`, and where the line ends.

    The number is -1 if the line is not all here, or is not as Redis' string2ll takes it.
    """
    start = at
    number: i64 = 0
    while at < size and number <= _NUMBER_MAX:
        digit: i64 = data[at] - _ZERO
        if digit < 0 or digit > 9:
            break
        number = number * 10 + digit
        at += 1
    if at == start or at + 1 >= size or data[at] != _CR or data[at + 1] != _LF:
        return -1, at
    if at > start + 1 and data[start] == _ZERO:
        return -1, at
    return number, at + 2

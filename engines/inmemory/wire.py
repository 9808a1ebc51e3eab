"""RESP as clients send it: arrays of bulk strings, and inline commands.

    *2 CRLF $3 CRLF GET CRLF $1 CRLF k CRLF        an array: counts, then bytes
    GET "a key" CRLF                               inline: words, with quotes and escapes

Replies are never parsed here. https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import re

from engines.kit.contract import Preamble
from engines.kit.errors import Reason, RequestError

TLS_HANDSHAKE_BYTE = b"\x16"

# PROTO_INLINE_MAX_SIZE of Redis' server.h: also the longest header line.
INLINE_BYTES_MAX = 64 * 1024
# What Redis itself allows to a client that has not signed in (networking.c).
LOGIN_ARGUMENTS_MAX = 10
LOGIN_ARGUMENT_BYTES_MAX = 16_384
# Redis' own bounds for a signed-in client: arguments, and proto-max-bulk-len.
ARGUMENTS_MAX = 1024 * 1024
ARGUMENT_BYTES_MAX = 512 * 1024 * 1024

# A header that no server takes, where a command begins.
GARBAGE = b"*x\r\n"

ARRAY = ord("*")
BULK = ord("$")
# "*" or "$", at most ten digits (and a sign), CRLF.
_LINE_BYTES_MAX = 14
# As strict as Redis' string2ll: no plus sign, no leading zeros.
_NUMBER = re.compile(rb"-?[1-9][0-9]{0,9}|0")


class ProtocolError(RequestError):
    """The framing is lost at `position`.

    `garbage` is what makes Redis itself say so there, in order, and close.
    """

    def __init__(self, message: str, garbage: bytes, position: int) -> None:
        super().__init__(Reason.MALFORMED, f"Protocol error: {message}")
        self.garbage = garbage
        self.position = position


def preamble(data: bytes, is_tls_available: bool) -> Preamble:
    """Decide on a client's first byte: TLS or plain."""
    return Preamble(tls=is_tls_available and data[:1] == TLS_HANDSHAKE_BYTE)


def encode_command(*arguments: bytes) -> bytes:
    """Encode a command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)


def read_count(data: bytes, position: int, arguments_max: int) -> tuple[int, int] | None:
    """Read `*<count>` and return count and the position behind; None if it is not all there.

    A count below one is an empty command, which Redis skips. Raises ProtocolError.
    """
    line = _read_number(data, position)
    if line is None:
        return None
    count, end = line
    if count is None or count > arguments_max:
        raise ProtocolError("invalid multibulk length", GARBAGE, position)
    return max(0, count), end


def read_length(data: bytes, position: int, bytes_max: int) -> tuple[int, int] | None:
    """Read `$<length>` and return length and the position behind; None if it is not all there.

    Raises ProtocolError.
    """
    if position < len(data) and data[position] != BULK:
        kind = chr(data[position]) if 32 < data[position] < 127 else "?"
        raise ProtocolError(f"expected '$', got '{kind}'", kind.encode() + b"\r\n", position)
    line = _read_number(data, position)
    if line is None:
        return None
    length, end = line
    if length is None or not 0 <= length <= bytes_max:
        raise ProtocolError("invalid bulk length", b"$x\r\n", position)
    return length, end


def _read_number(data: bytes, position: int) -> tuple[int | None, int] | None:
    end = data.find(b"\r\n", position, position + _LINE_BYTES_MAX)
    if end < 0:
        return (None, position) if len(data) - position >= _LINE_BYTES_MAX else None
    digits = _NUMBER.fullmatch(data, position + 1, end)
    return (int(digits[0]) if digits else None), end + 2


def read_arguments(
    data: bytes,
    position: int,
    arguments_max: int = LOGIN_ARGUMENTS_MAX,
    bytes_max: int = LOGIN_ARGUMENT_BYTES_MAX,
) -> tuple[list[bytes], int] | None:
    """Read one whole command and return its arguments and the position behind it.

    None if it is not all there; no arguments if it is empty. Raises ProtocolError, before anything
    beyond the limits would have to be kept.
    """
    if position >= len(data):
        return None
    if data[position] != ARRAY:
        return _read_inline(data, position)
    header = read_count(data, position, arguments_max)
    if header is None:
        return None
    count, position = header
    arguments = []
    for _ in range(count):
        line = read_length(data, position, bytes_max)
        if line is None:
            return None
        length, start = line
        position = start + length + 2
        if position > len(data):
            return None
        arguments.append(data[start : start + length])
    return arguments, position


def _read_inline(data: bytes, position: int) -> tuple[list[bytes], int] | None:
    end = data.find(b"\n", position)
    if max(end, len(data) if end < 0 else 0) - position > INLINE_BYTES_MAX:
        raise ProtocolError("too big inline request", GARBAGE, position)
    if end < 0:
        return None
    try:
        return split_inline(data[position:end]), end + 1
    except ValueError as error:
        raise ProtocolError(str(error), b'"\r\n', position) from error


_BLANKS = b" \t\r\n\x0b\x0c\0"
_ESCAPES = {
    ord(k): ord(v) for k, v in {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}.items()
}
_HEX = re.compile(rb"\\x([0-9a-fA-F]{2})")


def split_inline(line: bytes) -> list[bytes]:
    """Split an inline command into words as Redis' sdssplitargs does.

    Raises ValueError for quotes that are not closed or that end inside of a word.
    """
    words: list[bytes] = []
    position = 0
    while True:
        while position < len(line) and line[position] in _BLANKS:
            position += 1
        if position >= len(line):
            return words
        word = bytearray()
        while position < len(line) and line[position] not in _BLANKS:
            if line[position] in b"\"'":
                position = _read_quoted(line, position, word)
            else:
                word.append(line[position])
                position += 1
        words.append(bytes(word))


def _read_quoted(line: bytes, position: int, word: bytearray) -> int:
    """Append what stands between quotes to `word` and return the position behind them."""
    quote = line[position]
    position += 1
    while position < len(line) and line[position] != quote:
        escape = _HEX.match(line, position) if quote == ord('"') else None
        if escape is not None:
            word.append(int(escape[1], 16))
            position = escape.end()
            continue
        if line[position] == ord("\\") and position + 1 < len(line):
            following = line[position + 1]
            if quote == ord('"'):
                word.append(_ESCAPES.get(following, following))
                position += 2
                continue
            if following == quote:
                position += 1
        word.append(line[position])
        position += 1
    position += 1
    if position > len(line) or (position < len(line) and line[position] not in _BLANKS):
        raise ValueError("unbalanced quotes in request")
    return position

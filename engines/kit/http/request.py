"""One HTTP request: lazily read query and headers, and a body that is measured before it is kept.

A body may be gzipped (`Content-Encoding: gzip`). The bound holds for what it inflates to, and is
checked piece by piece, so that a bomb costs no more than an honest body of the largest size.
"""

from __future__ import annotations

import re
import secrets
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from engines.kit.errors import LocalError, Reason, RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

QUERY_FIELDS_MAX = 1000
INFLATED_PIECE_BYTES = 64 * 1024
# A body that deflate cannot shrink grows by a few bytes each 16 KiB, and has a header.
_GZIP_GROWTH_DIVISOR = 1000
_GZIP_HEADER_BYTES = 1024
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,64}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_GZIP_WBITS = 16 + zlib.MAX_WBITS


class ClientGoneError(Exception):
    """The client left before its body was complete; nobody is there to answer."""


class Request:
    """What a handler is given.

    `params` are the path's parameters, `template` is the route's (a metric label), `request_id`
    is the client's X-Request-ID if that is sane, else a new one.
    """

    __slots__ = (
        "_headers", "_is_body_read", "_is_body_started", "_query", "_receive",
        "method", "params", "path", "request_id", "scope", "template",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.params: dict[str, str] = {}
        self.template = ""
        self._receive = receive
        self._headers: dict[bytes, bytes] | None = None
        self._query: dict[str, list[str]] | None = None
        self._is_body_started = False
        self._is_body_read = False
        given = self.header_bytes(b"x-request-id")
        is_sane = given is not None and _REQUEST_ID.fullmatch(given)
        self.request_id = given.decode() if given and is_sane else secrets.token_hex(16)

    def header(self, name: str) -> str | None:
        """Return a header's value; values of a repeated header are joined by commas."""
        value = self.header_bytes(name.lower().encode())
        return None if value is None else value.decode("latin-1")

    def header_bytes(self, name: bytes) -> bytes | None:
        """Return a header's value as bytes; `name` is in lower case."""
        if self._headers is None:
            merged: dict[bytes, bytes] = {}
            for key, value in self.scope["headers"]:
                merged[key] = merged[key] + b", " + value if key in merged else value
            self._headers = merged
        return self._headers.get(name)

    def query(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of a query parameter."""
        values = self.query_all(name)
        return values[0] if values else default

    def query_all(self, name: str) -> list[str]:
        """Return all values of a query parameter."""
        return self.query_map().get(name, [])

    def query_map(self) -> dict[str, list[str]]:
        """Return all query parameters.

        Raises RequestError: MALFORMED, LIMIT.
        """
        if self._query is None:
            self._query = _parsed_query(self.scope["query_string"])
        return self._query

    async def body(self, bytes_max: int) -> bytes:
        """Read the whole body, inflated.

        Raises RequestError: LIMIT over `bytes_max`, MALFORMED, UNSUPPORTED; ClientGoneError.
        """
        return b"".join([piece async for piece in self.stream(bytes_max)])

    async def stream(self, bytes_max: int) -> AsyncIterator[bytes]:
        """Read the body piece by piece, inflated; raises what `body` raises."""
        if self._is_body_started:
            raise LocalError("the body of a request is read once")
        encoding = (self.header_bytes(b"content-encoding") or b"identity").strip().lower()
        if encoding not in _ENCODINGS:
            raise RequestError(
                Reason.UNSUPPORTED, "this content encoding is not supported; use gzip or none"
            )
        decoder = _ENCODINGS[encoding](bytes_max)
        if self._length() > decoder.encoded_bytes_max:
            raise _too_long(bytes_max)
        self._is_body_started = True
        while not self._is_body_read:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self._is_body_read = not message.get("more_body", False)
            for piece in decoder.decode(message.get("body", b"")):
                yield piece
        decoder.finish()

    def unread_bytes(self) -> int | None:
        """Return how much of the body may still be on its way; None if nobody knows."""
        if self._is_body_read:
            return 0
        if self.header_bytes(b"transfer-encoding") is not None:
            return None
        # A client that waits for "100 Continue" may send its body, or not.
        if self.header_bytes(b"expect") is not None and not self._is_body_started:
            return None
        value = self.header_bytes(b"content-length") or b"0"
        return int(value) if _LENGTH.fullmatch(value) else None

    def _length(self) -> int:
        """Return what Content-Length says; 0 for a body that is sent in chunks."""
        value = self.header_bytes(b"content-length") or b"0"
        if not _LENGTH.fullmatch(value):
            raise RequestError(Reason.MALFORMED, "malformed Content-Length")
        return int(value)


class _Identity:
    """A body as it is, up to a bound."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._left = bytes_max
        self.encoded_bytes_max = bytes_max

    def decode(self, data: bytes) -> Iterator[bytes]:
        self._left -= len(data)
        if self._left < 0:
            raise _too_long(self._bytes_max)
        if data:
            yield data

    def finish(self) -> None:
        """A plain body ends anywhere."""


class _Gzip:
    """A gzipped body (RFC 1952; members may follow each other), bound by what it inflates to."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._left = bytes_max
        self.encoded_bytes_max = bytes_max + bytes_max // _GZIP_GROWTH_DIVISOR + _GZIP_HEADER_BYTES
        self._encoded_left = self.encoded_bytes_max
        self._member: zlib._Decompress | None = zlib.decompressobj(_GZIP_WBITS)

    def decode(self, data: bytes) -> Iterator[bytes]:
        # Empty members inflate to nothing, so the encoded bytes are bound too.
        self._encoded_left -= len(data)
        if self._encoded_left < 0:
            raise _too_long(self._bytes_max)
        while data:
            if self._member is None:
                self._member = zlib.decompressobj(_GZIP_WBITS)
            try:
                piece = self._member.decompress(data, INFLATED_PIECE_BYTES)
            except zlib.error as error:
                raise RequestError(Reason.MALFORMED, "the body is not valid gzip") from error
            self._left -= len(piece)
            if self._left < 0:
                raise _too_long(self._bytes_max)
            if piece:
                yield piece
            data = self._member.unconsumed_tail
            if self._member.eof:
                data, self._member = self._member.unused_data, None

    def finish(self) -> None:
        if self._member is not None:
            raise RequestError(Reason.MALFORMED, "the gzip body ends too early")


_ENCODINGS: dict[bytes, type[_Identity | _Gzip]] = {
    b"gzip": _Gzip,
    b"identity": _Identity,
    b"x-gzip": _Gzip,  # RFC 9110 section 8.4.1.3: the same
}


def _parsed_query(text: bytes) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(
            text.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except UnicodeDecodeError as error:
        raise RequestError(Reason.MALFORMED, "the query is not UTF-8") from error
    except ValueError as error:
        raise RequestError(Reason.LIMIT, "the query has too many parameters") from error
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _too_long(bytes_max: int) -> RequestError:
    return RequestError(Reason.LIMIT, f"the body is larger than {bytes_max} bytes")

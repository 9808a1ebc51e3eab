"""Bytes of one connection to whole requests: httptools, with bounds before memory. Pure.

Headers and bodies are measured while they arrive; what is over a bound raises `FramingError` with
the status to answer with, and the connection can only be closed then, for nobody knows where its
next request begins. Whatever HTTP lets two parties read differently (two lengths, a length and
chunks, a bare LF) is refused by the parser, so that no proxy before us can be deceived.
"""

from __future__ import annotations

from collections import deque
from ipaddress import IPv4Address, IPv6Address

import httptools

from engines.kit.http.whole import HttpCall, joined_headers

HEAD_BYTES_MAX = 32 * 1024
TARGET_BYTES_MAX = 8 * 1024
HEADERS_MAX = 100
# Bodies below this are not worth being counted against the worker's room for bodies.
SMALL_BODY_BYTES = 64 * 1024
_NAMES_MAX = 512

# Header names as they come -> lower-case text: clients use the same few.
_names: dict[bytes, str] = {}


class FramingError(Exception):
    """The connection cannot go on; `status` is what to answer with."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class BodyRoom:
    """How many bytes of large bodies a worker may hold at once."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max

    def take(self, size: int) -> bool:
        """Take so many; False if there are not as many."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """Give back."""
        self._left += size

    @property
    def left(self) -> int:
        """How many bytes may still be taken."""
        return self._left


class Received:
    """One request, and what its answer has to know of its framing."""

    __slots__ = ("call", "is_http_10", "keeps_alive", "room_bytes")

    def __init__(
        self, call: HttpCall, *, is_http_10: bool, keeps_alive: bool, room_bytes: int
    ) -> None:
        self.call = call
        self.is_http_10 = is_http_10
        self.keeps_alive = keeps_alive
        # What it holds of the worker's room for bodies.
        self.room_bytes = room_bytes


class RequestReader:
    """Takes bytes (`feed`), gives requests (`ready`)."""

    def __init__(
        self,
        *,
        body_bytes_max: int,
        room: BodyRoom,
        address: IPv4Address | IPv6Address,
        server_name: str,
        connection_id: str,
    ) -> None:
        self._body_bytes_max = body_bytes_max
        self._room = room
        self._address = address
        self._server_name = server_name
        self._connection_id = connection_id
        self._parser = httptools.HttpRequestParser(self)
        self.ready: deque[Received] = deque()
        # A request has begun and is not complete; and its headers are.
        self.is_reading = False
        self.is_in_body = False
        # The client waits for `100 Continue` before it sends the body.
        self.wants_continue = False
        self._is_last = False
        self._fault: FramingError | None = None
        self._head_bytes = 0
        self._fields_bytes = 0
        self._is_http_10 = False
        self._joined: dict[str, str] = {}
        self.body_bytes = 0
        self._room_bytes = 0
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take what has arrived. Raises FramingError."""
        if self._has_ended():
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._has_ended():
                # What stands behind the request that was to be the last.
                return
            raise self._fault or FramingError(400, str(error)) from error
        if self.is_reading and not self.is_in_body:
            # The parser keeps an unfinished header line; only the bytes tell how long it is.
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                raise FramingError(431, "the headers are too large")

    def end(self) -> None:
        """Read no further."""
        self._is_last = True

    def drop(self) -> None:
        """Let go of what is held: the connection has ended."""
        for received in self.ready:
            self._room.give(received.room_bytes)
        self.ready.clear()
        self._room.give(self._room_bytes)
        self._room_bytes = 0
        self._body.clear()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.is_reading = True
        self.is_in_body = False
        self._head_bytes = self._fields_bytes = self.body_bytes = 0
        self._target = b""
        self._headers = []

    def on_url(self, part: bytes) -> None:
        """Take the target, or a part of it."""
        self._target += part
        if len(self._target) > TARGET_BYTES_MAX:
            self._fail(414, "the target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Trailers behind a body are no headers, and are left out."""
        self._fields_bytes += len(name) + len(value)
        if self.is_in_body:
            if self._fields_bytes > HEAD_BYTES_MAX:
                self._fail(431, "the trailers are too large")
            return
        known = _names.get(name)
        if known is None:
            known = name.decode("latin-1").lower()
            if len(_names) < _NAMES_MAX and len(name) <= 64:
                _names[name] = known
        self._headers.append((known, value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Look at what the headers say about the body."""
        if len(self._headers) > HEADERS_MAX or self._fields_bytes > HEAD_BYTES_MAX:
            self._fail(431, "too many headers")
        version = self._parser.get_http_version()
        self._is_http_10 = version == "1.0"
        if version not in ("1.1", "1.0"):
            self._fail(505, "another version of HTTP")
        joined = self._joined = joined_headers(self._headers)
        expected = joined.get("expect")
        if expected is not None:
            if expected.lower() != "100-continue":
                self._fail(417, "an expectation that nobody can meet")
            self.wants_continue = not self._is_http_10
        if not ("host" in joined or self._is_http_10) or self._parser.should_upgrade():
            # The parser would not read the body of a request that asks for another protocol.
            self._fail(400, "no host, or another protocol asked for")
        if int(joined.get("content-length", 0)) > self._body_bytes_max:
            self._fail(413, "the body is too large")
        self.is_in_body = True
        self._fields_bytes = 0

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self.body_bytes += len(part)
        if self.body_bytes > self._body_bytes_max:
            self._fail(413, "the body is too large")
        if self.body_bytes > SMALL_BODY_BYTES:
            missing = self.body_bytes - self._room_bytes
            if not self._room.take(missing):
                self._fail(503, "no room for the body")
            self._room_bytes = self.body_bytes
        self._body.append(part)

    def on_message_complete(self) -> None:
        """Put the request where it is waited for."""
        parser, body = self._parser, self._body
        keeps_alive = parser.should_keep_alive()
        call = HttpCall(
            method=parser.get_method().decode("latin-1"),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            body=body[0] if len(body) == 1 else b"".join(body),
            address=self._address,
            server_name=self._server_name,
            connection_id=self._connection_id,
            joined=self._joined,
        )
        self.ready.append(
            Received(
                call,
                is_http_10=self._is_http_10,
                keeps_alive=keeps_alive,
                room_bytes=self._room_bytes,
            )
        )
        self._is_last = not keeps_alive
        self._body = []
        self._room_bytes = 0
        self.is_reading = self.is_in_body = self.wants_continue = False

    def _has_ended(self) -> bool:
        return self._is_last

    def _fail(self, status: int, reason: str) -> None:
        self._fault = FramingError(status, reason)
        raise self._fault

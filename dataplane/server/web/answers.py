"""An answer to bytes: status line, date, framing, the engine's headers. Pure but for the date."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from engines.kit.http.whole import HttpAnswer

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNK_BYTES = 64 * 1024
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
# RFC 9110 section 6.4.1: answers that have no body, and no length of one.
_BODILESS = {204, 304}


def rendered(
    answer: HttpAnswer, *, is_http_10: bool = False, closes: bool = False, is_head: bool = False
) -> bytes:
    """Return the bytes of an answer; `closes` announces the end of the connection."""
    body = answer.body
    is_chunked = False
    lines = [_head(answer.status, int(time.time()))]
    for name, value in answer.headers:
        if name == "transfer-encoding":
            # HTTP/1.0 knows no chunks; its connection ends where the body does.
            is_chunked = not is_http_10
            if not is_chunked:
                continue
        lines.append(f"{name}: {value}\r\n")
    if not is_chunked and answer.status not in _BODILESS:
        lines.append(f"content-length: {len(body)}\r\n")
    if closes:
        lines.append("connection: close\r\n")
    elif is_http_10:
        lines.append("connection: keep-alive\r\n")
    lines.append("\r\n")
    head = "".join(lines).encode("latin-1")
    if is_head or answer.status in _BODILESS:
        return head
    return head + (_chunked(body) if is_chunked else body)


@lru_cache(maxsize=64)
def _head(status: int, second: int) -> str:
    """Return status line and date: answers of one second have them in common."""
    return (
        f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n"
        f"date: {formatdate(second, usegmt=True)}\r\n"
    )


def _chunked(body: bytes) -> bytes:
    parts = []
    for start in range(0, len(body), CHUNK_BYTES):
        chunk = body[start : start + CHUNK_BYTES]
        parts.append(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    return b"".join((*parts, b"0\r\n\r\n"))

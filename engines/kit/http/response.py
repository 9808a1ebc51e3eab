"""One HTTP response: a status, headers, and a body that is bytes or a generator of bytes."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Self

from engines.kit.errors import LocalError

# Made once: `json.dumps` with these arguments would make one for every response.
_TO_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_UNSAFE = re.compile(r"[\r\n\0]")


class Response:
    """What a handler returns.

    A generator is closed in every case; an error before its first piece is answered like any
    other, a later one cuts the connection. It may yield b"" to have the headers sent at once.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int = 200,
        body: bytes | AsyncGenerator[bytes, None] = b"",
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers: list[tuple[bytes, bytes]] = []
        if content_type:
            self.add_header("content-type", content_type)
        for name, value in (headers or {}).items():
            self.add_header(name, value)

    @classmethod
    def json(
        cls,
        value: Any,
        status: int = 200,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Answer with JSON: compact, UTF-8, without NaN."""
        return cls(status, _TO_JSON(value).encode(), content_type, headers)

    def add_header(self, name: str, value: str) -> None:
        """Add a header; raises LocalError for one that would break the framing."""
        if _UNSAFE.search(name) or _UNSAFE.search(value):
            raise LocalError(f"the header {name!r} holds a line end")
        self.headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))

    def has_header(self, name: bytes) -> bool:
        """Say whether a header is set; `name` is in lower case."""
        return any(key == name for key, _ in self.headers)

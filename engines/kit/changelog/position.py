"""A reader's place in a log, as a value and as a token; and what one read returns.

A token is opaque to clients. Tokens of one log compare as bytes as the positions do, so that a
protocol may compare its resume tokens.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engines.kit.errors import Reason, RequestError

INT64_MAX = 2**63 - 1
# The first byte, so that another layout can follow one day.
_VERSION = 1
_LAYOUT = struct.Struct(">BIQQ")

Row = Sequence[Any]


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Everything up to and including this place has been read.

    A log by counter uses only `n`.
    """

    epoch: int = 0
    xid: int = 0
    n: int = 0

    def to_token(self) -> str:
        """Return the position as lower-case hex."""
        return _LAYOUT.pack(_VERSION, self.epoch, self.xid, self.n).hex()

    @classmethod
    def from_token(cls, token: str) -> Position:
        """Read a token; raises RequestError(MALFORMED) for what is none."""
        try:
            version, epoch, xid, n = _LAYOUT.unpack(bytes.fromhex(token))
        except (ValueError, struct.error) as error:
            raise RequestError(Reason.MALFORMED, "malformed position") from error
        is_in_range = epoch < 2**31 and xid <= INT64_MAX and n <= INT64_MAX
        # fromhex also takes spaces and capitals; a position has one spelling.
        if version != _VERSION or not is_in_range or bytes.fromhex(token).hex() != token:
            raise RequestError(Reason.MALFORMED, "malformed position")
        return cls(epoch, xid, n)


@dataclass(frozen=True, slots=True)
class Entry:
    """One change."""

    position: Position
    feed: int
    at: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """What one read returned: go on from `position`.

    If `is_lost`, entries behind the reader's place had been trimmed before it came: it has missed
    some, and must be told so.
    """

    entries: tuple[Entry, ...]
    position: Position
    is_lost: bool

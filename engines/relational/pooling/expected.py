"""What the server still has to answer, message by message: whose it is, and what undoes it.

The server answers in order, so one queue holds everything that was sent in a session: the client's
messages, ours between them, and answers that we give in the server's place when their turn comes.
"""

from __future__ import annotations

from typing import Final

from engines.relational.pooling.statements import Prepared

EXTENDED: Final = 1  # Parse, Bind, Describe, Execute, Close: one answer each, or an error
QUERY: Final = 2  # Query, FunctionCall: ends with its ReadyForQuery
SYNC: Final = 3
SYNTHETIC: Final = 4  # was not sent: `answer` is due when its turn comes
COPY_END: Final = 5  # CopyDone, CopyFail: no answer
MAYBE_SYNC: Final = 6  # a Sync that COPY probably reads past

# What our own queries are for.
NOTHING: Final = 0
PREPARING: Final = 1
READING_BACK: Final = 2
BARRIER: Final = 3


class Expected:
    """One message of which the answer is expected."""

    __slots__ = (
        "answer",
        "changes_unnamed",
        "closed_name",
        "is_ours",
        "kind",
        "name",
        "previous",
        "purpose",
        "replacement",
        "server_name",
        "taken_name",
        "unnamed",
        "unnamed_after",
        "unnamed_before",
    )

    def __init__(self, kind: int, is_ours: bool = False, purpose: int = NOTHING) -> None:
        self.kind = kind
        self.is_ours = is_ours
        self.purpose = purpose
        self.answer = b""
        # What the client gets instead of the server's error; the name it used, if that is taken.
        self.replacement = b""
        self.taken_name: bytes | None = None
        # What was noted ahead, and is undone if an error comes first: the client's name, ...
        self.name: bytes | None = None
        self.previous: Prepared | None = None
        # ... what the session is to hold, or no more, ...
        self.server_name: bytes | None = None
        self.closed_name: bytes | None = None
        # ... and the client's unnamed statement: what it was, and the numbers of both.
        self.changes_unnamed = False
        self.unnamed: bytes | None = None
        self.unnamed_before = 0
        self.unnamed_after = 0


# Those that carry nothing are shared.
THEIR_EXTENDED: Final = Expected(EXTENDED)
THEIR_QUERY: Final = Expected(QUERY)
THEIR_SYNC: Final = Expected(SYNC)
THEIR_COPY_END: Final = Expected(COPY_END)
THEIR_MAYBE_SYNC: Final = Expected(MAYBE_SYNC)
OUR_SYNC: Final = Expected(SYNC, is_ours=True)


def synthetic(answer: bytes, name: bytes, previous: Prepared | None) -> Expected:
    """Return an answer of ours; `name` meant `previous` before."""
    expected = Expected(SYNTHETIC)
    expected.answer = answer
    expected.name = name
    expected.previous = previous
    return expected


def refused(kind: int, replacement: bytes) -> Expected:
    """Return a message that the server must fail at, in place of one that we refuse."""
    expected = Expected(kind)
    expected.replacement = replacement
    return expected

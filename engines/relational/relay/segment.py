"""A segment: what one ReadyForQuery answers, and which of it an error left undone."""

from __future__ import annotations

from engines.kit.ports import RequestClass
from engines.relational.parse import Statement

# SQLSTATEs that say that the failing statement never began: ignored because the transaction has
# failed before; and a syntax error, if it points into the statement (P) and not into what a
# function was given while it ran (W, or no position: to_tsquery).
_IGNORED = b"25P02"
_SYNTAX_ERROR = b"42601"


class Segment:
    """What one ReadyForQuery will answer; `units[i]` is what the i-th message was admitted for."""

    # Made for each transaction, and seldom more than `units` is needed: the rest are defaults.
    ends_with_sync = False
    has_copy_end = False
    # How the server reads on: after an error (nothing until Sync), and in COPY (past Sync).
    ignores_all = False
    ignores_sync = False
    # Set by an error: how far the server had come.
    has_failed = False
    acknowledged = 0
    done = 0
    has_begun = True
    # Execute messages, each of which ends a statement; the rest of `done` is a simple Query's.
    executes = 0
    # Prepared statements (index, name, what it meant before, what it is taken for) and poisons.
    names: tuple[tuple[int, bytes, Statement | None, Statement], ...] = ()
    poisons: tuple[bytes, ...] = ()

    def __init__(self) -> None:
        self.units: list[tuple[RequestClass, ...]] = []

    def absorb(self, earlier: Segment) -> None:
        """Put a segment that gets no ReadyForQuery of its own in front of this one."""
        shift = len(earlier.units)
        self.names = earlier.names + tuple(
            (index + shift, name, previous, noted) for index, name, previous, noted in self.names
        )
        self.units = earlier.units + self.units
        self.executes += earlier.executes
        self.poisons = earlier.poisons + self.poisons
        self.has_failed = earlier.has_failed
        self.acknowledged = earlier.acknowledged
        self.done = earlier.done
        self.has_begun = earlier.has_begun

    def forget(self, count: int) -> None:
        """Drop the first `count` messages: the server has answered them, so they are performed."""
        del self.units[:count]
        self.names = tuple(
            (index - count, name, previous, noted)
            for index, name, previous, noted in self.names
            if index >= count
        )

    def uncounted(self, done: int) -> int:
        """Return how many statements a simple Query performed beyond those that were admitted.

        We read the first part of a text only, and might misread it; the server's CommandCompletes
        tell. An empty Query has one answer too.
        """
        if self.ends_with_sync or not self.units:
            return 0
        return max(0, done - self.executes - max(1, len(self.units[-1])))

    def fail(self, message: bytes, acknowledged: int, done: int) -> None:
        """Note an ErrorResponse, and how many answers and statements came before it."""
        self.has_failed = True
        self.acknowledged = acknowledged
        self.done = done
        self.ignores_sync = False
        at = message.find(b"\0C")
        sqlstate = message[at + 2 : at + 7]
        if b"\0W" in message:
            return
        is_syntax_error = sqlstate == _SYNTAX_ERROR and b"\0P" in message
        self.has_begun = not (is_syntax_error or sqlstate == _IGNORED)

    def not_performed(self) -> list[RequestClass]:
        """Return the units of what the server skipped; only after an error."""
        last = len(self.units) - 1
        failed_at = min(self.acknowledged, last)
        skipped: list[RequestClass] = []
        for index, units in enumerate(self.units):
            if index > failed_at:
                skipped += units
            elif index == failed_at:
                # A Query of several statements tells by its CommandCompletes how many were done.
                is_query = failed_at == last and not self.ends_with_sync
                finished = max(0, self.done - self.executes) if is_query else 0
                skipped += units[finished + self.has_begun :]
        return skipped

"""A segment: what one ReadyForQuery answers, and which of it an error left undone."""

from __future__ import annotations

from engines.kit.ports import RequestClass
from engines.relational.parse import Statement

# SQLSTATEs that say that the failing statement never began (unless they come with a context, that
# is from within a function): syntax error, and ignored because the transaction has failed before.
_NOT_BEGUN = (b"42601", b"25P02")


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
    sqlstate = b""
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
        self.poisons = earlier.poisons + self.poisons
        self.has_failed = earlier.has_failed
        self.acknowledged = earlier.acknowledged
        self.done = earlier.done
        self.sqlstate = earlier.sqlstate

    def fail(self, message: bytes, acknowledged: int, done: int) -> None:
        """Note an ErrorResponse, and how many answers and statements came before it."""
        self.has_failed = True
        self.acknowledged = acknowledged
        self.done = done
        self.ignores_sync = False
        if b"\0W" not in message:
            at = message.find(b"\0C")
            self.sqlstate = message[at + 2 : at + 7]

    def not_performed(self) -> list[RequestClass]:
        """Return the units of what the server skipped; only after an error."""
        failed_at = min(self.acknowledged, len(self.units) - 1)
        begun = self.sqlstate not in _NOT_BEGUN
        skipped: list[RequestClass] = []
        for index, units in enumerate(self.units):
            if index > failed_at:
                skipped += units
            elif index == failed_at:
                # A Query of several statements tells by its CommandCompletes how many were done.
                finished = self.done if failed_at == 0 else 0
                skipped += units[finished + begun :]
        return skipped

"""What one of the server's sessions holds, whoever has it at the moment."""

from __future__ import annotations

from collections.abc import Mapping

from engines.relational import wire
from engines.relational.opening import ServerSession

# Statements that a session of the server keeps prepared; the least recently used one is closed.
SERVER_STATEMENTS_MAX = 256


class PooledServer:
    """The memory of a session of the server. Its socket is the data plane's affair."""

    __slots__ = (
        "_cancel_key",
        "_statements",
        "defaults",
        "epoch",
        "has_unnamed",
        "is_reset_due",
        "last_client",
        "last_version",
        "settings",
        "unnamed_id",
    )

    def __init__(self, settings: Mapping[bytes, bytes], cancel_key: bytes) -> None:
        # ParameterStatus as it is now, and as it is after RESET ALL.
        self.settings = dict(settings)
        self.defaults = dict(settings)
        self._cancel_key = cancel_key
        # Serial of the client that had it last; 0 for none since its start or its last reset.
        self.last_client = 0
        # Which of that client's settings it has.
        self.last_version = 0
        # Only a full reset makes it fit for others.
        self.is_reset_due = False
        # The unnamed statement: whether there may be one, and which (0: none that matters).
        self.has_unnamed = False
        self.unnamed_id = 0
        # Statements of before the last DEALLOCATE ALL have other names.
        self.epoch = 0
        self._statements: dict[bytes, None] = {}

    @property
    def cancel_request(self) -> bytes:
        """What stops its statement, on a connection of its own."""
        return wire.cancel_request(self._cancel_key)

    def name(self, server_name: bytes) -> bytes:
        """Return what the statement is called in this session."""
        return server_name + b"_%x" % self.epoch if self.epoch else server_name

    def has(self, server_name: bytes) -> bool:
        """Say whether the statement is prepared here, and note that it is used."""
        statements = self._statements
        if server_name not in statements:
            return False
        if len(statements) > SERVER_STATEMENTS_MAX // 2:
            del statements[server_name]
            statements[server_name] = None
        return True

    def add(self, server_name: bytes) -> bytes | None:
        """Note that the statement is being prepared; return one to be closed for it, or None."""
        statements = self._statements
        statements[server_name] = None
        if len(statements) <= SERVER_STATEMENTS_MAX:
            return None
        oldest = next(iter(statements))
        del statements[oldest]
        return oldest

    def restore(self, server_name: bytes) -> None:
        """Note that the statement is still there, because its end did not happen."""
        self._statements[server_name] = None

    def drop(self, server_name: bytes) -> None:
        """Note that the statement is not there (any more)."""
        self._statements.pop(server_name, None)

    def forget_statements(self) -> None:
        """Note DEALLOCATE ALL or DISCARD ALL."""
        self._statements.clear()
        self.epoch += 1


def server_of(session: ServerSession) -> PooledServer:
    """Return what a session holds that has just been opened or reset."""
    messages, _ = wire.split(session.greeting())
    pairs = [body[:-1].partition(b"\0") for kind, body in messages if kind == b"S"]
    return PooledServer({name: value for name, _, value in pairs}, session.cancel_key)

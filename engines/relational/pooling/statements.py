"""Prepared statements by content: what a client calls `s1` has a name of ours on the server.

The server's name is a hash of text, parameter types and the settings that the text was meant under,
so clients that prepare the same share it. A client's own bounds are checked before anything is
kept; what one of the server's sessions holds is in `server`.
"""

from __future__ import annotations

import hashlib
import secrets

from engines.kit.errors import Reason, RequestError
from engines.relational.pooling.effects import Effect

# Of one client; libraries that prepare everything keep a few hundred.
STATEMENTS_MAX = 2_000
STATEMENTS_BYTES_MAX = 4 * 1024 * 1024
# A named statement must be here as a whole, because it is sent again and again.
STATEMENT_BYTES_MAX = 1024 * 1024
# Texts that several clients prepared are kept once, so many of them.
SHARED_MAX = 4_096

# Nobody can name a statement of ours who has not been told, and nobody is.
PREFIX = b"wk" + secrets.token_hex(6).encode() + b"_"


class Prepared:
    """One statement: its name on the server, and the rest of its Parse: text and types."""

    __slots__ = ("body", "effect", "server_name")

    def __init__(self, server_name: bytes, body: bytes, effect: Effect) -> None:
        self.server_name = server_name
        self.body = body
        self.effect = effect


_shared: dict[bytes, Prepared] = {}


def prepared(body: bytes, fingerprint: bytes, effect: Effect) -> Prepared:
    """Return the statement of a Parse's text and types."""
    digest = hashlib.blake2b(body, digest_size=12)
    digest.update(fingerprint)
    server_name = PREFIX + digest.hexdigest().encode()
    known = _shared.get(server_name)
    if known is None:
        if len(_shared) >= SHARED_MAX:
            del _shared[next(iter(_shared))]
        known = _shared[server_name] = Prepared(server_name, body, effect)
    return known


class Names:
    """One client's names of prepared statements."""

    __slots__ = ("_by_name", "_bytes")

    def __init__(self) -> None:
        self._by_name: dict[bytes, Prepared] = {}
        self._bytes = 0

    def get(self, name: bytes) -> Prepared | None:
        """Return what the client means by `name`."""
        return self._by_name.get(name)

    def objection(self, name: bytes, body: bytes) -> RequestError | None:
        """Return why this client may not keep one more statement, or None."""
        if (
            len(self._by_name) < STATEMENTS_MAX
            and self._bytes + len(name) + len(body) <= STATEMENTS_BYTES_MAX
        ):
            return None
        return RequestError(
            Reason.LIMIT,
            f"too many prepared statements: at most {STATEMENTS_MAX}, and {STATEMENTS_BYTES_MAX}"
            " bytes of text, in transaction pooling",
            hint="Close statements that are no longer used, or connect in session mode.",
        )

    def put(self, name: bytes, statement: Prepared | None) -> None:
        """Let `name` mean `statement`; nothing if that is None."""
        known = self._by_name.pop(name, None)
        if known is not None:
            self._bytes -= len(name) + len(known.body)
        if statement is not None:
            self._by_name[name] = statement
            self._bytes += len(name) + len(statement.body)

    def clear(self) -> None:
        """Forget all."""
        self._by_name.clear()
        self._bytes = 0

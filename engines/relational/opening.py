"""A session with the instance's server, apart from its socket: start, greeting, check, reset.

    start   StartupMessage, and behind it the check, whose answer is kept
    reset   when a client has left: what DISCARD ALL undoes, and the seed of random()
    check   before the next client: the same answer as at the start, or the session is of no use

The key is the StartupMessage, byte by byte: the role, the database and every setting that the
server was told. DISCARD ALL leads back to these, so a client that asks for the same finds what a
new session would be. What the server itself adds at a session's start (ALTER ROLE ... SET, ALTER
DATABASE ... SET, the right to connect) may change meanwhile: the check sees it by the row versions
of the two catalogues that hold it.

What remains of a former client: the pid, the name of a setting `a.b` that nobody has defined
(it reads "" instead of failing), libraries that were loaded, and pg_my_temp_schema().
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from engines.kit.errors import Reason, RequestError
from engines.kit.ports import TryAgainError
from engines.relational import wire

# Nothing here can be led astray by a search_path: qualified names, no operators.
CHECK = wire.message(
    b"Q",
    b"SELECT xmin FROM pg_catalog.pg_db_role_setting;SELECT xmin FROM pg_catalog.pg_database\0",
)
_DISCARD = wire.message(b"Q", b"DISCARD ALL\0")
_SEED_SET = wire.message(b"C", b"SET\0")
_DISCARDED = wire.message(b"C", b"DISCARD ALL\0")
_READY = wire.message(b"Z", b"I")
# The whole answer to a reset, message by message; settings and notices may stand between.
_RESET_ANSWER = (_SEED_SET, _READY, _DISCARDED, _READY)
_RESET_ANSWER_BYTES = b"".join(_RESET_ANSWER)
_ASIDE = (b"S", b"N", b"A")

# SQLSTATE classes of the server's start that speak of the client's own request, and pass as they
# are: data exception (of a setting), unknown database, no privilege, too many, starting up.
PASSING_SQLSTATES = ("22", "3D000", "42", "53", "55", "57")
# The same request may succeed in a moment: no connection is left, the server starts or stops.
PASSING_SOON_SQLSTATES = ("53300", "57P01", "57P02", "57P03")


class ServerSession:
    """`ports.ServerSession` of PostgreSQL."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.key = wire.startup_message(parameters)
        # The server's own BackendKeyData: pid and secret.
        self.cancel_key = b""
        self._settings: dict[bytes, bytes] = {}  # ParameterStatus by name
        self._notices: list[bytes] = []
        self._check_answer = b""
        self._held = b""
        self._answers = self._greeted

    @property
    def pid(self) -> int:
        """The server process; clients meet it in NOTIFY, pg_locks, pg_terminate_backend."""
        return int.from_bytes(self.cancel_key[:4], "big")

    @property
    def cancel_request(self) -> bytes:
        """What stops the session's statement, on a connection of its own."""
        return wire.cancel_request(self.cancel_key)

    def greeting(self) -> bytes:
        """Return what a client is told of the session; notices only once."""
        notices = b"".join(self._notices)
        self._notices.clear()
        return b"".join(self._settings.values()) + notices

    def start(self) -> bytes:
        """Return what opens the session on a new connection."""
        self._held = b""
        self._settings.clear()
        self._notices.clear()
        self._answers = self._greeted
        return self.key + CHECK

    def reset(self) -> bytes:
        """Return what makes the session new again; call only between transactions."""
        self._held = b""
        self._answers = self._was_reset
        # setseed() is the one thing that is said of no DISCARD. The text of the last query can be
        # seen by others: so DISCARD comes last.
        seed = secrets.randbits(52) / (1 << 52)
        return wire.message(b"Q", b"SET seed=%.16f\0" % seed) + _DISCARD

    def check(self) -> bytes:
        """Return what finds out whether a new session would still be the same."""
        self._held = b""
        self._answers = self._was_checked
        return CHECK

    def answer(self, data: bytes) -> bool:
        """Take the server's bytes; True once the answer is complete.

        Raises RequestError and, while it starts, TryAgainError: the session is of no use.
        """
        self._held = data = self._held + data if self._held else data
        if len(data) > wire.GREETING_BYTES_MAX:
            raise _no_answer()
        return self._answers(data)

    def _greeted(self, data: bytes) -> bool:
        messages, self._held = wire.split(data)
        for index, (kind, body) in enumerate(messages):
            match kind:
                case b"S":
                    self._settings[body.partition(b"\0")[0]] = wire.message(kind, body)
                case b"N":
                    self._notices.append(wire.message(kind, body))
                case b"K":
                    self.cancel_key = body
                case b"E":
                    raise _startup_error(body)
                case b"R" if body == b"\0\0\0\0":
                    continue
                case b"Z":
                    rest = b"".join(wire.message(*message) for message in messages[index + 1 :])
                    self._answers = self._first_checked
                    return self.answer(rest) if rest else False
                case _:
                    raise _no_answer()
        return False

    def _first_checked(self, data: bytes) -> bool:
        if not data.endswith(_READY):
            return False
        messages, _ = wire.split(data)
        if any(kind == b"E" for kind, _ in messages):
            raise _no_answer()
        self._check_answer = data
        return True

    def _was_checked(self, data: bytes) -> bool:
        if data == self._check_answer:
            return True
        if data.endswith(_READY):
            raise RequestError(Reason.BACKEND, "the session's settings have changed meanwhile")
        return False

    def _was_reset(self, data: bytes) -> bool:
        if data == _RESET_ANSWER_BYTES:
            return True
        messages, rest = wire.split(data)
        said = [wire.message(*each) for each in messages if each[0] not in _ASIDE]
        if said != list(_RESET_ANSWER[: len(said)]):
            raise _no_answer()
        if rest or len(said) < len(_RESET_ANSWER):
            return False
        self._settings.update(
            (body.partition(b"\0")[0], wire.message(kind, body))
            for kind, body in messages
            if kind == b"S"
        )
        return True


def _startup_error(body: bytes) -> Exception:
    """Let the client see what it caused itself; our own relation to the server is our affair."""
    fields = wire.fields(body)
    sqlstate = fields.get("C", "")
    if not sqlstate.startswith(PASSING_SQLSTATES):
        error = RequestError(Reason.INTERNAL, "the instance's server refused the session")
        error.add_note(fields.get("M", ""))
        return error
    error = RequestError(
        Reason.BACKEND,
        fields.get("M", ""),
        detail=fields.get("D", ""),
        hint=fields.get("H", ""),
        sqlstate=sqlstate,
    )
    return TryAgainError(error) if sqlstate in PASSING_SOON_SQLSTATES else error


def _no_answer() -> RequestError:
    return RequestError(Reason.BACKEND, "the instance's server does not answer")

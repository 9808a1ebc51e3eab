"""A client's settings: what it would find in a session of its own, put into the one it is given.

Those that the server reports (ParameterStatus) are followed as they change. Others that a text sets
are read from the server at the end of the transaction that set them. Both are applied before the
first message in a session that another client had, in the same write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engines.relational import wire

# Reported by the server, and a client's to set. By their names as the server reports them.
TRACKED = {
    name.lower(): name
    for name in (
        b"application_name",
        b"client_encoding",
        b"DateStyle",
        b"default_transaction_read_only",
        b"IntervalStyle",
        b"search_path",
        b"scram_iterations",
        b"standard_conforming_strings",
        b"TimeZone",
    )
}
# Settings that a text may change and that are read back, of one client.
READ_BACK_MAX = 64
VALUE_BYTES_MAX = 4096
# With one of these even the reset might not be finished: such a session is reset before it is free.
_IN_THE_WAY = (b"statement_timeout", b"transaction_timeout", b"idle_session_timeout")
# These change what a text means when it is parsed.
_MEANINGFUL = (
    b"client_encoding",
    b"DateStyle",
    b"IntervalStyle",
    b"TimeZone",
    b"standard_conforming_strings",
    b"search_path",
)

# All that DISCARD ALL does, but for what is kept on purpose: prepared statements and their plans.
_CLEAN = (
    b"SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;"
    b"SELECT pg_catalog.pg_advisory_unlock_all();DISCARD TEMP;DISCARD SEQUENCES"
)
CLEAN = wire.message(b"Q", _CLEAN + b"\0")


class Settings:
    """What one client has set, by its own or at its start."""

    __slots__ = ("_fingerprint", "_start", "others", "reported", "version")

    def __init__(self, reported: Mapping[bytes, bytes]) -> None:
        self.reported = dict(reported)
        self._start: dict[bytes, bytes] = {}
        self.others: dict[bytes, bytes] = {}
        # Changes with every change of them.
        self.version = 0
        self._fingerprint: bytes | None = None

    def started(self, found: Mapping[bytes, bytes]) -> None:
        """Take the values of the first session as those of this client's start."""
        self.reported = {name: v for name, v in found.items() if name.lower() in TRACKED}
        self._start = dict(self.reported)
        self._fingerprint = None

    def reset(
        self,
        names: Iterable[bytes],
        found: Mapping[bytes, bytes],
        defaults: Mapping[bytes, bytes],
    ) -> dict[bytes, bytes]:
        """Follow RESET of `names`, which led to `found`; return what the client is to have instead.

        A session goes back to the server's defaults; a client goes back to its own start.
        """
        changed = {
            known: value
            for name in names
            for known, value in self._start.items()
            if name in (b"all", known.lower()) and found.get(known) == defaults.get(known) != value
        }
        self.reported.update(changed)
        self._changed()
        return changed

    def report(self, name: bytes, value: bytes) -> None:
        """Follow a ParameterStatus that a text of this client caused."""
        if name.lower() in TRACKED:
            self.reported[name] = value
            self._changed()

    def read_back(self, names: Iterable[bytes], values: Iterable[bytes | None]) -> None:
        """Take what the server said about `names`; None for a setting that does not exist."""
        for name, value in zip(names, values, strict=True):
            if value is None:
                self.others.pop(name, None)
            else:
                self.others[name] = value[:VALUE_BYTES_MAX]
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._fingerprint = None

    def fingerprint(self) -> bytes:
        """Return what tells two meanings of one text apart."""
        if self._fingerprint is None:
            self._fingerprint = b"\0".join(self.reported.get(name, b"") for name in _MEANINGFUL)
        return self._fingerprint

    @property
    def is_in_the_way(self) -> bool:
        """True if the session must be reset before anything else can rely on it."""
        return any(self.others.get(name, b"0") not in (b"0", b"") for name in _IN_THE_WAY)

    def queries(self, found: Mapping[bytes, bytes]) -> list[bytes]:
        """Return the Query messages that bring a session with the values `found` to ours."""
        wanted = [
            (name, value)
            for name, value in self.reported.items()
            if name in found and found[name] != value
        ]
        messages = []
        for name, value in wanted:
            # The server reads a whole text in one encoding, and values are in the client's.
            if name == b"client_encoding":
                messages.append(_query([(name, value)]))
        rest = [pair for pair in wanted if pair[0] != b"client_encoding"]
        rest += self.others.items()
        if rest:
            messages.append(_query(rest))
        return messages


def split_parameters(parameters: Mapping[str, str]) -> tuple[dict[str, str], dict[bytes, bytes]]:
    """Separate the tracked settings from what the server itself is told at a session's start.

    Returns the latter, and the client's settings by the names that the server reports.
    """
    kept = dict(parameters)
    words, tracked = _split_options(wire.split_options(kept.pop("options", "")))
    for name in parameters:
        # What stands alone is stronger than what stands in `options`, as with the server.
        if wire.data_of(name.lower()) in TRACKED:
            tracked[name.lower()] = kept.pop(name)
    if words:
        kept["options"] = " ".join(wire.escape_option(word) for word in words)
    start = {TRACKED[wire.data_of(n)]: wire.data_of(value) for n, value in tracked.items()}
    return kept, start


def _split_options(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Separate `-c name=value` of tracked settings from the other words of `options`."""
    tracked: dict[str, str] = {}
    kept: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        taken = [word]
        if word == "-c" and position + 1 < len(words):
            taken.append(words[position + 1])
            assignment = words[position + 1]
        else:
            assignment = word.removeprefix("--" if word.startswith("--") else "-c")
        position += len(taken)
        name, equals, value = assignment.partition("=")
        # The server reads `-` in a long option's name as `_`.
        name = name.replace("-", "_").lower()
        is_option = len(taken) == 2 or word.startswith(("-c", "--"))
        if is_option and equals and wire.data_of(name) in TRACKED:
            tracked[name] = value
        else:
            kept += taken
    return kept, tracked


def read_back_query(names: Iterable[bytes]) -> bytes:
    """Return the Query that asks for the values of `names`, in one row."""
    calls = b",".join(b"pg_catalog.current_setting(" + literal(n) + b",true)" for n in names)
    return wire.message(b"Q", b"SELECT " + calls + b"\0")


def row(message: bytes) -> list[bytes | None]:
    """Return the values of a DataRow message."""
    count = int.from_bytes(message[5:7], "big")
    values: list[bytes | None] = []
    position = 7
    for _ in range(count):
        length = int.from_bytes(message[position : position + 4], "big", signed=True)
        position += 4
        if length < 0:
            values.append(None)
            continue
        values.append(message[position : position + length])
        position += length
    return values


def literal(value: bytes) -> bytes:
    """Return a string literal that means `value` under every setting."""
    return b"E'" + value.replace(b"\\", b"\\\\").replace(b"'", b"''").replace(b"\0", b"") + b"'"


def _query(pairs: list[tuple[bytes, bytes]]) -> bytes:
    calls = b",".join(
        b"pg_catalog.set_config(" + literal(name) + b"," + literal(value) + b",false)"
        for name, value in pairs
    )
    return wire.message(b"Q", b"SELECT " + calls + b"\0")

"""What a client sends, made to mean the same in whichever session it has.

The stream is forwarded as it came but for names of prepared statements; what the session lacks is
sent before it. Where the client broke a rule the server itself says so, in order, because it meets
the same situation.

What a message will do is noted when it is sent, and undone if the server's error comes first
(`multiplexer`). Only where that is not enough to know what a later message means, it is held back
until the messages before it are answered.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Pins
from engines.relational import parse, wire
from engines.relational.errors import to_native
from engines.relational.pooling import effects, expected, settings, statements
from engines.relational.pooling.effects import Effect
from engines.relational.pooling.expected import Expected
from engines.relational.pooling.server import PooledServer
from engines.relational.pooling.settings import Settings
from engines.relational.pooling.statements import Prepared

STATUS_IDLE: Final = ord("I")
STATUS_FAILED: Final = ord("E")
# A client that sends so many messages without waiting for an answer waits for its own.
EXPECTED_MAX = 16_384

_unpack_length = struct.Struct("!I").unpack_from
_pack_header = struct.Struct("!BI").pack

_PARSE_COMPLETE = wire.message(b"1")
_CLOSE_COMPLETE = wire.message(b"3")
_FLUSH = wire.message(b"H")
_SYNC = wire.message(b"S")
# The server fails at these; its error is replaced.
_BAD_QUERY = wire.message(b"Q", b"weftkit_refused\0")
_BAD_PARSE = wire.message(b"P", b"\0weftkit_refused\0\0\0")
_NAME = rb'("(?:[^"]|"")*"|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)'
_DEALLOCATE = re.compile(
    rb"\s*DEALLOCATE\s+(?:PREPARE\s+)?(?!ALL\b|PREPARE\b)" + _NAME + rb"[\s;]*", re.I
)

_P: Final = ord("P")
_Q: Final = ord("Q")
# Of clients and of their unnamed statements, so that a session knows whose it had last.
serials = itertools.count(1)


class Requests:
    """A client's side of the multiplexer, and all of its state."""

    def __init__(self, start: Mapping[bytes, bytes], key_data: bytes) -> None:
        self.to_server: list[bytes] = []
        self.to_relay: list[bytes] = []
        self.to_client: list[bytes] = []
        self.wants_server = True
        self.is_free = False
        self.is_pinned = False
        self.pins: Pins | None = None
        self.failure: RequestError | None = None
        self.serial = next(serials)
        self._settings = Settings(start)
        # BackendKeyData, until the client has been greeted.
        self._key_data = key_data
        self._server: PooledServer | None = None
        self._status = STATUS_IDLE
        # From the client: what waits for a session or for answers; and the rest of a long message.
        self._held: list[bytes] = []
        self._skip = 0
        self._is_dropping = False
        self._rest = 0
        self._is_stopped = False
        self._is_incomplete = False
        # After an error in an extended message the server reads on at the next Sync.
        self._is_skipping = False
        self._queue: deque[Expected] = deque()
        self._ends_expected = 0
        # The segment being sent (up to a Sync or Query), and where names changed unanswered.
        self._segment = 1
        self._changed: dict[bytes, int] = {}
        self._all_changed = 0
        # The segment in which a text began to change what later ones mean.
        self._shifted_in = 0
        self._names = statements.Names()
        self._unnamed: bytes | None = None
        self._unnamed_id = 0
        # Settings to be read back, and to be put back, when the transaction has ended.
        self._touched: dict[bytes, None] = {}
        self._resets: dict[bytes, None] = {}
        self._values: list[bytes | None] = []
        # COPY FROM the client: it reads past Sync; after an error it is not known how many.
        self._is_in_copy = False
        self._has_copied = False
        self._copy_syncs = 0
        self._is_unsure = False
        self._has_passed_barrier = False
        # From the server: an incomplete message, or the rest of a long one and whether it is kept.
        self._server_held = b""
        self._server_skip = 0
        self._is_muted = False
        self._fatal = b""
        # Answers of ours that come behind the message that is being looked at.
        self._due: list[bytes] = []

    # Client to server.

    def _scan(self, data: bytes) -> bool:
        """Handle the messages of `data`; True if all of it goes on as it came.

        Otherwise it is in `to_server`; `data[start:position]` is what is still to be put there.
        """
        size = len(data)
        position = self._skip
        if position > size:
            self._skip -= size
            return not self._is_dropping and self._forward(data)
        start = position if self._is_dropping else 0
        while size - position >= 5:
            end = position + 1 + _unpack_length(data, position + 1)[0]
            self._rest = end
            instead = self._handle(data[position], data, position, end)
            if self._is_stopped or self._rest < position:
                break
            if instead is not None:
                if start < position:
                    self.to_server.append(data[start:position])
                if instead:
                    self.to_server.append(instead)
                start = self._rest
            position = end
        if position < size:
            if start < position:
                self.to_server.append(data[start:position])
            self._hold(data[position:])
            return False
        self._skip = position - size
        self._is_dropping = start > size
        if start == 0:
            return self._forward(data)
        if start < size:
            self.to_server.append(data[start:])
        return False

    def _handle(self, kind: int, data: bytes, position: int, end: int) -> bytes | None:
        """Handle one message; return what goes in its place, None for itself."""
        if kind == _Q:  # most of all, and called without a detour
            return self._on_query(data, position, end)
        handler = _HANDLERS.get(kind)
        return handler(self, data, position, end) if handler is not None else None

    def _forward(self, data: bytes) -> bool:
        """Say that `data` goes on as it came; not past what is to be sent before it."""
        if not self.to_server:
            return True
        self.to_server.append(data)
        return False

    def _hold(self, rest: bytes) -> None:
        """Keep what cannot be sent yet: its own end is missing, or answers before it are."""
        self._held.append(rest)
        self._skip = 0
        self._is_incomplete = not self._is_stopped
        if self._is_stopped:
            # The server shall not keep those answers back.
            self.to_server.append(_FLUSH)
        self._is_stopped = False

    def _stop(self) -> bytes:
        """Wait for the answers to what was sent."""
        self._is_stopped = True
        return b""

    def _is_uncertain(self, name: bytes) -> bool:
        """Say whether what a name means hangs on an answer to an earlier segment."""
        if not (self._changed or self._all_changed) or self._is_in_copy:
            return False
        changed_in = max(self._changed.get(name, 0), self._all_changed)
        return 0 < changed_in < self._segment

    def _apply(self, effect: Effect) -> RequestError | None:
        """Note what a statement will leave behind; return why it may not."""
        if effect.pins and not self.is_pinned:
            assert self.pins is not None
            if not self.pins.take():
                return RequestError(
                    Reason.UNSUPPORTED,
                    f"{effect.pins.decode()} needs a session of its own, and no more of the pool's"
                    " can be kept",
                    hint="Connect in session mode for it.",
                )
            self.is_pinned = True
        for name in effect.sets:
            if name not in settings.TRACKED:
                self._touched[name] = None
        if len(self._touched) > settings.READ_BACK_MAX:
            return RequestError(Reason.LIMIT, "too many settings at once")
        self._resets.update(dict.fromkeys(effect.resets))
        if effect.forgets:
            self._all_changed = self._segment
        if effect.shifts:
            self._shifted_in = self._segment
        return None

    def _on_query(self, data: bytes, position: int, end: int) -> bytes | None:
        if self._is_skipping:
            return b""
        text = data[position + 5 : end - 1]
        effect = effects.of(text)
        instead = None
        entry = expected.THEIR_QUERY
        if effect is not effects.NONE:
            match = _DEALLOCATE.fullmatch(text) if effect.forgets else None
            found = self._deallocate(match[1]) if match is not None else None
            if self._is_stopped:
                return None
            error = self._apply(effect) if match is None else None
            if error is not None:
                entry = expected.refused(expected.QUERY, to_native(error))
                instead = _BAD_QUERY
            elif found is not None:
                entry, instead = found
        assert self._server is not None
        if self._unnamed is not None or b"" in self._changed:
            change = self._change_unnamed(expected.QUERY, None)
            change.replacement, change.name = entry.replacement, entry.name
            change.previous, change.closed_name = entry.previous, entry.closed_name
            entry = change
        self._server.has_unnamed = False
        self._end_segment(entry)
        return instead

    def _deallocate(self, word: bytes) -> tuple[Expected, bytes] | None:
        """Let SQL's DEALLOCATE find a statement that the client prepared by message."""
        name = word[1:-1].replace(b'""', b'"') if word[:1] == b'"' else word.lower()
        name = parse.cut(name)
        known = self._names.get(name)
        if self._is_uncertain(name) or (known and self._is_uncertain(known.server_name)):
            self._stop()
            return None
        if known is None:
            return None
        assert self._server is not None
        before = self._bring(known)
        if before:
            # An error must not make the server skip the Query.
            before += _SYNC
            self._queue.append(expected.OUR_SYNC)
        entry = Expected(expected.QUERY)
        entry.name, entry.previous, entry.closed_name = name, known, known.server_name
        self._changed[name] = self._changed[known.server_name] = self._segment
        self._names.put(name, None)
        self._server.drop(known.server_name)
        text = b'DEALLOCATE "' + self._server.name(known.server_name) + b'"\0'
        return entry, before + wire.message(b"Q", text)

    def _on_function_call(self, data: bytes, position: int, end: int) -> bytes | None:
        if self._is_skipping:
            return b""
        self._end_segment(expected.THEIR_QUERY)
        return None

    def _end_segment(self, entry: Expected) -> None:
        self._queue.append(entry)
        self._ends_expected += 1
        self._segment += 1

    def _on_sync(self, data: bytes, position: int, end: int) -> bytes | None:
        if self._is_in_copy:
            self._copy_syncs += 1
            return None
        self._is_skipping = False
        self._end_segment(expected.THEIR_SYNC)
        return None

    def _on_copy_end(self, data: bytes, position: int, end: int) -> bytes | None:
        if self._is_skipping:
            return b""
        self._is_in_copy = False
        if self._queue:
            self._queue.append(expected.THEIR_COPY_END)
        return None

    def _on_flush(self, data: bytes, position: int, end: int) -> bytes | None:
        return b"" if self._is_skipping else None

    def _on_terminate(self, data: bytes, position: int, end: int) -> bytes | None:
        """The connection ends with its transport; the session is not the client's to end."""
        return b""

    def _on_parse(self, data: bytes, position: int, end: int) -> bytes | None:
        if self._is_skipping:
            return b""
        name_end = data.find(b"\0", position + 5)
        name = data[position + 5 : name_end]
        if end > len(data):
            if end - position <= statements.STATEMENT_BYTES_MAX:
                self._rest = -1  # until it is here as a whole
                return None
            if name:
                too_long = RequestError(Reason.LIMIT, "the statement is too long to be kept")
                return self._refuse(too_long)
        body = data[name_end + 1 : end]
        effect = effects.of(body[: body.find(b"\0")])
        if name and self._is_uncertain(name):
            return self._stop()
        if effect is not effects.NONE:
            error = self._apply(effect)
            if error is not None:
                return self._refuse(error)
        if name:
            return self._parse_named(name, body, effect)
        return self._parse_unnamed(body if end <= len(data) else None)

    def _parse_unnamed(self, body: bytes | None) -> bytes | None:
        assert self._server is not None
        self._queue.append(self._change_unnamed(expected.EXTENDED, body))
        self._server.has_unnamed = True
        self._server.unnamed_id = self._unnamed_id
        return None

    def _change_unnamed(self, kind: int, body: bytes | None, *, is_ours: bool = False) -> Expected:
        """Let the unnamed statement be `body` from here on; return what undoes that."""
        entry = Expected(kind, is_ours=is_ours)
        entry.changes_unnamed = True
        entry.unnamed, entry.unnamed_before = self._unnamed, self._unnamed_id
        if not is_ours:
            self._unnamed = body
            self._unnamed_id = next(serials)
        entry.unnamed_after = self._unnamed_id
        self._changed[b""] = self._segment
        return entry

    def _parse_named(self, name: bytes, body: bytes, effect: Effect) -> bytes | None:
        server = self._server
        assert server is not None
        known = self._names.get(name)
        error = self._names.objection(name, body) if known is None else None
        if error is not None:
            return self._refuse(error)
        statement = statements.prepared(body, self._meaning(), effect)
        server_name = statement.server_name
        if self._is_uncertain(server_name):
            return self._stop()
        if known is not None:
            # The server has it under its name, so the second Parse fails there as it should.
            before = self._bring(statement)
            entry = Expected(expected.EXTENDED)
            entry.taken_name = name
            self._queue.append(entry)
            return before + _parse_message(server.name(server_name), body)
        self._changed[name] = self._segment
        self._names.put(name, statement)
        if not server.has(server_name):
            entry = Expected(expected.EXTENDED)
            entry.name, entry.server_name = name, server_name
            self._changed[server_name] = self._segment
            before = self._make_room(server_name)
            self._queue.append(entry)
            return before + _parse_message(server.name(server_name), body)
        if not self._ends_expected and self._status != STATUS_FAILED:
            return self._answer_for(expected.synthetic(_PARSE_COMPLETE, name, None))
        # It may fail here, in a transaction that has: the server shall say.
        entry = Expected(expected.EXTENDED)
        entry.name = name
        self._queue.append(entry)
        server.has_unnamed = True
        server.unnamed_id = 0
        return _parse_message(b"", body)

    def _meaning(self) -> bytes:
        """Return what texts mean here, as a key; one of its own where that is not known yet.

        The server tells of settings with its ReadyForQuery, and a ROLLBACK changes them too.
        """
        if self._ends_expected or self._shifted_in == self._segment:
            return b"%d" % next(serials)
        return self._settings.fingerprint()

    def _answer_for(self, entry: Expected) -> bytes:
        """Answer in the server's place, when the turn comes."""
        if self._queue:
            self._queue.append(entry)
        else:
            self.to_relay.append(entry.answer)
        return b""

    def _bring(self, statement: Prepared) -> bytes:
        """Return what makes the session hold a statement, or b"" if it does."""
        assert self._server is not None
        server_name = statement.server_name
        if self._server.has(server_name):
            return b""
        before = self._make_room(server_name)
        entry = Expected(expected.EXTENDED, is_ours=True)
        entry.server_name = server_name
        self._changed[server_name] = self._segment
        self._queue.append(entry)
        return before + _parse_message(self._server.name(server_name), statement.body)

    def _make_room(self, server_name: bytes) -> bytes:
        """Note a statement; return the Close of another one that must go for it."""
        assert self._server is not None
        oldest = self._server.add(server_name)
        if oldest is None:
            return b""
        entry = Expected(expected.EXTENDED, is_ours=True)
        entry.closed_name = oldest
        self._changed[oldest] = self._segment
        self._queue.append(entry)
        return wire.message(b"C", b"S" + self._server.name(oldest) + b"\0")

    def _bring_unnamed(self) -> bytes:
        """Return what makes the session's unnamed statement the client's, or nobody's."""
        server = self._server
        assert server is not None
        if self._unnamed is None:
            if not server.has_unnamed:
                return b""
            server.has_unnamed = False
            self._queue.append(self._change_unnamed(expected.EXTENDED, None, is_ours=True))
            return wire.message(b"C", b"S\0")
        if server.unnamed_id == self._unnamed_id:
            return b""
        server.has_unnamed = True
        server.unnamed_id = self._unnamed_id
        self._queue.append(self._change_unnamed(expected.EXTENDED, None, is_ours=True))
        return _parse_message(b"", self._unnamed)

    def _on_bind(self, data: bytes, position: int, end: int) -> bytes | None:
        if self._is_skipping:
            return b""
        portal_end = data.find(b"\0", position + 5)
        name_end = data.find(b"\0", portal_end + 1)
        name = data[portal_end + 1 : name_end]
        if self._is_uncertain(name):
            return self._stop()
        if not name:
            return self._use_unnamed(position)
        statement = self._names.get(name)
        if statement is None:
            self._queue.append(expected.THEIR_EXTENDED)
            return self._rename_unknown(data, position, end, portal_end + 1, name)
        if self._is_uncertain(statement.server_name):
            return self._stop()
        if statement.effect is not effects.NONE:
            error = self._apply(statement.effect)
            if error is not None:
                return self._refuse(error)
        before = self._bring(statement)
        self._queue.append(expected.THEIR_EXTENDED)
        return before + self._renamed(data, position, end, portal_end + 1, statement.server_name)

    def _use_unnamed(self, position: int) -> bytes | None:
        """Let a message that means the unnamed statement find the client's."""
        before = self._bring_unnamed()
        self._queue.append(expected.THEIR_EXTENDED)
        if not before:
            return None
        self._rest = position
        return before

    def _renamed(self, data: bytes, position: int, end: int, at: int, server_name: bytes) -> bytes:
        """Return a message up to its statement's name, which is replaced; the rest follows."""
        assert self._server is not None
        name = self._server.name(server_name)
        self._rest = data.find(b"\0", at)
        length = end - position - 1 + len(name) - (self._rest - at)
        return _pack_header(data[position], length) + data[position + 5 : at] + name

    def _rename_unknown(
        self, data: bytes, position: int, end: int, at: int, name: bytes
    ) -> bytes | None:
        """A name that the client has not prepared goes as it is, unless it could be one of ours."""
        if not name.startswith(statements.PREFIX):
            return None
        return self._renamed(data, position, end, at, b"unknown")

    def _on_describe(self, data: bytes, position: int, end: int) -> bytes | None:
        if self._is_skipping:
            return b""
        if data[position + 5] != ord("S"):
            self._queue.append(expected.THEIR_EXTENDED)
            return None
        name = data[position + 6 : end - 1]
        if self._is_uncertain(name):
            return self._stop()
        if not name:
            return self._use_unnamed(position)
        statement = self._names.get(name)
        if statement is None:
            self._queue.append(expected.THEIR_EXTENDED)
            return self._rename_unknown(data, position, end, position + 6, name)
        if self._is_uncertain(statement.server_name):
            return self._stop()
        before = self._bring(statement)
        self._queue.append(expected.THEIR_EXTENDED)
        return before + self._renamed(data, position, end, position + 6, statement.server_name)

    def _on_execute(self, data: bytes, position: int, end: int) -> bytes | None:
        if self._is_skipping:
            return b""
        if len(self._queue) > EXPECTED_MAX:
            return self._stop()
        self._queue.append(expected.THEIR_EXTENDED)
        return None

    def _on_close(self, data: bytes, position: int, end: int) -> bytes | None:
        if self._is_skipping:
            return b""
        name = data[position + 6 : end - 1]
        if data[position + 5] != ord("S"):
            self._queue.append(expected.THEIR_EXTENDED)
            return None
        if not name:
            self._queue.append(self._change_unnamed(expected.EXTENDED, None))
            return None
        if self._is_uncertain(name):
            return self._stop()
        known = self._names.get(name)
        if known is None:
            self._queue.append(expected.THEIR_EXTENDED)
            return self._rename_unknown(data, position, end, position + 6, name)
        self._changed[name] = self._segment
        self._names.put(name, None)
        return self._answer_for(expected.synthetic(_CLOSE_COMPLETE, name, known))

    def _refuse(self, error: RequestError) -> bytes:
        """Put something in the message's place that the server fails at."""
        assert self._server is not None
        self._queue.append(expected.refused(expected.EXTENDED, to_native(error)))
        self._server.has_unnamed = True
        self._server.unnamed_id = 0
        return _BAD_PARSE


def _parse_message(name: bytes, body: bytes) -> bytes:
    return _pack_header(_P, len(name) + 5 + len(body)) + name + b"\0" + body


_HANDLERS: Mapping[int, Callable[[Requests, bytes, int, int], bytes | None]] = {
    ord("B"): Requests._on_bind,
    ord("C"): Requests._on_close,
    ord("D"): Requests._on_describe,
    ord("E"): Requests._on_execute,
    ord("F"): Requests._on_function_call,
    ord("H"): Requests._on_flush,
    ord("P"): Requests._on_parse,
    ord("Q"): Requests._on_query,
    ord("S"): Requests._on_sync,
    ord("X"): Requests._on_terminate,
    ord("c"): Requests._on_copy_end,
    ord("d"): Requests._on_flush,
    ord("f"): Requests._on_copy_end,
}

"""The relay between one client and its instance's server.

What the client sends is cut into segments, each of which the server answers with one ReadyForQuery:
a simple Query, a FunctionCall, or everything up to a Sync. A segment remembers what each of its
messages was admitted for, so that after an error the units of what the server skipped are given
back exactly.

A refused statement is answered here if the session is idle. Inside a transaction or a pipeline a
*poison* message takes its place: one that makes the server itself fail at exactly that point, so
that order, rollback and skipping are PostgreSQL's own. Its error is recognised by a random name
and replaced by ours.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import Final

from librt.strings import read_i32_be

from engines.kit.errors import RequestError
from engines.kit.ports import Gate, RequestClass, Wait
from engines.relational import parse, reply, wire
from engines.relational.errors import to_native
from engines.relational.parse import Statement
from engines.relational.relay import kinds
from engines.relational.relay.names import FREE_OF_CHARGE, Names
from engines.relational.relay.segment import Segment

STATUS_IDLE: Final = ord("I")
STATUS_FAILED: Final = ord("E")

# So much of a message must be here before it is looked at; the rest streams through.
HEAD_BYTES: Final = parse.HEAD_BYTES
ERROR_BYTES_MAX: Final = 64 * 1024
# So many answered messages of a segment without an end are kept, at most.
TRIMMED_MESSAGES: Final = 4096

# The server ends the connection over it, with its own words.
_GARBAGE: Final = b"\0\0\0\0\4"
_NO_UNITS: Final[tuple[RequestClass, ...]] = ()

# How messages of the client are taken: as they are; dropped up to Sync, after a refusal of ours;
# or not read by the server before a Sync, after an error of its own.
_TAKING: Final = 0
_REFUSING: Final = 1
_IGNORING: Final = 2

# What a handler may say: None to forward, bytes to send instead, or to come back later.
_Verdict = bytes | Wait | None


class Relay:
    """One client's session with its instance's server (`kit.ports.Relay`)."""

    def __init__(self, gate: Gate, status: int = STATUS_IDLE) -> None:
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.waiting: tuple[RequestClass, int] | None = None
        self.is_idle = status == STATUS_IDLE
        self.has_left = False
        self._gate = gate
        self._admit_units = gate.admit
        self._status = status
        # Client to server: what is held back, what of a long message is still to come, whether that
        # is dropped, and whether the framing is lost for good.
        self._held = b""
        self._skip = 0
        self._is_dropping = False
        self._is_broken = False
        # Segments sent and not answered, the one being sent, and where it began in this chunk.
        self._pending: deque[Segment] = deque()
        self._open: Segment | None = None
        self._open_position = -1
        self._names = Names()
        # Server to client, likewise; and the answers counted since the last ReadyForQuery.
        self._server_held = b""
        self._server_skip = 0
        self._progress = 0
        self._token = b"weftkit_" + secrets.token_hex(12).encode() + b"_"
        self._poison_count = 0
        self._poisons: dict[bytes, bytes] = {}
        self._mode = _TAKING

    # Client to server.

    def from_client(self, data: bytes) -> bool:
        """Take bytes of the client; b"" after a wait goes on where it stopped."""
        if self.waiting is not None:
            if data:
                self._held += data
                return False
            self.waiting = None
        is_whole = not self._held
        if not is_whole:
            data = self._held + data
            self._held = b""
        if self._is_broken:
            return False
        position = self._skip
        if position > len(data):
            self._skip -= len(data)
            is_forwarded = not self._is_dropping
        else:
            start = position if self._is_dropping else 0
            is_forwarded = self._scan_client(data, start, position)
        if is_forwarded and not is_whole:
            self.to_server.append(data)
        return is_forwarded and is_whole

    def _scan_client(self, data: bytes, start: int, position: int) -> bool:
        """Handle the messages from `position` on; `data[start:position]` is still to be sent.

        Return True if all of `data` goes to the server as it is; else `to_server` has it.
        """
        size = len(data)
        while size - position >= 5:
            kind = data[position]
            length: int = read_i32_be(data, position + 1)
            if length < 4 or length > kinds.LENGTH_MAX[kind]:
                # The server ends the connection over this header.
                self._is_broken = True
                self.to_server.append(data[start : position + 5])
                return False
            end = position + 1 + length
            if kinds.IS_LOOKED_AT[kind] or self._mode == _REFUSING:
                if end > size and size - position < HEAD_BYTES:
                    break
                verdict = self._handle(kind, data, position, min(end, size))
                if verdict is not None:
                    self._send_before(data, start, position)
                    if isinstance(verdict, Wait):
                        self._hold(data, position)
                        return False
                    if verdict:
                        self.to_server.append(verdict)
                    start = end
            position = end
        if position < size:
            self._hold(data, position)
            if start < position:
                self.to_server.append(data[start:position])
            return False
        self._open_position = -1
        self._skip = position - size
        self._is_dropping = position > size and start == position
        if start == 0:
            return size > 0
        if start < size:
            self.to_server.append(data[start:])
        return False

    def _handle(self, kind: int, data: bytes, position: int, end: int) -> _Verdict:
        """Look at one message. A chain, because compiled it is faster than any table."""
        if self._mode != _TAKING:
            return self._handle_after_error(kind, data, position, end)
        if kind == kinds.QUERY:
            return self._on_query(data, position, end)
        if kind == kinds.BIND:
            return self._on_bind(data, position, end)
        if kind == kinds.DESCRIBE:
            self._segment(position).units.append(_NO_UNITS)
            return None
        if kind == kinds.EXECUTE:
            return self._on_execute(data, position, end)
        if kind == kinds.SYNC:
            return self._on_sync()
        if kind == kinds.PARSE:
            return self._on_parse(data, position, end)
        if kind == kinds.CLOSE:
            return self._on_close(data, position, end)
        if kind == kinds.FUNCTION_CALL:
            answer = self._admit(parse.UNKNOWN)
            return self._finish_simple(parse.UNKNOWN.units, answer)
        if kind == kinds.TERMINATE:
            return self._on_terminate(position, end, len(data))
        return self._on_copy_end()

    def _handle_after_error(self, kind: int, data: bytes, position: int, end: int) -> _Verdict:
        """Drop what we refused, or pass what the server does not read; up to the Sync."""
        if self._mode == _REFUSING:
            if kind == kinds.TERMINATE:
                return None
            return self._on_refused_sync() if kind == kinds.SYNC else b""
        return self._on_sync() if kind == kinds.SYNC else None

    def _send_before(self, data: bytes, start: int, position: int) -> None:
        """Send what stands before the message at `position`.

        A segment that was refused before anything of it was sent is dropped from its beginning.
        """
        if self._mode == _REFUSING and self._open_position >= 0:
            position = self._open_position
        if start < position:
            self.to_server.append(data[start:position])

    def _hold(self, data: bytes, position: int) -> None:
        """Keep the message at `position` for later."""
        self._open_position = -1
        self._skip = 0
        self._is_dropping = False
        self._held = data[position:]
        self.is_idle = False

    def _on_query(self, data: bytes, position: int, end: int) -> _Verdict:
        statements = parse.classify(data[position + 5 : end - 1])
        if len(statements) == 1 and not statements[0].names_one:
            verdict = self._finish_simple(statements[0].units, self._admit(statements[0]))
            if verdict is None and statements[0].shows_usage:
                return wire.message(b"Q", reply.usage_query(self._gate.usage()) + b"\0")
            return verdict
        resolved = [self._names.resolve(statement) for statement in statements]
        units = tuple(statement.request_class for statement in resolved)
        answer = self._admit_all(resolved)
        if answer is None:
            for statement in statements:
                self._names.apply(statement)
        return self._finish_simple(units, answer)

    def _finish_simple(
        self, units: tuple[RequestClass, ...], answer: RequestError | Wait | None
    ) -> _Verdict:
        """End a message that is answered by its own ReadyForQuery."""
        if isinstance(answer, Wait):
            return answer
        if answer is not None and self._open is None and self._can_answer():
            self.is_idle = self._status == STATUS_IDLE
            self.to_client.append(to_native(answer))
            self.to_client.append(reply.ready_for_query(self._status))
            return b""
        segment = self._open or Segment()
        verdict: _Verdict = None
        if answer is not None:
            units = _NO_UNITS
            verdict = wire.message(b"Q", self._poison(segment, answer) + b"\0")
        segment.units.append(units)
        self._pending.append(segment)
        self._open = None
        self.is_idle = False
        return verdict

    def _on_parse(self, data: bytes, position: int, end: int) -> _Verdict:
        segment = self._segment(position)
        name = wire.string_at(data, position + 5, end)
        if name is None:
            return self._break()
        text = data[position + 6 + len(name) : end].partition(b"\0")[0]
        statements = parse.classify(text)
        # Several are refused by the server; none is an empty query.
        statement = statements[0] if statements else FREE_OF_CHARGE
        self._names.parsed(segment, name, statement)
        segment.units.append(_NO_UNITS)
        if statement.shows_usage and len(statements) == 1:
            usage = reply.usage_query(self._gate.usage())
            return wire.message(b"P", name + b"\0" + usage + b"\0\0\0")
        return None

    def _on_bind(self, data: bytes, position: int, end: int) -> _Verdict:
        segment = self._segment(position)
        portal = wire.string_at(data, position + 5, end)
        if portal is None:
            return self._break()
        name = wire.string_at(data, position + 6 + len(portal), end)
        if name is None:
            return self._break()
        self._names.bound(portal, name)
        segment.units.append(_NO_UNITS)
        return None

    def _on_execute(self, data: bytes, position: int, end: int) -> _Verdict:
        segment = self._segment(position)
        segment.executes += 1
        portal = data[position + 5 : end - 5]
        bound = self._names.portal(portal)
        if bound is FREE_OF_CHARGE:
            segment.units.append(_NO_UNITS)
            return None
        statement = self._names.resolve(bound) if bound.names_one else bound
        answer = self._admit(statement)
        if answer is None:
            segment.units.append(statement.units)
            self._names.executed(portal)
            if bound.names_one:
                self._names.apply(bound)
            return None
        if isinstance(answer, Wait):
            segment.executes -= 1  # it comes again
            return answer
        if self._open_position >= 0 and self._can_answer() and not any(segment.units):
            return self._refuse_segment(segment, answer)
        segment.units.append(_NO_UNITS)
        return wire.message(b"E", self._poison(segment, answer) + b"\0\0\0\0\0")

    def _on_close(self, data: bytes, position: int, end: int) -> _Verdict:
        segment = self._segment(position)
        self._names.closed(data[position + 5 : position + 6] == b"S", data[position + 6 : end - 1])
        segment.units.append(_NO_UNITS)
        return None

    def _on_sync(self) -> _Verdict:
        segment = self._open
        if segment is None:
            segment = Segment()
        elif segment.ignores_sync:
            return None
        elif segment.ignores_all:
            self._mode = _TAKING
        segment.ends_with_sync = True
        self._pending.append(segment)
        self._open = None
        self.is_idle = False
        return None

    def _on_refused_sync(self) -> _Verdict:
        """End a segment that was answered here."""
        self._mode = _TAKING
        self.to_client.append(reply.ready_for_query(self._status))
        return b""

    def _on_copy_end(self) -> _Verdict:
        """CopyDone or CopyFail: from here on the server sees Sync again."""
        if self._open is None and self._pending and self._pending[-1].ends_with_sync:
            self._open = Segment()
        if self._open is not None:
            self._open.has_copy_end = True
            self._open.ignores_sync = False
        return None

    def _segment(self, position: int) -> Segment:
        """Return the open segment, which this extended message belongs to."""
        if self._open is None:
            self._open = Segment()
            self._open_position = position
            self.is_idle = False
        return self._open

    def _break(self) -> _Verdict:
        self._is_broken = True
        return _GARBAGE

    # Admission.

    def _admit(self, statement: Statement) -> RequestError | Wait | None:
        request_class = statement.request_class
        answer = self._admit_units(request_class, 1, statement.grows)
        if isinstance(answer, Wait):
            self.waiting = (request_class, 1)
        return answer

    def _admit_all(self, statements: list[Statement]) -> RequestError | Wait | None:
        """Admit all statements of a Query, or none of them."""
        taken: list[tuple[RequestClass, int]] = []
        for request_class in RequestClass:
            own = [s for s in statements if s.request_class is request_class]
            if not own:
                continue
            grows = any(statement.grows for statement in own)
            answer = self._admit_units(request_class, len(own), grows)
            if answer is not None:
                for earlier, units in taken:
                    self._gate.refund(earlier, units)
                if isinstance(answer, Wait):
                    self.waiting = (request_class, len(own))
                return answer
            taken.append((request_class, len(own)))
        return None

    def _can_answer(self) -> bool:
        """Tell whether nothing is under way, so that an answer of our own comes in order.

        Inside a transaction the server must fail; in a failed one it has nothing left to do.
        """
        return not self._pending and self._status in (STATUS_IDLE, STATUS_FAILED)

    def _refuse_segment(self, segment: Segment, error: RequestError) -> _Verdict:
        """Answer for a segment of which nothing was sent, and drop it up to its Sync."""
        self._names.undo(segment, 0)
        self._names.forget_unnamed()
        self._open = None
        self._mode = _REFUSING
        self.is_idle = self._status == STATUS_IDLE
        self.to_client.append(to_native(error))
        return b""

    def _poison(self, segment: Segment, error: RequestError) -> bytes:
        """Return the name whose failure stands for `error`."""
        self._poison_count += 1
        name = self._token + b"%x" % self._poison_count
        self._poisons[name] = to_native(error)
        segment.poisons += (name,)
        return name

    # Server to client.

    def from_server(self, data: bytes) -> bool:
        """Take bytes of the server; they go to the client as they came, but for our refusals."""
        is_whole = not self._server_held
        if not is_whole:
            data = self._server_held + data
            self._server_held = b""
        size = len(data)
        position = self._server_skip
        start = 0
        progress = self._progress
        while size - position >= 5:
            kind = data[position]
            length: int = read_i32_be(data, position + 1)
            if length < 0:
                length += 1 << 32
            end = position + 1 + length
            step = kinds.PROGRESS[kind]
            if step >= 0:
                progress += step
            else:
                if end > size and end - position < ERROR_BYTES_MAX:
                    break
                self._progress = progress
                start = self._watch(kind, data, start, position, end)
                progress = self._progress
            position = end
        self._progress = progress
        if progress & kinds.ACKNOWLEDGED_MASK > TRIMMED_MESSAGES:
            self._trim()
        if position >= size:
            self._server_skip = position - size
            if is_whole and start == 0:
                return True
            position = size
        else:
            self._server_skip = 0
            self._server_held = data[position:]
        if start < position:
            self.to_client.append(data[start:position])
        return False

    def _watch(self, kind: int, data: bytes, start: int, position: int, end: int) -> int:
        """Follow the session's state; return from where on `data` is still to be sent."""
        if kind == kinds.READY:
            self._on_ready(data[position + 5])
        elif kind != kinds.ERROR:
            self._on_copy_in()
        elif (replacement := self._on_error(data[position:end])) is not None:
            if start < position:
                self.to_client.append(data[start:position])
            self.to_client.append(replacement)
            return end
        return start

    def _trim(self) -> None:
        """Forget what the server has answered of a segment that has no end yet."""
        segment = self._pending[0] if self._pending else self._open
        if segment is None or segment.has_failed:
            return
        answered = self._progress & kinds.ACKNOWLEDGED_MASK
        # The last message stays: a simple Query is looked at when its segment ends.
        count = min(answered, len(segment.units) - 1)
        if count > 0:
            segment.forget(count)
            self._progress -= count

    def _on_ready(self, status: int) -> None:
        self._status = status
        done = self._progress >> 32
        self._progress = 0
        if self._pending:
            segment: Segment | None = self._pending.popleft()
        else:
            # A Sync that was thought to be read inside COPY, and was not.
            segment, self._open = self._open, None
        if segment is not None:
            if done > 1 and (uncounted := segment.uncounted(done)):
                self._gate.charge(parse.UNKNOWN.request_class, uncounted)
            if segment.has_failed:
                self._settle(segment)
                if segment.ignores_all:
                    self._mode = _TAKING
        if not self._pending and self._open is None and not self._held:
            self.is_idle = status == STATUS_IDLE
            if self.is_idle:
                self._names.transaction_ended()

    def _settle(self, segment: Segment) -> None:
        """Give back the units of what an error kept from being performed."""
        for request_class in segment.not_performed():
            self._gate.refund(request_class)
        self._names.undo(segment, segment.acknowledged)
        for name in segment.poisons:
            self._poisons.pop(name, None)

    def _on_error(self, message: bytes) -> bytes | None:
        """Note how far the server came; return our own error if a poison caused this one."""
        segment = self._pending[0] if self._pending else self._open
        if segment is not None and not segment.has_failed:
            done, acknowledged = divmod(self._progress, 1 << 32)
            segment.fail(message, acknowledged, done)
            self._skip_to_sync(segment)
        at = message.find(self._token) if self._poisons else -1
        if at < 0:
            return None
        end = at + len(self._token)
        while message[end : end + 1].isalnum():
            end += 1
        return self._poisons.pop(message[at:end], None)

    def _skip_to_sync(self, segment: Segment) -> None:
        """After an error in an extended message the server answers nothing before a Sync."""
        if not self._pending:
            self._ignore_all(segment)
            return
        if segment.ends_with_sync or segment.acknowledged >= len(segment.units) - 1:
            return
        while not segment.ends_with_sync:
            self._pending.popleft()
            segment = self._absorb_into_next(segment)
            if segment is self._open:
                self._ignore_all(segment)
                return

    def _ignore_all(self, segment: Segment) -> None:
        segment.ignores_all = True
        self._mode = _IGNORING

    def _on_copy_in(self) -> None:
        """In COPY the server reads past Sync until CopyDone or CopyFail."""
        while self._pending and not self._pending[0].has_copy_end:
            segment = self._pending[0]
            if not segment.ends_with_sync:
                return  # a simple Query: there is no Sync to be read past
            self._pending.popleft()
            self._absorb_into_next(segment)
        if self._open is not None and not self._pending:
            self._open.ignores_sync = not self._open.has_copy_end

    def _absorb_into_next(self, segment: Segment) -> Segment:
        if self._pending:
            following = self._pending[0]
        else:
            if self._open is None:
                self._open = Segment()
            following = self._open
        following.absorb(segment)
        return following

    # The end.

    @property
    def is_clean(self) -> bool:
        """True while nothing is under way in either direction; see `ports.Relay`."""
        return (
            self.is_idle
            and not (self._skip or self._held or self._is_broken or self._mode)
            and not (self._pending or self._open or self._server_held or self._server_skip)
        )

    def _on_terminate(self, position: int, end: int, size: int) -> _Verdict:
        """Keep it from a server whose session can be reset; only if it comes alone."""
        if position or end != size or not self.is_clean:
            return None
        self.has_left = self._is_broken = True
        return b""

    def goodbye(self, error: RequestError) -> bytes:
        """Return the farewell of a session that is ended from outside."""
        return to_native(error, "FATAL")

    def closed(self) -> None:
        """Note the end: what was sent was or will be performed, so nothing is given back."""
        self._held = b""
        self._pending.clear()
        self._open = None

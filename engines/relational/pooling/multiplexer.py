"""One client's share in the server's sessions: between its relay and the session it has, if any.

    client <-> relay (admission, metering, refusals) <-> multiplexer <-> a session of the server

A session is wanted from the first message that needs one, and free at the ReadyForQuery `I` that
ends what was sent. This module has the way from the server to the client, on which answers to what
`requests` sent for itself are kept back, and what happens when a session comes, goes or dies.
"""

from __future__ import annotations

import struct
from typing import Final

from engines.kit.errors import Reason, RequestError
from engines.relational import reply, wire
from engines.relational.errors import to_native
from engines.relational.pooling import effects, expected, settings
from engines.relational.pooling.expected import Expected
from engines.relational.pooling.requests import STATUS_IDLE, Requests, serials
from engines.relational.pooling.server import PooledServer

# A message of the server that is looked at must be here as a whole.
WATCHED_BYTES_MAX = 64 * 1024

_unpack_length = struct.Struct("!I").unpack_from

_EMPTY_QUERY = wire.message(b"Q", b"\0")
_TAKEN = "42P05"  # duplicate_prepared_statement

# What is done with each kind of message of the server.
_PASS: Final = 0
_ANSWER: Final = 1
_WATCHED: Final = 2
_STEPS = [_PASS] * 256
for _kind in b"123TnCIs":
    _STEPS[_kind] = _ANSWER
for _kind in b"ZESGA":
    _STEPS[_kind] = _WATCHED
_A: Final = ord("A")
_C: Final = ord("C")
_D: Final = ord("D")
_E: Final = ord("E")
_I: Final = ord("I")
_S: Final = ord("S")
_Z: Final = ord("Z")


class Multiplexer(Requests):
    """`ports.Multiplexer` of PostgreSQL."""

    # The session.

    @property
    def is_full(self) -> bool:
        """True while nothing more should be read from the client."""
        return bool(self._held) and not self._is_incomplete

    @property
    def is_resting(self) -> bool:
        """True while the session could be reset for others: nothing is under way in it."""
        return self._status == STATUS_IDLE and not (
            self._queue or self._skip or self._server_held or self._server_skip or self._is_unsure
        )

    def attach(self, server: PooledServer) -> None:
        """Take a session, and send what waited for one."""
        self._server = server
        self.wants_server = False
        self.is_free = False
        if server.last_client != self.serial or server.last_version != self._settings.version:
            self._prepare(server)
        if self._key_data and not self._queue:
            self._greet()
        self._go_on()
        if not self._queue:
            self._maybe_release()

    def detach(self) -> None:
        """Let go of the session."""
        if self._server is not None:
            self._server.last_version = self._settings.version
        self._server = None
        self.is_free = False
        self.wants_server = bool(self._held)

    def _prepare(self, server: PooledServer) -> None:
        """Bring the session from where another client left it to where this one's would be."""
        found = server.settings
        if server.last_client != self.serial:
            if server.last_client:
                self._send_own(settings.CLEAN, expected.PREPARING)
                found = server.defaults
            server.last_client = self.serial
        for message in self._settings.queries(found):
            self._send_own(message, expected.PREPARING)
        server.is_reset_due = self._settings.is_in_the_way

    def _send_own(self, message: bytes, purpose: int) -> None:
        self.to_server.append(message)
        self._queue.append(Expected(expected.QUERY, is_ours=True, purpose=purpose))

    def _greet(self) -> None:
        """Tell a new client what a session's start tells."""
        assert self._server is not None
        found = self._server.settings
        self._settings.started(found)
        self.to_client += [_status_message(name, value) for name, value in found.items()]
        self.to_client += [self._key_data, reply.ready_for_query(STATUS_IDLE)]
        self._key_data = b""

    def _go_on(self) -> None:
        """Send what was held back, as far as it goes."""
        if self._held and not (self._key_data or self._is_incomplete):
            data = b"".join(self._held)
            self._held.clear()
            if self._scan(data):
                self.to_server.append(data)

    def _maybe_release(self) -> None:
        """Free the session, if nothing is under way and nothing has to be looked at first."""
        server = self._server
        if server is None or self._status != STATUS_IDLE or self._held or self._skip:
            return
        if self._is_unsure:
            self._has_passed_barrier = False
            self._send_own(_EMPTY_QUERY, expected.BARRIER)
            return
        if self._resets:
            self._put_back(server)
        if self._touched:
            self._values = []
            self._send_own(settings.read_back_query(self._touched), expected.READING_BACK)
        if not self.is_pinned and not self._queue:
            self.is_free = True

    def _put_back(self, server: PooledServer) -> None:
        """After RESET: the client's start, which is not the server's default."""
        if effects.ALL in self._resets:
            self._touched.update(dict.fromkeys(self._settings.others))
        changed = self._settings.reset(self._resets, server.settings, server.defaults)
        self._resets.clear()
        for name, value in changed.items():
            self.to_relay.append(_status_message(name, value))
        for message in self._settings.queries(server.settings):
            self._send_own(message, expected.PREPARING)

    # The streams.

    def from_client(self, data: bytes) -> bool:
        """Take what the relay forwards; True, or what comes of it is in `to_server`.

        Without a session it is held back.
        """
        if self._is_incomplete:
            self._is_incomplete = False
            data = b"".join(self._held) + data
            self._held.clear()
        elif self._server is None or self._held or self._key_data:
            self._held.append(data)
            self.wants_server = self._server is None
            return False
        self.is_free = False
        is_forwarded = self._scan(data)
        if self._queue:
            return is_forwarded
        # Nothing was sent that has an answer.
        if is_forwarded:
            self.to_server.append(data)
        self._maybe_release()
        return False

    def from_server(self, data: bytes) -> bool:
        """Take bytes of the session; True, or what is the client's is in `to_relay`."""
        had_held = bool(self._server_held)
        if had_held:
            data = self._server_held + data
            self._server_held = b""
        size = len(data)
        position = self._server_skip
        start = min(position, size) if self._is_muted else 0
        queue = self._queue
        is_muted = self._is_muted
        while size - position >= 5:
            kind = data[position]
            step = _STEPS[kind]
            end = position + 1 + _unpack_length(data, position + 1)[0]
            if end > size and self._must_be_whole(step, kind, end - position):
                break
            if step == _PASS:
                is_muted = bool(queue) and self._is_ours(queue[0], kind, data, position)
            elif step == _ANSWER:
                is_muted = self._on_answer(kind, data, position)
            else:
                is_muted = self._on_watched(kind, data[position:end])
            if is_muted:
                if start < position:
                    self.to_relay.append(data[start:position])
                start = end
            if self._due:
                self._give_due(data[start:end])
                start = end
            position = end
        if position < size:
            self._server_held = data[position:]
            self._server_skip = 0
        else:
            self._server_skip = position - size
        self._is_muted = is_muted and self._server_skip > 0
        is_forwarded = not (had_held or start or position < size or self.to_relay)
        if not is_forwarded and start < min(position, size):
            self.to_relay.append(data[start:position] if position < size else data[start:])
        if not queue or self._is_in_copy:
            self._drained()
        return is_forwarded

    def _must_be_whole(self, step: int, kind: int, length: int) -> bool:
        """Say whether a message must be here to its end before it is looked at."""
        if step == _PASS:
            is_read_back = bool(self._queue) and self._queue[0].purpose == expected.READING_BACK
            return is_read_back and kind == _D
        return step == _ANSWER or length < WATCHED_BYTES_MAX

    def _is_ours(self, head: Expected, kind: int, data: bytes, position: int) -> bool:
        """Take what is no end of an answer; say whether it is the answer to a message of ours."""
        if kind == _D and head.purpose == expected.READING_BACK:
            self._values = settings.row(data[position:])
        return head.is_ours

    def _give_due(self, before: bytes) -> None:
        """Put our answers behind `before`, the message that made them due included."""
        if before:
            self.to_relay.append(before)
        self.to_relay += self._due
        self._due.clear()

    def _drained(self) -> None:
        """All is answered: send what waited for that, or let go of the session."""
        if not self._queue:
            self._changed.clear()
            self._all_changed = 0
            if self._key_data and self.failure is None:
                self._greet()
        self._go_on()
        if not self._queue:
            self._maybe_release()

    def _on_answer(self, kind: int, data: bytes, position: int) -> bool:
        """Take the message that ends an answer; say whether it is kept from the client."""
        if not self._queue:
            return False
        head = self._queue[0]
        if kind == _C and not head.is_ours and data[position + 5] == _D:
            self._on_tag(data[position + 5 : position + 20])
        if head.kind == expected.EXTENDED:
            self._queue.popleft()
            if kind == _C and self._has_copied:
                self._copied()
            self._settle()
        elif head.kind == expected.QUERY:
            if kind == _I and head.purpose == expected.BARRIER:
                self._has_passed_barrier = True
            if kind == _C and self._has_copied:
                self._copied()
        return head.is_ours

    def _on_tag(self, tag: bytes) -> None:
        """Follow what took all prepared statements away."""
        is_discard = tag.startswith(b"DISCARD ALL\0")
        if not is_discard and not tag.startswith(b"DEALLOCATE ALL\0"):
            return
        assert self._server is not None
        self._names.clear()
        self._server.forget_statements()
        if is_discard and self.is_pinned and self.pins is not None:
            self.is_pinned = False
            self.pins.give()

    def _settle(self) -> None:
        """Give the answers of ours whose turn has come."""
        queue = self._queue
        while queue:
            head = queue[0]
            if head.kind == expected.SYNTHETIC:
                self._due.append(head.answer)
            elif head.kind != expected.COPY_END and head.kind != expected.MAYBE_SYNC:
                return
            queue.popleft()

    def _on_watched(self, kind: int, message: bytes) -> bool:
        """Follow the session's state; say whether the client is kept from it."""
        if kind == _Z:
            return self._on_ready(message[5])
        if kind == _E:
            return self._on_error(message)
        if kind == _S:
            return self._on_setting(message)
        if kind == _A:
            return not self.is_pinned
        self._on_copy_in()
        return False

    def _on_ready(self, status: int) -> bool:
        queue = self._queue
        if not queue or (queue[0].purpose == expected.BARRIER and not self._has_passed_barrier):
            # The one of a Sync that COPY did not read past.
            self._status = status
            self._is_skipping = False
            return False
        entry = queue.popleft()
        while queue and entry.kind != expected.SYNC and entry.kind != expected.QUERY:
            entry = queue.popleft()
        self._status = status
        self._is_in_copy = self._has_copied = False
        if entry.is_ours:
            self._own_ended(entry)
        else:
            self._ends_expected -= 1
        self._settle()
        return entry.is_ours

    def _own_ended(self, entry: Expected) -> None:
        assert self._server is not None
        if entry.purpose == expected.BARRIER:
            self._is_unsure = False
        elif entry.purpose == expected.READING_BACK:
            if len(self._values) == len(self._touched):
                self._settings.read_back(self._touched, self._values)
                self._server.is_reset_due = self._settings.is_in_the_way
            else:
                self._server.is_reset_due = True
            self._touched.clear()

    def _on_error(self, message: bytes) -> bool:
        if b"\0VFATAL\0" in message or b"\0VPANIC\0" in message:
            # What it means for the client is seen when the session has ended.
            self._fatal = message
            return True
        queue = self._queue
        if not queue or queue[0].kind == expected.SYNC:
            return False
        head = queue[0]
        if self._has_copied:
            self._copy_failed()
        if head.kind == expected.QUERY:
            if head.is_ours:
                self._own_failed(head, message)
                return True
            self._undo(head, has_failed=True)
        else:
            self._skip_to_sync()
        instead = head.replacement
        if head.taken_name is not None and wire.fields(message[5:]).get("C") == _TAKEN:
            instead = _taken(head.taken_name)
        if instead:
            self._due.append(instead)
        return bool(instead)

    def _own_failed(self, entry: Expected, message: bytes) -> None:
        """A query of ours failed: only what the client asked for at its start may."""
        if entry.purpose != expected.PREPARING:
            return
        fields = wire.fields(message[5:])
        reason = fields.get("M", "")
        self.failure = RequestError(Reason.INTERNAL, "the session could not be prepared")
        self.failure.add_note(reason)
        if self._key_data and fields.get("C", "").startswith(("22", "42")):
            self.failure = RequestError(
                Reason.BACKEND, reason, hint=fields.get("H", ""), sqlstate=fields["C"]
            )

    def _skip_to_sync(self) -> None:
        """Undo what the server skips after an error in an extended message."""
        queue = self._queue
        skipped = [queue.popleft()]
        while queue and queue[0].kind != expected.SYNC:
            skipped.append(queue.popleft())
        for index in range(len(skipped) - 1, -1, -1):
            self._undo(skipped[index], has_failed=index == 0)
        self._is_skipping = not queue

    def _undo(self, entry: Expected, *, has_failed: bool) -> None:
        """Forget what a message was to do, which failed or was skipped."""
        server = self._server
        assert server is not None
        if entry.kind == expected.QUERY and not has_failed:
            server.has_unnamed = True
            if not entry.is_ours:
                self._ends_expected -= 1
        if entry.name is not None:
            self._names.put(entry.name, entry.previous)
        if entry.server_name is not None:
            server.drop(entry.server_name)
        if entry.closed_name is not None:
            server.restore(entry.closed_name)
        if entry.changes_unnamed:
            server.has_unnamed = True
            server.unnamed_id = 0
            self._undo_unnamed(entry, is_gone=has_failed and not entry.is_ours)

    def _undo_unnamed(self, entry: Expected, *, is_gone: bool) -> None:
        """Put the unnamed statement back to before a message, as far as nothing came after it."""
        body = None if is_gone else entry.unnamed
        before = next(serials) if is_gone else entry.unnamed_before
        if self._unnamed_id == entry.unnamed_after:
            self._unnamed, self._unnamed_id = body, before
        for later in self._queue:
            if later.changes_unnamed and later.unnamed_before == entry.unnamed_after:
                later.unnamed, later.unnamed_before = body, before
                if later.is_ours:
                    later.unnamed_after = before

    def _on_setting(self, message: bytes) -> bool:
        """ParameterStatus: the session's, and the client's if a text of its own caused it."""
        assert self._server is not None
        name, _, rest = message[5:].partition(b"\0")
        value = rest[:-1]
        self._server.settings[name] = value
        if not self._queue or self._queue[0].is_ours:
            return True
        self._settings.report(name, value)
        return False

    def _on_copy_in(self) -> None:
        """COPY FROM the client: Syncs that were sent before its end are read past."""
        self._is_in_copy = self._has_copied = True
        self._copy_syncs = 0
        queue = self._queue
        for index in range(1, len(queue)):
            if queue[index].kind == expected.COPY_END:
                self._is_in_copy = False
                break
            if queue[index].kind == expected.SYNC and not queue[index].is_ours:
                queue[index] = expected.THEIR_MAYBE_SYNC
                self._ends_expected -= 1

    def _copy_failed(self) -> None:
        """Note whether it is known which Syncs the server has read past."""
        self._is_in_copy = self._has_copied = False
        if self._copy_syncs or expected.THEIR_MAYBE_SYNC in self._queue:
            self._is_unsure = True

    def _copied(self) -> None:
        self._is_in_copy = self._has_copied = False
        self._copy_syncs = 0

    # The end of a session, or of the client.

    def lost(self) -> bool:
        """The session has died. True: the client was told and goes on; False: it cannot."""
        server = self._server
        assert server is not None
        queue = self._queue
        theirs = [entry for entry in queue if not entry.is_ours]
        is_between = self._status == STATUS_IDLE and not self._is_in_copy and not self._skip
        if self.is_pinned or not is_between or (self._key_data and self._server_skip):
            return False
        if theirs and not self._is_one_segment(theirs):
            return False
        if self._server_skip:
            return False  # half a message is at the client
        while queue:
            entry = queue.pop()
            if not entry.is_ours:
                self._undo(entry, has_failed=True)
        self._ends_expected = 0
        self._changed.clear()
        self._all_changed = 0
        self._server_held = b""
        self._is_unsure = self._is_skipping = False
        self._unnamed = None if theirs else self._unnamed
        if theirs:
            self.to_relay.append(to_native(_gone()))
            self.to_relay.append(reply.ready_for_query(STATUS_IDLE))
        self._fatal = b""
        self._server = None
        self.is_free = False
        self.wants_server = bool(self._held) or bool(self._key_data)
        return True

    def waits(self, seconds: float) -> bytes:
        """Return the notice of a client that waits for a session."""
        fields = {
            "S": "NOTICE",
            "V": "NOTICE",
            "C": "00000",
            "M": f"waiting for a session of the pool for {seconds:.0f} s",
        }
        return wire.error_response(fields, b"N")

    def farewell(self) -> RequestError:
        """Return why the client's connection ends with its session."""
        if self._fatal:
            fields = wire.fields(self._fatal[5:])
            return RequestError(
                Reason.BACKEND, fields.get("M", ""), sqlstate=fields.get("C", "08006")
            )
        return _gone()

    @staticmethod
    def _is_one_segment(theirs: list[Expected]) -> bool:
        """Say whether one ReadyForQuery answers all that the client has sent."""
        ends = [entry.kind in (expected.SYNC, expected.QUERY) for entry in theirs]
        return ends[-1] and sum(ends) == 1


def _gone() -> RequestError:
    return RequestError(
        Reason.BACKEND,
        "the server's session was lost; whether the statement was performed is not known",
        sqlstate="08006",
    )


def _taken(name: bytes) -> bytes:
    message = f'prepared statement "{wire.text(name)}" already exists'
    return wire.error_response({"S": "ERROR", "V": "ERROR", "C": _TAKEN, "M": message})


def _status_message(name: bytes, value: bytes) -> bytes:
    return wire.message(b"S", name + b"\0" + value + b"\0")

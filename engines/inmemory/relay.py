"""The signed-in session: framing of what the client sends, admission, metering.

Replies are not parsed: they go to the client as they came. Commands are. A chunk of whole commands
is read by hiredis and admitted as one; whatever needs a closer look (a partial command, an inline
one, a transaction, a refusal) goes through `_scan`, which knows where each command begins. Values
stream through: only names and lengths must be here.

A refused command is replaced by one that no server knows, with a random name. Redis answers it
with an error at exactly that point, also inside MULTI, which then ends in EXECABORT; that error is
recognised by the name and replaced by ours. The same *marks* tell where the replies to commands of
our own begin.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import hiredis

from engines.inmemory import wire
from engines.inmemory.errors import to_native
from engines.inmemory.parse import IS_EXEC, IS_MULTI, KINDS, sort_class
from engines.inmemory.plan import SignIn
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Gate, RequestClass, Wait

# A command whose arguments matter must be here whole.
TRACKED_BYTES_MAX = 64 * 1024
TRACKED_ARGUMENTS_MAX = 1024
# A name is looked at up to this length; Redis shows 128 bytes of it in its error.
NAME_BYTES_MAX = 1024
# Refusals that no answer has come for: with CLIENT REPLY OFF none ever does.
MARKS_MAX = 4096

_UNKNOWN_COMMAND = b"-ERR unknown command "
_TOKEN_OFFSET = len(_UNKNOWN_COMMAND) + 1  # and a quote, which differs between versions
_SEQUENCE_DIGITS = 8

_MORE = object()
# hiredis makes room for as many arguments as a header claims.
_MANY_ARGUMENTS = re.compile(rb"\*[0-9]{5}").search
# It also reads RESP3's other aggregates, where Redis reads an inline command and then all that is
# inside of it. Some come out as lists, so they are looked for in the bytes; most chunks hold none
# of their marks, which is quicker to see than that they have no header.
_OTHER_MARKS = (b"~", b"|", b">", b"%")
_OTHER_AGGREGATE = re.compile(rb"[~|>%][0-9]+\r\n").search
_CLASSES = tuple(RequestClass)

# What a handler of a tracked command may say: None to forward, bytes to send instead, or a refusal.
_Verdict = bytes | RequestError | None


@dataclass(slots=True)
class _Mark:
    """What to do where a mark's error shows up in the replies.

    It is replaced by `replacement`; `units` are given back if the reply behind it begins with the
    byte `refund_on`.
    """

    replacement: bytes = b""
    units: Sequence[int] = ()
    refund_on: bytes = b""


class Relay:
    """One client's session with its instance's server (`kit.ports.Relay`).

    `prove_again` checks a later AUTH: it takes user name (b"" for none) and password, and raises
    RequestError unless they prove the user that `sign_in` is.
    """

    def __init__(
        self, gate: Gate, sign_in: SignIn, prove_again: Callable[[bytes, bytes], None]
    ) -> None:
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.waiting: tuple[RequestClass, int] | None = None
        self.is_idle = True
        # Nothing of Redis leads back to a new connection in all respects.
        self.has_left = self.is_clean = False
        self._gate = gate
        self._sign_in = sign_in
        self._prove_again = prove_again
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        # Once a chunk was not admitted as a whole, commands are admitted one by one: trying the
        # whole first would count refusals twice.
        self._is_batching = True
        # Within a command: arguments whose length has not come yet, bytes of the present one
        # (with its CRLF), and whether it is all dropped.
        self._held = b""
        self._arguments_left = 0
        self._bytes_left = 0
        self._is_dropping = False
        self._is_broken = False
        # Within MULTI: units of what was queued, by class, and whether something was refused.
        self._queued: list[int] | None = None
        self._has_refused = False
        self._token = b"weftkit_" + secrets.token_hex(12).encode() + b"_"
        self._mark_count = 0
        self._marks: dict[bytes, _Mark] = {}
        self._server_held = b""

    # Client to server.

    def from_client(self, data: bytes) -> bool:
        """Take bytes of the client; b"" after a wait goes on where it stopped."""
        self._take_commands(data)
        return False

    def _take_commands(self, data: bytes) -> None:
        if self.waiting is not None:
            if data:
                self._held += data
                return
            self.waiting = None
        if self._held:
            data = self._held + data
            self._held = b""
        if self._is_broken:
            return
        self.is_idle = False
        if self._bytes_left > len(data):
            self._bytes_left -= len(data)
            if not self._is_dropping:
                self.to_server.append(data)
            return
        if self._bytes_left or self._arguments_left:
            data = self._finish_command(data)
        if not data:
            return
        if not self._is_batching or self._queued is not None:
            self._scan(data)
            return
        end = self._admit_whole(data)
        if end == len(data):
            self.to_server.append(data)
        elif end:
            self.to_server.append(data[:end])
            self._scan(data[end:])
        else:
            self._scan(data)

    def _finish_command(self, data: bytes) -> bytes:
        """Pass on what is here of the rest of the present command; return what follows it."""
        position, self._bytes_left = self._bytes_left, 0
        try:
            end = self._skip_arguments(data, position)
        except wire.ProtocolError as error:
            self._break(data[: error.position], error)
            return b""
        if end and not self._is_dropping:
            self.to_server.append(data[:end])
        if self._bytes_left or self._arguments_left:
            self._held = data[end:]
            return b""
        self._is_dropping = False
        return data[end:]

    def _admit_whole(self, data: bytes) -> int:
        """Admit all whole commands of a chunk at once; return where they end.

        Return 0 if they need a closer look.
        """
        if _MANY_ARGUMENTS(data) or _holds_other_aggregate(data):
            return 0
        reader = self._reader
        try:
            reader.feed(data)
            commands = [*iter(reader.gets, _MORE)]
            kinds = [KINDS[command[0]] for command in commands]
            end = len(data)
            if not _is_between(reader):
                self._reader = hiredis.Reader(notEnoughData=_MORE)
                end = sum(len(hiredis.pack_command(tuple(command))) for command in commands)
                if data[end : end + 1] != b"*":
                    return 0
        except (AttributeError, IndexError, TypeError, hiredis.HiredisError):
            # Not an array of bulk strings; the reader may stand anywhere in it.
            self._reader = hiredis.Reader(notEnoughData=_MORE)
            return 0
        return end if self._admit_kinds(kinds) else 0

    def _admit_kinds(self, kinds: list[int]) -> bool:
        """Admit commands that need nothing else; False if one by one is the way."""
        left = len(kinds)
        if left == 1 and kinds[0] < IS_MULTI:
            self._is_batching = self._gate.admit(_CLASSES[kinds[0]]) is None
            return self._is_batching
        taken: list[tuple[RequestClass, int]] = []
        for index, request_class in enumerate(_CLASSES):
            if units := kinds.count(index):
                taken.append((request_class, units))
                left -= units
        if left:
            # Whole transactions, and nothing else that is tracked.
            tracked = [kind for kind in kinds if kind >= IS_MULTI]
            if tracked != [IS_MULTI, IS_EXEC] * (left // 2):
                return False
            taken.append((RequestClass.UNLIMITED, left))
        for index, (request_class, units) in enumerate(taken):
            if self._gate.admit(request_class, units) is not None:
                for earlier, earlier_units in taken[:index]:
                    self._gate.refund(earlier, earlier_units)
                self._is_batching = False
                return False
        return True

    def _scan(self, data: bytes) -> None:
        """Handle commands one by one."""
        start = position = 0
        while True:
            try:
                position = self._skip_arguments(data, position)
                if self._arguments_left or self._bytes_left:
                    break
                if self._is_dropping:
                    self._is_dropping = False
                    start = position
                step = self._read_command(data, position)
            except wire.ProtocolError as error:
                self._break(data[start : error.position], error)
                return
            if step is None:
                break
            verdict, end = step
            if verdict is not None:
                if start < position:
                    self.to_server.append(data[start:position])
                start = position
                if isinstance(verdict, Wait):
                    break
                self.to_server.append(verdict)
                self._is_dropping = True
            position = end
        self._held = data[position:]
        if start < position and not self._is_dropping:
            self.to_server.append(data[start:position])

    def _break(self, before: bytes, error: wire.ProtocolError) -> None:
        """Lose the framing: make Redis say so in its own words, and close."""
        self._is_broken = True
        self.to_server.append(wire.GARBAGE if self._is_dropping else before + error.garbage)

    def _skip_arguments(self, data: bytes, position: int) -> int:
        """Walk over the rest of the present command; return how far it is here."""
        while position <= len(data):
            if not self._arguments_left:
                return position
            line = wire.read_length(data, position, wire.ARGUMENT_BYTES_MAX)
            if line is None:
                return position
            length, position = line
            self._arguments_left -= 1
            position += length + 2
        self._bytes_left = position - len(data)
        return len(data)

    def _read_command(self, data: bytes, position: int) -> tuple[bytes | Wait | None, int] | None:
        """Decide on the command at `position`.

        Return what to send instead (None to forward it) and how far it was read; None if there is
        more to come first.
        """
        if position >= len(data):
            return None
        if data[position] == wire.ARRAY:
            return self._read_head(data, position)
        read = wire.read_arguments(data, position)
        if read is None:
            return None
        arguments, end = read
        if not arguments:
            return b"", end
        verdict = self._decide(KINDS[arguments[0]], arguments)
        # An inline command goes on as an array, so that we and Redis read it alike.
        return wire.encode_command(*arguments) if verdict is None else verdict, end

    def _read_head(self, data: bytes, position: int) -> tuple[bytes | Wait | None, int] | None:
        """Decide on the array at `position`, of which only the name must be here."""
        header = wire.read_count(data, position, wire.ARGUMENTS_MAX)
        if header is None:
            return None
        count, at = header
        if not count:
            return b"", at  # Redis skips it, and so do we
        line = wire.read_length(data, at, wire.ARGUMENT_BYTES_MAX)
        if line is None:
            return None
        length, at = line
        name = data[at : at + min(length, NAME_BYTES_MAX)]
        if len(name) < min(length, NAME_BYTES_MAX):
            return None
        kind = KINDS[name]
        arguments: list[bytes] = []
        if kind >= IS_MULTI:
            read = wire.read_arguments(data, position, TRACKED_ARGUMENTS_MAX, TRACKED_BYTES_MAX)
            if read is None:
                if len(data) - position > TRACKED_BYTES_MAX:
                    raise wire.ProtocolError("too big a command", wire.GARBAGE, position)
                return None
            arguments = read[0]
        verdict = self._decide(kind, arguments)
        if isinstance(verdict, Wait):
            return verdict, position
        self._arguments_left = count - 1
        return verdict, at + length + 2

    def _decide(self, kind: int, arguments: list[bytes]) -> bytes | Wait | None:
        """Admit one command; return what to send instead of it, None to forward it."""
        handler = None
        if kind >= IS_MULTI:
            name = arguments[0].upper()
            handler = _TRACKED.get(name)
            kind = sort_class(arguments) if handler is None else RequestClass.UNLIMITED
        request_class = _CLASSES[kind]
        answer = self._gate.admit(request_class)
        if isinstance(answer, Wait):
            self.waiting = (request_class, 1)
            return answer
        if isinstance(answer, RequestError):
            return self._refuse(answer)
        if handler is not None:
            try:
                verdict = handler(self, arguments)
            except RequestError as error:
                verdict = error
            return self._refuse(verdict) if isinstance(verdict, RequestError) else verdict
        if self._queued is not None:
            self._queued[kind] += 1
        return None

    def _refuse(self, error: RequestError) -> bytes:
        """Return the command whose failure stands for `error`."""
        self._has_refused = True
        return self._mark(_Mark(to_native(error)))

    def _mark(self, mark: _Mark) -> bytes:
        self._mark_count = (self._mark_count + 1) % 16**_SEQUENCE_DIGITS
        name = self._token + b"%08x" % self._mark_count
        if len(self._marks) >= MARKS_MAX:
            del self._marks[next(iter(self._marks))]
        self._marks[name] = mark
        return wire.encode_command(name)

    # Commands that change the session.

    def _on_multi(self, arguments: list[bytes]) -> _Verdict:
        if len(arguments) == 1 and self._queued is None:
            self._queued = [0] * len(_CLASSES)
            self._has_refused = False
        return None

    def _on_exec(self, arguments: list[bytes]) -> _Verdict:
        """A transaction in which something was refused is aborted: nothing of it is performed."""
        queued = self._leave_multi(arguments)
        if queued is None or not self._has_refused:
            return None
        return self._mark(_Mark(units=queued, refund_on=b"-")) + wire.encode_command(*arguments)

    def _on_discard(self, arguments: list[bytes]) -> _Verdict:
        queued = self._leave_multi(arguments)
        if queued is None or not any(queued):
            return None
        return self._mark(_Mark(units=queued, refund_on=b"+")) + wire.encode_command(*arguments)

    def _on_reset(self, arguments: list[bytes]) -> _Verdict:
        self._leave_multi(arguments)
        return None

    def _leave_multi(self, arguments: list[bytes]) -> list[int] | None:
        if len(arguments) != 1:
            return None  # Redis refuses it, and MULTI goes on
        queued, self._queued = self._queued, None
        return queued

    def _on_auth(self, arguments: list[bytes]) -> _Verdict:
        if len(arguments) not in (2, 3):
            return None
        user = arguments[1] if len(arguments) == 3 else b""
        return self._rewrite_proof(user, arguments[-1], [b"AUTH", b"", b""], 1)

    def _on_hello(self, arguments: list[bytes]) -> _Verdict:
        at = 2
        while at < len(arguments):
            option = arguments[at].upper()
            if option == b"AUTH" and at + 2 < len(arguments):
                user, password = arguments[at + 1 : at + 3]
                return self._rewrite_proof(user, password, arguments, at + 1)
            if option != b"SETNAME":
                return None
            at += 2
        return None

    def _rewrite_proof(
        self, user: bytes, password: bytes, command: list[bytes], at: int
    ) -> _Verdict:
        """Check a later sign-in ourselves; Redis then gets our own secret in its place."""
        if self._queued is not None:
            return RequestError(Reason.UNSUPPORTED, "AUTH inside MULTI is not supported")
        self._prove_again(user, password)
        return wire.encode_command(
            *command[:at], self._sign_in.username, self._sign_in.secret, *command[at + 2 :]
        )

    # Server to client.

    def from_server(self, data: bytes) -> bool:
        """Take bytes of the server; they go to the client as they came, but for our marks."""
        self._take_replies(data)
        return False

    def _take_replies(self, data: bytes) -> None:
        if self._marks or self._server_held:
            self._replace_marks(self._server_held + data)
        else:
            self.to_client.append(data)
        # Replies are not counted, so this is a guess on the safe side: what came last is the end of
        # a reply, and the client has begun nothing. A subscriber at rest counts as idle.
        self.is_idle = (
            (data.endswith(b"\r\n") or data == b"\n")
            and self._queued is None
            and not (self._held or self._bytes_left or self._arguments_left)
            and not (self._marks or self._server_held)
        )

    def _replace_marks(self, data: bytes) -> None:
        """Pass replies on without what marks stand for; hold back what may be part of one."""
        start = search = 0
        held_from = -1
        while (at := data.find(self._token, search)) >= 0:
            search = at + 1
            begin = at - _TOKEN_OFFSET
            name = data[at : at + len(self._token) + _SEQUENCE_DIGITS]
            mark = self._marks.get(name)
            if begin < start or not data.startswith(_UNKNOWN_COMMAND, begin):
                continue
            end = data.find(b"\r\n", at) + 2
            if end < 2 or (mark and mark.refund_on and end == len(data)):
                held_from = begin
                break
            if mark is None:
                continue
            self.to_client.append(data[start:begin] + mark.replacement)
            if mark.refund_on and data.startswith(mark.refund_on, end):
                self._refund(mark.units)
            del self._marks[name]
            start = search = end
        if held_from < 0:
            held_from = self._partial_mark(data, start)
        self._server_held = data[held_from:]
        if start < held_from:
            self.to_client.append(data[start:held_from])

    def _partial_mark(self, data: bytes, start: int) -> int:
        """Return where at the end of `data` a mark's error may have begun, else its length."""
        begin = data.rfind(b"-", max(start, len(data) - _TOKEN_OFFSET - len(self._token)))
        if begin < 0:
            return len(data)
        tail = data[begin:]
        is_begun = _UNKNOWN_COMMAND.startswith(tail[: len(_UNKNOWN_COMMAND)])
        return begin if is_begun and self._token.startswith(tail[_TOKEN_OFFSET:]) else len(data)

    def _refund(self, units: Sequence[int]) -> None:
        for request_class, count in zip(_CLASSES, units, strict=True):
            if count:
                self._gate.refund(request_class, count)

    # The end.

    def goodbye(self, error: RequestError) -> bytes:
        """Return the farewell of a session that is ended from outside."""
        return to_native(error)

    def closed(self) -> None:
        """Note the end: what was sent was or will be performed, so nothing is given back."""
        self._held = b""
        self._queued = None
        self._marks.clear()


def _holds_other_aggregate(data: bytes) -> bool:
    """Tell whether hiredis may take something in `data` for a command that Redis would not."""
    for mark in _OTHER_MARKS:
        if mark in data:
            return _OTHER_AGGREGATE(data) is not None
    return False


def _is_between(reader: hiredis.Reader) -> bool:
    """Tell whether the reader stands between two commands, by giving it a number of our own.

    It does not say so itself: the beginning of a command may be consumed as a whole. Within a
    command the number becomes part of it, and what comes out, if anything, is no number.
    """
    reader.feed(b":7\r\n")
    try:
        return bool(reader.gets() == 7)
    except hiredis.HiredisError:
        return False


_TRACKED: Mapping[bytes, Callable[[Relay, list[bytes]], _Verdict]] = {
    b"AUTH": Relay._on_auth,
    b"DISCARD": Relay._on_discard,
    b"EXEC": Relay._on_exec,
    b"HELLO": Relay._on_hello,
    b"MULTI": Relay._on_multi,
    b"RESET": Relay._on_reset,
}

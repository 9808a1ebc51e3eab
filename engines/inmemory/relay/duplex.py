"""The relay between one client and its instance's server.

Replies are not parsed: they go to the client as they came. Commands are. The whole commands of a
chunk are counted by class and admitted at once (`tally`); whatever needs a closer look (a partial
command, an inline one, a transaction, a refusal) goes through `_scan`, which knows where each
command begins. Values stream through: only names and lengths must be here.

A refused command is replaced by a mark (`marks`): order is always the server's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from engines.inmemory import wire
from engines.inmemory.errors import to_native
from engines.inmemory.parse import IS_MULTI, kind_of, sort_class
from engines.inmemory.plan import SignIn
from engines.inmemory.relay import tally, tally_plain
from engines.inmemory.relay.marks import Mark, Marks
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Gate, RequestClass, Wait

# A command whose arguments matter must be here whole.
TRACKED_BYTES_MAX = 64 * 1024
TRACKED_ARGUMENTS_MAX = 1024
# A name is looked at up to this length; Redis shows 128 bytes of it in its error.
NAME_BYTES_MAX = 1024

_IS_COMPILED: Final = not (tally.__file__ or ".py").endswith((".py", ".pyc"))
_CLASSES: Final[tuple[RequestClass, ...]] = tuple(RequestClass)
_CR: Final = 0x0D
_LF: Final = 0x0A

# What a handler of a tracked command may say: None to forward, bytes to send instead, or a refusal.
_Verdict = bytes | RequestError | None


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
        self._admit = gate.admit
        self._sign_in = sign_in
        self._prove_again = prove_again
        # Once a chunk was refused as a whole, commands are admitted one by one: trying the whole
        # first would count refusals twice.
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
        # What the above comes to, for the next chunk: that it begins with a command outside of
        # MULTI, and that it may be admitted as a whole.
        self._is_between = True
        self._is_plain = True
        self._marks = Marks()
        self._has_marks = False

    # Client to server.

    def from_client(self, data: bytes) -> bool:
        """Take bytes of the client; b"" after a wait goes on where it stopped."""
        self.is_idle = False
        if self._is_plain:
            if self._take_commands(data):
                return True
        elif self._take_rest(data):
            return True
        self._is_between = self._queued is None and not (
            self._held or self._bytes_left or self._arguments_left
        )
        self._is_plain = self._is_between and self._is_batching and not self._is_broken
        return False

    def _take_commands(self, data: bytes) -> bool:
        """Take a chunk that begins with a command; True if it is to go on as it is."""
        end = self._admit_whole(data)
        if end == len(data):
            return True
        if end:
            self.to_server.append(data[:end])
            data = data[end:]
        self._scan(data)
        return False

    def _take_rest(self, data: bytes) -> bool:
        """Go on within a command, a transaction or a wait; True if `data` is to go on as it is."""
        if self.waiting is not None:
            if data:
                self._held += data
                return False
            self.waiting = None
        if self._is_broken:
            return False
        if self._bytes_left > len(data):
            self._bytes_left -= len(data)
            return not self._is_dropping
        if self._held:
            data = self._held + data
            self._held = b""
        if self._bytes_left or self._arguments_left:
            data = self._finish_command(data)
        if not data:
            return False
        if self._queued is not None or not self._is_batching:
            self._scan(data)
        elif self._take_commands(data):
            self.to_server.append(data)
        return False

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

        Return 0 if they need a closer look, or were not admitted.
        """
        units = [0, 0, 0, 0]
        if _IS_COMPILED:
            end = tally.count_commands(data, units)
        else:
            end = tally_plain.count_commands(data, units)
        for kind in range(4):
            count = units[kind]
            if count:
                answer = self._admit(_CLASSES[kind], count)
                if answer is not None:
                    self._is_batching = isinstance(answer, Wait)
                    units[kind:] = [0] * (4 - kind)
                    self._refund(units)
                    return 0
        return end

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
        verdict = self._decide(kind_of(arguments[0]), arguments)
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
        kind = kind_of(name)
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
        return self._mark(Mark(to_native(error)))

    def _mark(self, mark: Mark) -> bytes:
        self._has_marks = True
        return self._marks.add(mark)

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
        return self._mark(Mark(units=queued, refund_on=b"-")) + wire.encode_command(*arguments)

    def _on_discard(self, arguments: list[bytes]) -> _Verdict:
        queued = self._leave_multi(arguments)
        if queued is None or not any(queued):
            return None
        return self._mark(Mark(units=queued, refund_on=b"+")) + wire.encode_command(*arguments)

    def _on_reset(self, arguments: list[bytes]) -> _Verdict:
        self._leave_multi(arguments)
        return None

    def _on_config(self, arguments: list[bytes]) -> _Verdict:
        """Where the data lies on the host is nothing for a reply to CONFIG GET."""
        is_get = len(arguments) > 2 and arguments[1].upper() == b"GET"
        if not is_get or not any(map(_may_mean_directory, arguments[2:])):
            return None
        if self._queued is not None:
            return RequestError(Reason.UNSUPPORTED, "CONFIG GET dir inside MULTI is not supported")
        self._has_marks = True
        return self._marks.add_masked(wire.encode_command(*arguments))

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
        # Replies are not counted, so this is a guess on the safe side: what came last is the end of
        # a reply, and the client has begun nothing. A subscriber at rest counts as idle.
        size = len(data)
        is_end = size > 0 and data[size - 1] == _LF and (size == 1 or data[size - 2] == _CR)
        if not self._has_marks:
            self.is_idle = is_end and self._is_between
            return True
        for units in self._marks.replace(data, self.to_client):
            self._refund(units)
        self._has_marks = self._marks.are_awaited
        self.is_idle = is_end and self._is_between and not self._has_marks
        return False

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


def _may_mean_directory(pattern: bytes) -> bool:
    return pattern.lower() == b"dir" or any(mark in pattern for mark in b"*?[\\")


_TRACKED: Mapping[bytes, Callable[[Relay, list[bytes]], _Verdict]] = {
    b"AUTH": Relay._on_auth,
    b"CONFIG": Relay._on_config,
    b"DISCARD": Relay._on_discard,
    b"EXEC": Relay._on_exec,
    b"HELLO": Relay._on_hello,
    b"MULTI": Relay._on_multi,
    b"RESET": Relay._on_reset,
}

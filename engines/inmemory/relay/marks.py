"""Errors of Redis that stand for something of ours: marks.

A command that is refused here is replaced by one that no server knows, with a random name. Redis
answers it with an error at exactly that point, also inside MULTI, which then ends in EXECABORT;
that error is recognised by the name and replaced by ours. The same marks tell where the replies to
commands of our own begin.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from engines.inmemory import wire

# Refusals that no answer has come for: with CLIENT REPLY OFF none ever does.
MARKS_MAX = 4096

_UNKNOWN_COMMAND = b"-ERR unknown command "
_TOKEN_OFFSET = len(_UNKNOWN_COMMAND) + 1  # and a quote, which differs between versions
_SEQUENCE_DIGITS = 8
# The key in a reply to CONFIG GET, and the beginning of its value.
_DIRECTORY_KEY = b"$3\r\ndir\r\n$"


@dataclass(slots=True)
class Mark:
    """What to do where a mark's error shows up in the replies.

    It is replaced by `replacement`; `units` are given back if the reply behind it begins with the
    byte `refund_on`. With `closed_by`, the name of a second mark, all between the two goes through
    `mask_directory`.
    """

    replacement: bytes = b""
    units: Sequence[int] = ()
    refund_on: bytes = b""
    closed_by: bytes = b""


class Marks:
    """The marks of one session that no answer has come for yet."""

    def __init__(self) -> None:
        self._token = b"weftkit_" + secrets.token_hex(12).encode() + b"_"
        self._count = 0
        self._marks: dict[bytes, Mark] = {}
        self._held = b""

    def __len__(self) -> int:
        return len(self._marks)

    @property
    def are_awaited(self) -> bool:
        """True if replies must be looked at: a mark is out, or the part of an error is held."""
        return bool(self._marks or self._held)

    def add(self, mark: Mark) -> bytes:
        """Return the command to send whose error stands for `mark`."""
        return wire.encode_command(self._name(mark))

    def add_masked(self, command: bytes) -> bytes:
        """Return what to send so that the reply to `command` is masked."""
        last = self._name(Mark())
        first = self._name(Mark(closed_by=last))
        return wire.encode_command(first) + command + wire.encode_command(last)

    def _name(self, mark: Mark) -> bytes:
        self._count = (self._count + 1) % 16**_SEQUENCE_DIGITS
        name = self._token + b"%08x" % self._count
        if len(self._marks) >= MARKS_MAX:
            del self._marks[next(iter(self._marks))]
        self._marks[name] = mark
        return name

    def replace(self, data: bytes, to_client: list[bytes]) -> list[Sequence[int]]:
        """Pass replies on to `to_client` without what marks stand for; return units to give back.

        What may be part of a mark's error is held back.
        """
        data = self._held + data
        refunds: list[Sequence[int]] = []
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
            if mark.closed_by:
                last = data.find(mark.closed_by, end)
                closed_at = data.find(b"\r\n", last) + 2
                if last < 0 or closed_at < 2:
                    held_from = begin
                    break
                masked = mask_directory(data[end : last - _TOKEN_OFFSET])
                to_client.append(data[start:begin] + masked)
                del self._marks[name]
                self._marks.pop(mark.closed_by, None)
                start = search = closed_at
                continue
            to_client.append(data[start:begin] + mark.replacement)
            if mark.refund_on and data.startswith(mark.refund_on, end):
                refunds.append(mark.units)
            del self._marks[name]
            start = search = end
        if held_from < 0:
            held_from = self._partial(data, start)
        self._held = data[held_from:]
        if start < held_from:
            to_client.append(data[start:held_from])
        return refunds

    def clear(self) -> None:
        """Forget all: no reply comes any more."""
        self._marks.clear()
        self._held = b""

    def _partial(self, data: bytes, start: int) -> int:
        """Return where at the end of `data` a mark's error may have begun, else its length."""
        begin = data.rfind(b"-", max(start, len(data) - _TOKEN_OFFSET - len(self._token)))
        if begin < 0:
            return len(data)
        tail = data[begin:]
        is_begun = _UNKNOWN_COMMAND.startswith(tail[: len(_UNKNOWN_COMMAND)])
        return begin if is_begun and self._token.startswith(tail[_TOKEN_OFFSET:]) else len(data)


def mask_directory(reply: bytes) -> bytes:
    """Return a reply to CONFIG GET in which the working directory is the root."""
    before, key, after = reply.partition(_DIRECTORY_KEY)
    length, _, rest = after.partition(b"\r\n")
    if not key or not length.isdigit():
        return reply
    return before + key + b"1\r\n/" + rest[int(length) :]

"""The kinds of messages, as tables by their byte: how long, looked at or not, what they answer."""

from __future__ import annotations

from typing import Final

# MaxAllocSize and PQ_SMALL_MESSAGE_LIMIT of PostgreSQL: what it reads of one message.
LARGE_BYTES_MAX: Final = 0x3FFFFFFE
SMALL_BYTES_MAX: Final = 10_000

# The kinds of a client's messages, and how long each may be; 0 for what is none.
BIND: Final = ord("B")
CLOSE: Final = ord("C")
DESCRIBE: Final = ord("D")
EXECUTE: Final = ord("E")
FUNCTION_CALL: Final = ord("F")
PARSE: Final = ord("P")
QUERY: Final = ord("Q")
SYNC: Final = ord("S")
TERMINATE: Final = ord("X")
COPY_DONE: Final = ord("c")
COPY_FAIL: Final = ord("f")
LENGTH_MAX: Final = [0] * 256
for _kind in b"BFPQd":
    LENGTH_MAX[_kind] = LARGE_BYTES_MAX
for _kind in b"CDEHSXcf":
    LENGTH_MAX[_kind] = SMALL_BYTES_MAX
# Flush and CopyData change nothing of what is kept.
IS_LOOKED_AT: Final = [kind in b"BCDEFPQSXcf" for kind in range(256)]

READY: Final = ord("Z")
ERROR: Final = ord("E")
# What a message of the server adds to the progress of a segment: one of these ends the answer to
# each extended message (low half), some of them also end a statement (high half).
ACKNOWLEDGED: Final = 1
DONE: Final = 1 << 32 | ACKNOWLEDGED
ACKNOWLEDGED_MASK: Final = (1 << 32) - 1
WATCHED: Final = -1  # ReadyForQuery, ErrorResponse, CopyInResponse, CopyBothResponse
PROGRESS: Final = [0] * 256
for _kinds, _step in ((b"123Tn", ACKNOWLEDGED), (b"CIsV", DONE), (b"ZEGW", WATCHED)):
    for _kind in _kinds:
        PROGRESS[_kind] = _step

"""What can be said of an RDB file: by its first bytes, and by what a server wrote that refused it.

https://rdb.fnordig.de/file_format.html: nine bytes, `REDIS` and the version in four digits. Valkey
writes `VALKEY` and three digits from its version 9 on.
"""

from __future__ import annotations

import re

from dataplane.host.work import TaskError

HEADER_BYTES = 9
HEADER = re.compile(rb"REDIS([0-9]{4})|VALKEY([0-9]{3})")

# What Redis 6.2 to 7 and Valkey log when they do not load a file -> our code and sentence. The
# first that is found counts: a later line is often only the consequence of an earlier one.
REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        "Can't handle RDB format version",
        "rdb_version",
        "the file was written by a newer server: the instance's server cannot read its version",
    ),
    ("Wrong signature", "not_rdb", "the file is no RDB file"),
    ("Out Of Memory", "too_large", "the content needs more memory than the plan has"),
    (
        "module data",
        "rdb_module",
        "the file has data of a server module, and the instance's server has no modules",
    ),
    (
        "to handle more than",
        "rdb_databases",
        "the file has keys in database 16 or above; an instance has the databases 0 to 15",
    ),
    ("RDB checksum", "rdb_checksum", "the file is damaged: its checksum does not agree"),
    ("RDB CRC", "rdb_checksum", "the file is damaged: its checksum does not agree"),
)
# Redis has these words both for a file that ends and for memory that does.
SHORT = ("Unexpected EOF", "Short read or OOM")
END_BYTES = 9  # opcode EOF and the checksum, since version 5
OPCODE_EOF = 0xFF


def check_header(head: bytes) -> int:
    """Return the version in the first bytes of a file. Raises TaskError where they are others.

    A server takes a file without this header for a list of commands, and obeys them all.
    """
    found = HEADER.match(head)
    if found is None:
        raise TaskError("not_rdb", "the file is no RDB file")
    return int(found[1] or found[2])


def has_end(tail: bytes) -> bool:
    """Say whether the last `END_BYTES` of a file are an end; any bytes are, one time in 256."""
    return len(tail) == END_BYTES and tail[0] == OPCODE_EOF


def refusal(said: str, *, is_whole: bool) -> TaskError:
    """Return why a server that wrote `said` did not load a file, which may have its end."""
    for words, code, detail in REFUSALS:
        if words in said:
            return TaskError(code, detail)
    if any(words in said for words in SHORT):
        if is_whole:
            return TaskError("too_large", "the content needs more memory than the plan has")
        return TaskError("rdb_truncated", "the file ends too early")
    return TaskError("rdb_damaged", "the file is damaged: the server cannot read it")

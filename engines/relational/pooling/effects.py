"""SQL text -> what it leaves behind in the session that runs it, beyond its transaction.

Three things matter to a pool: settings that the client expects to find again (they are carried
along), state that lives in one session only (the client is pinned to it), and what reads the traces
of others. A text is judged by its words, so a function that does such things inside is not seen: it
is undone when the session goes to another client, and not kept for this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from engines.relational import parse


@dataclass(frozen=True, slots=True)
class Effect:
    """`sets`: names of settings that may change. `pins`: why the session must stay, or b"".

    `resets`: those of `sets` that go back to what they were at the start; b"all" for every one.
    `forgets`: prepared statements may go (DEALLOCATE, DISCARD). `shifts`: a text behind this one
    may mean something else, be it for this transaction only.
    """

    sets: tuple[bytes, ...] = ()
    pins: bytes = b""
    resets: tuple[bytes, ...] = ()
    forgets: bool = False
    shifts: bool = False


NONE = Effect()
ALL = b"all"

# Longer texts hold literals and seldom come twice.
_CACHED_BYTES_MAX = 1024
# Texts that begin so are looked at for these fragments only.
_PLAIN = frozenset(
    spelling
    for word in (
        b"SELECT", b"INSERT", b"UPDATE", b"DELETE", b"WITH", b"VALUES", b"TABLE", b"MERGE",
        b"BEGIN", b"COMMIT", b"END", b"ROLLBACK", b"START", b"SAVEPOINT", b"RELEASE", b"FETCH",
    )
    for spelling in (word, word.lower(), word + b";", word.lower() + b";")
)  # fmt: skip
_NAME = rb'("(?:[^"]|"")*"|[A-Za-z_\x80-\xff][A-Za-z0-9_$.\x80-\xff]*)'
_SET = re.compile(rb"\b(?:RE)?SET\s+(LOCAL\s+|SESSION\s+)?(?!LOCAL\b|SESSION\b)" + _NAME, re.I)
_SET_CONFIG = re.compile(rb"\bset_config\s*\(\s*(?:(?:E)?'([A-Za-z_][A-Za-z0-9_$.]*)')?", re.I)
_TEMPORARY = re.compile(
    rb"CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\b"
    rb"|\bINTO\s+(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\b|\bpg_temp\s*\.",
    re.I,
)
_DROPPED_AT_COMMIT = re.compile(rb"\bON\s+COMMIT\s+DROP\b", re.I)
_LOCKS = re.compile(rb"\bpg_(?:try_)?advisory_lock(?:_shared)?\s*\(", re.I)
_HOLDS = re.compile(rb"\bWITH\s+HOLD\b", re.I)
_ALL = re.compile(rb"DISCARD\s+ALL\b", re.I)
_SHIFTING = frozenset({b"SET", b"RESET", b"DISCARD", b"DO", b"CALL"})
_ROLES = (b"role", b"session_authorization", b"authorization")
# What only this transaction sees, or what is no setting.
_NO_SETTINGS = (b"transaction", b"constraints", b"characteristics")
_ALIASES = {b"time": b"timezone", b"names": b"client_encoding", b"schema": b"search_path"}
# `SET SESSION CHARACTERISTICS AS TRANSACTION ...` sets these.
_CHARACTERISTICS = (
    b"default_transaction_isolation",
    b"default_transaction_read_only",
    b"default_transaction_deferrable",
)
_ANY_SET = re.compile(rb"\bSET\s+(?:SESSION\s+)?" + _NAME + rb"\s*(?:=|\bTO\b)", re.I)


def of(text: bytes) -> Effect:
    """Return the effect of a text; only its first `parse.HEAD_BYTES` are looked at."""
    # Nearly every text begins with a word that can do no more than its functions do.
    end = text.find(b" ", 0, 12)
    if (text[:end] if end > 0 else text) in _PLAIN:
        semicolon = text.find(b";", 0, len(text) - 1)
        if semicolon < 0 or not text[semicolon:].strip(b"; \t\r\n\0"):
            lowered = text.lower()
            if b"_config" not in lowered and b"advisory" not in lowered and b"temp" not in lowered:
                return NONE
    if len(text) <= _CACHED_BYTES_MAX:
        return _cached(text)
    return _of(text)


def _of(text: bytes) -> Effect:
    sets: list[bytes] = []
    resets: list[bytes] = []
    pins = b""
    forgets = shifts = False
    for first, own in parse.pieces(text):
        names, reason = _of_statement(first, own)
        sets += names
        pins = pins or reason
        if first == b"RESET":
            resets += names or [ALL]
        elif first == b"DISCARD" and _ALL.match(own):
            resets.append(ALL)
        forgets = forgets or first in (b"DEALLOCATE", b"DISCARD")
        shifts = shifts or first in _SHIFTING or bool(names)
    if not (sets or resets or pins or forgets or shifts):
        return NONE
    return Effect(tuple(dict.fromkeys(sets)), pins, tuple(resets), forgets, shifts)


_cached = lru_cache(maxsize=4096)(_of)


def _of_statement(first: bytes, own: bytes) -> tuple[list[bytes], bytes]:
    """Return the settings that one statement may change, and why it pins, or b""."""
    if first in (b"SET", b"RESET"):
        return _of_set(own)
    sets = [match[1].lower() if match[1] else b"" for match in _SET_CONFIG.finditer(own)]
    if b"" in sets:
        return [], b"set_config() of a name that is not written out"
    pins = b""
    if first == b"PREPARE" and not re.match(rb"PREPARE\s+TRANSACTION\b", own, re.I):
        pins = b"PREPARE"
    elif first in (b"LISTEN", b"LOAD"):
        pins = first
    elif first == b"DECLARE" and _HOLDS.search(own):
        pins = b"a cursor WITH HOLD"
    elif _LOCKS.search(own):
        pins = b"an advisory lock of the session"
    elif (
        first in (b"CREATE", b"SELECT", b"WITH", b"DO")
        and _TEMPORARY.search(own)
        and not _DROPPED_AT_COMMIT.search(own)
    ):
        pins = b"a temporary table"
    elif first in (b"DO", b"CALL"):
        sets += [_folded(name) for name in _ANY_SET.findall(own)]
    return sets, pins


def _of_set(own: bytes) -> tuple[list[bytes], bytes]:
    match = _SET.match(own)
    if match is None:
        return [], b""
    if match[1] and match[1].strip().upper() == b"LOCAL":
        return [], b""
    name = _folded(match[2])
    if name in _ROLES:
        return [], b"SET " + name.upper()
    if name == b"characteristics":
        return list(_CHARACTERISTICS), b""
    if name in _NO_SETTINGS or name == b"all":
        return [], b""
    return [_ALIASES.get(name, name)], b""


def _folded(name: bytes) -> bytes:
    if name[:1] == b'"':
        return name[1:-1].replace(b'""', b'"').lower()
    return name.lower()

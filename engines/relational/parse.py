"""SQL text -> what each of its statements costs: request class, growth, effect on prepared names.

The first word of a statement decides (`STATEMENTS`); a few need a look at further words. Texts are
cut into statements as psql cuts them: quotes, dollar quotes, nested comments, parentheses and
`BEGIN ATOMIC` bodies are respected. Only the first `HEAD_BYTES` of a text are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from engines.kit.ports import RequestClass

HEAD_BYTES: Final = 16 * 1024
# Longer texts hold literals and seldom come twice.
CACHED_BYTES_MAX: Final = 1024
# PostgreSQL cuts names: NAMEDATALEN - 1.
NAME_BYTES_MAX: Final = 63

READ: Final = RequestClass.READ
WRITE: Final = RequestClass.WRITE
QUERY: Final = RequestClass.QUERY
UNLIMITED: Final = RequestClass.UNLIMITED
# One unit of each class, by the class's number: its own hash would be computed in Python.
UNITS: Final[list[tuple[RequestClass, ...]]] = [(request_class,) for request_class in RequestClass]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `grows`: it may need more storage, so a full quota refuses it.

    `prepares`, `executes` and `deallocates` name a prepared statement; `deallocates` is b"" for
    all of them and None for none. `names_one` says that one of them is there. `shows_usage` is
    SHOW weftkit.usage, which PostgreSQL does not know.
    """

    request_class: RequestClass
    grows: bool = False
    names_one: bool = False
    prepares: tuple[bytes, Statement] | None = None
    executes: bytes | None = None
    deallocates: bytes | None = None
    shows_usage: bool = False

    @property
    def units(self) -> tuple[RequestClass, ...]:
        """Return what a message with this one statement is admitted for."""
        return UNITS[int(self.request_class)]


@dataclass(slots=True)
class _Piece:
    """One statement's text, and its keywords with their depth of parentheses."""

    first: bytes
    text: bytes
    words: list[tuple[int, bytes]] = field(default_factory=list)

    def has(self, *words: bytes) -> bool:
        return any(word in words for _, word in self.words)

    def has_outside(self, word: bytes) -> bool:
        return (0, word) in self.words


_READ: Final = Statement(READ)
_WRITE: Final = Statement(WRITE)
_GROW: Final = Statement(WRITE, grows=True)
_QUERY: Final = Statement(QUERY)
_QUERY_GROW: Final = Statement(QUERY, grows=True)
_FREE: Final = Statement(UNLIMITED)

# A prepared name that we know nothing of (its text did not come through here, or was cut off).
UNKNOWN: Final = _QUERY_GROW


def _select(piece: _Piece) -> Statement:
    return _GROW if piece.has_outside(b"INTO") else _READ


def _with(piece: _Piece) -> Statement:
    if piece.has(b"INSERT", b"UPDATE", b"MERGE", b"INTO"):
        return _GROW
    return _WRITE if piece.has(b"DELETE") else _QUERY


def _copy(piece: _Piece) -> Statement:
    return _GROW if piece.has_outside(b"FROM") else _QUERY


def _explain(piece: _Piece) -> Statement:
    return _QUERY_GROW if piece.has(b"INSERT", b"UPDATE", b"MERGE", b"CREATE") else _QUERY


_NAME = rb'("(?:[^"]|"")*+"|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+)'
_GAP = rb"(?:\s|--[^\n]*+|/\*.*?\*/)"
_PREPARE = re.compile(
    rb"PREPARE" + _GAP + rb"+" + _NAME + _GAP + rb"*(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?"
    + _GAP + rb"*AS\b(.*)",
    re.I | re.S,
)  # fmt: skip
_EXECUTE = re.compile(rb"EXECUTE" + _GAP + rb"+" + _NAME, re.I | re.S)
_DEALLOCATE = re.compile(
    rb"DEALLOCATE" + _GAP + rb"+(?:PREPARE" + _GAP + rb"+)?" + _NAME, re.I | re.S
)
_SHOW_USAGE = re.compile(
    rb"SHOW" + _GAP + rb'+"?weftkit"?' + _GAP + rb"*\." + _GAP + rb'*"?usage"?(?![\w$."])',
    re.I | re.S,
)
_DISCARD_ALL = re.compile(rb"DISCARD" + _GAP + rb"+ALL\b", re.I | re.S)


def _prepare(piece: _Piece) -> Statement:
    match = _PREPARE.match(piece.text)
    if match is None:  # PREPARE TRANSACTION, or a syntax error
        return _FREE
    inner = classify(match[2])
    prepared = (_folded(match[1]), inner[0] if inner else _FREE)
    return replace(_FREE, names_one=True, prepares=prepared)


def _execute(piece: _Piece) -> Statement:
    match = _EXECUTE.match(piece.text)
    if match is None:
        return UNKNOWN
    return replace(UNKNOWN, names_one=True, executes=_folded(match[1]))


def _deallocate(piece: _Piece) -> Statement:
    match = _DEALLOCATE.match(piece.text)
    if match is None:
        return _FREE
    name = b"" if match[1].upper() == b"ALL" else _folded(match[1])
    return replace(_FREE, names_one=True, deallocates=name)


def _discard(piece: _Piece) -> Statement:
    if _DISCARD_ALL.match(piece.text) is None:
        return _FREE
    return replace(_FREE, names_one=True, deallocates=b"")


def _show(piece: _Piece) -> Statement:
    return replace(_FREE, shows_usage=_SHOW_USAGE.match(piece.text) is not None)


def _folded(name: bytes) -> bytes:
    """Return a name as PostgreSQL stores it."""
    if name[:1] == b'"':
        return cut(name[1:-1].replace(b'""', b'"'))
    return cut(name.lower())


def cut(name: bytes) -> bytes:
    """Return what PostgreSQL keeps of a name."""
    return name[:NAME_BYTES_MAX] if len(name) > NAME_BYTES_MAX else name


Rule = Statement | Callable[[_Piece], Statement]

# First words, by class. What is not here is a syntax error to PostgreSQL.
STATEMENTS: Mapping[bytes, Rule] = {
    # read
    b"FETCH": _READ,
    b"MOVE": _READ,
    b"SELECT": _select,
    b"TABLE": _READ,
    b"VALUES": _READ,
    # write; those that never need more storage go on over the quota
    b"ALTER": _GROW,
    b"COMMENT": _WRITE,
    b"COPY": _copy,
    b"CREATE": _GROW,
    b"DELETE": _WRITE,
    b"DROP": _WRITE,
    b"GRANT": _WRITE,
    b"IMPORT": _GROW,
    b"INSERT": _GROW,
    b"MERGE": _GROW,
    b"REASSIGN": _WRITE,
    b"REFRESH": _GROW,
    b"REVOKE": _WRITE,
    b"SECURITY": _WRITE,
    b"TRUNCATE": _WRITE,
    b"UPDATE": _GROW,
    # query: whole tables, or work that cannot be seen from here
    b"ANALYSE": _QUERY,
    b"ANALYZE": _QUERY,
    b"CALL": _QUERY_GROW,
    b"CHECKPOINT": _QUERY,
    b"CLUSTER": _QUERY,
    b"DECLARE": _QUERY,
    b"DO": _QUERY_GROW,
    b"EXECUTE": _execute,
    b"EXPLAIN": _explain,
    b"REINDEX": _QUERY,
    b"VACUUM": _QUERY,
    b"WITH": _with,
    # unlimited: transactions and the session itself
    b"ABORT": _FREE,
    b"BEGIN": _FREE,
    b"CLOSE": _FREE,
    b"COMMIT": _FREE,
    b"DEALLOCATE": _deallocate,
    b"DISCARD": _discard,
    b"END": _FREE,
    b"LISTEN": _FREE,
    b"LOAD": _FREE,
    b"LOCK": _FREE,
    b"NOTIFY": _FREE,
    b"PREPARE": _prepare,
    b"RELEASE": _FREE,
    b"RESET": _FREE,
    b"ROLLBACK": _FREE,
    b"SAVEPOINT": _FREE,
    b"SET": _FREE,
    b"SHOW": _show,
    b"START": _FREE,
    b"UNLISTEN": _FREE,
}
_UNKNOWN_WORD: Final = _QUERY

_FIRST: Final = re.compile(
    rb"(?:[\s(;]|--[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+([A-Za-z_]++)"
)  # nested comments go the long way
_SINGLE: Final[dict[bytes, tuple[Statement, ...]]] = {
    spelling: (rule,)
    for word, rule in STATEMENTS.items()
    if isinstance(rule, Statement)
    for spelling in (word, word.lower())
}
# A tuple of any length: compiled, one of a fixed length is made anew each time it is named.
_SELECT_ONLY: Final[tuple[Statement, ...]] = (_READ,)
_SELECT: Final = (b"SELECT", b"select")
# The longest first word, and the blank behind it.
_WORD_BYTES_MAX: Final = max(map(len, STATEMENTS)) + 1
_SEMICOLON: Final = ord(";")
# First words of six letters with their blank, which most texts begin with.
_HEAD_BYTES_SHORT: Final = 7
_HEADS: Final[dict[bytes, tuple[Statement, ...]]] = {
    word + b" ": single for word, single in _SINGLE.items() if len(word) == _HEAD_BYTES_SHORT - 1
} | {word + b" ": _SELECT_ONLY for word in _SELECT}


def classify(text: bytes) -> tuple[Statement, ...]:
    """Return the statements of a text, in order; an empty statement is none."""
    # Nearly every text is one statement that begins with its first word, in one case, and a blank.
    single = _HEADS.get(text[:_HEAD_BYTES_SHORT])
    if single is None:
        single = _single(text)
    elif single is _SELECT_ONLY and _may_select_into(text):
        single = None
    # A semicolon as a number: as bytes, CPython 3.11 raises and drops an exception on the way.
    if single is not None and _SEMICOLON not in text.rstrip(b"; \t\r\n\0"):
        return single
    if len(text) <= CACHED_BYTES_MAX:
        return _classify_cached(text)
    return _classify(text[:HEAD_BYTES])


def _single(text: bytes) -> tuple[Statement, ...] | None:
    """Return what the first word of a text says, if it alone can."""
    word = text[: text.find(b" ", 0, _WORD_BYTES_MAX)]
    single = _SINGLE.get(word)
    if single is None:
        if word not in _SELECT:
            match = _FIRST.match(text)
            word = match[1].upper() if match else b""
            single = _SINGLE.get(word)
        if word in _SELECT and not _may_select_into(text):
            single = _SELECT_ONLY
    return single


def _may_select_into(text: bytes) -> bool:
    return bool(text.lower().partition(b"into")[1])


def pieces(text: bytes) -> list[tuple[bytes, bytes]]:
    """Return first word (upper case) and own text of each statement in the head of `text`."""
    text = text[:HEAD_BYTES]
    starts = [(piece.first, len(text) - len(piece.text)) for piece in _split(text, _TOKEN)]
    ends = [start for _, start in (*starts, (b"", len(text)))][1:]
    return [(first, text[start:end]) for (first, start), end in zip(starts, ends, strict=True)]


def _classify(text: bytes) -> tuple[Statement, ...]:
    statements = tuple(map(_statement, _split(text, _TOKEN)))
    if b"\\'" in text:
        # Whether a backslash escapes depends on standard_conforming_strings, which a session may
        # change: the reading with more statements is the one that counts.
        other = tuple(map(_statement, _split(text, _TOKEN_ESCAPED)))
        return max(statements, other, key=len)
    return statements


_classify_cached = lru_cache(maxsize=4096)(_classify)


def _statement(piece: _Piece) -> Statement:
    rule = STATEMENTS.get(piece.first, _UNKNOWN_WORD)
    return rule if isinstance(rule, Statement) else rule(piece)


_ESCAPED_STRING = rb"'(?:[^'\\]|\\.|'')*+(?:'|\Z)"
_TOKENS = (
    rb"--[^\n]*+"
    rb"|(?P<comment>/\*)"
    rb"|(?<![A-Za-z0-9_$\x80-\xff])[eE]" + _ESCAPED_STRING
    + rb"|%s"
    rb'|"[^"]*+(?:"|\Z)'
    rb"|(?<![A-Za-z0-9_$\x80-\xff])(?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?\$)"
    rb"|(?P<mark>[();])"
    # A lock clause is no UPDATE.
    rb"|\bFOR\s++(?:NO\s++KEY\s++)?UPDATE\b"
    rb"|(?P<word>\b(?:BEGIN\s++ATOMIC|CASE|CREATE|DELETE|END|FROM|INSERT|INTO|MERGE|UPDATE)\b)"
)  # fmt: skip
_TOKEN = re.compile(_TOKENS.replace(b"%s", rb"'[^']*+(?:'|\Z)"), re.I | re.S)
_TOKEN_ESCAPED = re.compile(_TOKENS.replace(b"%s", _ESCAPED_STRING), re.I | re.S)
# All of a statement that holds no `;` and needs no look at its words: one step for a long INSERT.
_PLAIN = re.compile(
    rb"(?:[^;'\"$/\-eE]++|'[^']*+'|\"[^\"]*+\"|--[^\n]*+|-(?!-)|/(?!\*)|[eE](?!')"
    rb"|\$(?![A-Za-z_$\x80-\xff]))*+"
)
_COMMENT_MARK = re.compile(rb"/\*|\*/")
_FIRST_WORD = re.compile(rb"[A-Za-z_]++")
_BETWEEN = re.compile(rb"[\s(;]*+")


def _split(text: bytes, token: re.Pattern[bytes]) -> list[_Piece]:
    """Cut a text into statements, as psql's scanner does (src/fe_utils/psqlscan.l)."""
    pieces: list[_Piece] = []
    position = 0
    while position < len(text):
        position = _skip_gap(text, position)
        first = _FIRST_WORD.match(text, position)
        if first is None:
            position += 1
            continue
        piece = _Piece(first[0].upper(), text[position:])
        pieces.append(piece)
        position = _piece_end(text, first.end(), piece, token)
    return pieces


def _piece_end(text: bytes, position: int, piece: _Piece, token: re.Pattern[bytes]) -> int:
    """Collect the keywords of a statement and return where the next one may begin."""
    is_plain = piece.first in _SINGLE and piece.first != b"CREATE"
    depth = 0
    body_depth = 0  # of BEGIN ATOMIC ... CASE ... END in the body of an SQL function
    while position < len(text):
        if is_plain and token is _TOKEN:
            skipped = _PLAIN.match(text, position)
            assert skipped is not None
            position = skipped.end()
        match = token.search(text, position)
        if match is None:
            return len(text)
        position = match.end()
        mark, word = match["mark"], match["word"]
        if mark == b"(":
            depth += 1
        elif mark == b")":
            depth = max(0, depth - 1)
        elif mark and (is_plain or (depth == 0 and body_depth == 0)):
            return position
        elif word:
            piece.words.append((depth, word.upper()))
            if piece.first == b"CREATE":
                body_depth = _body_depth(body_depth, word.upper())
        elif match["comment"]:
            position = _comment_end(text, position)
        elif match["dollar"]:
            end = text.find(match["dollar"], position)
            position = len(text) if end < 0 else end + len(match["dollar"])
    return position


def _skip_gap(text: bytes, position: int) -> int:
    """Return where the next statement's first word is: behind blanks, comments and parentheses."""
    while True:
        gap = _BETWEEN.match(text, position)
        assert gap is not None
        position = gap.end()
        if text.startswith(b"--", position):
            line_end = text.find(b"\n", position)
            position = len(text) if line_end < 0 else line_end
        elif text.startswith(b"/*", position):
            position = _comment_end(text, position + 2)
        else:
            return position


def _comment_end(text: bytes, position: int) -> int:
    """Return the end of a comment that began before `position`; comments nest."""
    depth = 1
    while depth:
        mark = _COMMENT_MARK.search(text, position)
        if mark is None:
            return len(text)
        depth += 1 if mark[0] == b"/*" else -1
        position = mark.end()
    return position


def _body_depth(depth: int, word: bytes) -> int:
    if word.startswith(b"BEGIN") or (word == b"CASE" and depth):
        return depth + 1
    if word == b"END" and depth:
        return depth - 1
    return depth

"""The words of a statement.

    SELECT "a" FROM t WHERE b >= -1.5e3   ->   word, name, word, word, ..., symbol, symbol, number

A sign is a symbol of its own; keywords are words in any case; `--` begins a comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from engines.keyvalue.errors import DynamoError, validation

TEXT_LENGTH_MAX = 8192

_TOKEN = re.compile(
    r"""(?:\s|--[^\n]*+)*+
    (?:(?P<word>[A-Za-z_$][A-Za-z0-9_$]*)
    |(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_$]))
    |"(?P<name>(?:[^"]|"")*)"
    |'(?P<string>(?:[^']|'')*)'
    |(?P<symbol><<|>>|<=|>=|<>|!=|[-+=<>()\[\]{},.:?*;])
    |(?P<end>\Z))""",
    re.VERBOSE,
)
# What of a statement a message shows.
_SHOWN_LENGTH_MAX = 40


class Kind(Enum):
    """What a token is."""

    WORD = "word"
    NUMBER = "number"
    NAME = "name"
    STRING = "string"
    SYMBOL = "symbol"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """`text` is without quotes; `keyword` is a word in capitals, "" for everything else."""

    kind: Kind
    text: str
    keyword: str
    place: int


def malformed(detail: str) -> DynamoError:
    """The statement is no PartiQL, or none that DynamoDB documents."""
    return validation(f"Statement wasn't well formed, can't be processed: {detail}")


def unexpected(token: Token) -> DynamoError:
    """No statement can go on with this token."""
    if token.kind is Kind.END:
        return malformed("Unexpected end of statement")
    return malformed(f"Unexpected term: {token.text[:_SHOWN_LENGTH_MAX]} at {token.place + 1}")


def tokenize(text: str) -> list[Token]:
    """Return the tokens of a statement, the last of which is its end. Raises DynamoError."""
    if len(text) > TEXT_LENGTH_MAX:
        raise malformed(f"Statement is longer than {TEXT_LENGTH_MAX} characters")
    tokens = []
    place = 0
    while True:
        match = _TOKEN.match(text, place)
        if match is None:
            rest = text[place:].lstrip()
            raise malformed(f"Unexpected term: {rest[:_SHOWN_LENGTH_MAX]}")
        kind = Kind(match.lastgroup)
        token = match[kind.value]
        if kind is Kind.NAME:
            token = token.replace('""', '"')
        elif kind is Kind.STRING:
            token = token.replace("''", "'")
        keyword = token.upper() if kind is Kind.WORD else ""
        tokens.append(Token(kind, token, keyword, match.start(kind.value)))
        if kind is Kind.END:
            return tokens
        place = match.end()

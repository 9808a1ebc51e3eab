"""The words of an expression, and what DynamoDB says of one in the wrong place.

    b.c >= :x   ->   name "b", "." , name "c", ">=", value ":x", end

All expressions share their words: keywords of one are no names in another either. A character that
begins no word is a token of its own, which no grammar takes; so whatever stands wrongly before it
is told of first.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.keyvalue.errors import DynamoError, validation

# Kinds of tokens; keywords and punctuation are of the kind of their own (upper-case) text.
NAME = "name"  # an attribute's or function's name
ALIAS = "alias"  # #name, a placeholder of ExpressionAttributeNames
VALUE = "value"  # :name, a placeholder of ExpressionAttributeValues
INDEX = "index"  # digits
END = "end"
UNKNOWN = "unknown"

KEYWORDS = frozenset(
    ("ADD", "AND", "BETWEEN", "DELETE", "IN", "NOT", "OR", "REMOVE", "SET")
)  # in any case

_SPACE = frozenset(" \t\r\n")
_DIGITS = frozenset("0123456789")
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NAME_PART = _NAME_START | _DIGITS
_PAIRS = frozenset(("<=", ">=", "<>"))
_SINGLES = frozenset("()[],.+-=<>")
_PLACEHOLDERS = {"#": ALIAS, ":": VALUE}
# Repeated in messages at most; DynamoDB does not cut, but an expression is not that long.
EOF_TEXT = "<EOF>"


@dataclass(slots=True)
class Token:
    """A word and where it stands in the text."""

    kind: str
    text: str
    start: int
    end: int


def tokenize(text: str) -> list[Token]:
    """Return the words of a text and an END behind them. Never fails."""
    tokens: list[Token] = []
    length = len(text)
    position = 0
    while position < length:
        start = position
        char = text[start]
        position += 1
        if char in _SPACE:
            continue
        if char in _NAME_START:
            position = _run(text, position, _NAME_PART)
            word = text[start:position]
            upper = word.upper()
            kind = upper if upper in KEYWORDS else NAME
        elif char in _DIGITS:
            position = _run(text, position, _DIGITS)
            kind = INDEX
        elif char in _PLACEHOLDERS:
            position = _run(text, position, _NAME_PART)
            kind = _PLACEHOLDERS[char] if position > start + 1 else UNKNOWN
        elif text[start : start + 2] in _PAIRS:
            position += 1
            kind = text[start:position]
        else:
            kind = char if char in _SINGLES else UNKNOWN
        tokens.append(Token(kind, text[start:position], start, position))
    tokens.append(Token(END, EOF_TEXT, length, length))
    return tokens


def _run(text: str, position: int, chars: frozenset[str]) -> int:
    """Return where a run of such characters ends."""
    length = len(text)
    while position < length and text[position] in chars:
        position += 1
    return position


class Reader:
    """The tokens of one expression, taken from left to right.

    `label` is the parameter's name, as messages begin with it.
    """

    def __init__(self, label: str, text: str) -> None:
        self.label = label
        self.text = text
        self.tokens = tokenize(text)
        self.position = 0

    @property
    def kind(self) -> str:
        """Return the kind of the token that comes next."""
        return self.tokens[self.position].kind

    def take(self) -> Token:
        """Return the next token and go behind it."""
        token = self.tokens[self.position]
        self.position += 1
        return token

    def expect(self, kind: str) -> Token:
        """Return the next token, which must be of this kind."""
        if self.tokens[self.position].kind != kind:
            raise self.syntax_error()
        return self.take()

    def accept(self, kind: str) -> bool:
        """Go behind the next token if it is of this kind."""
        if self.tokens[self.position].kind != kind:
            return False
        self.position += 1
        return True

    def syntax_error(self) -> DynamoError:
        """The next token stands wrongly; it is shown with its neighbours."""
        token = self.tokens[self.position]
        first = self.tokens[max(0, self.position - 1)]
        last = self.tokens[min(len(self.tokens) - 1, self.position + 1)]
        near = self.text[first.start : last.end]
        return invalid(self.label, f'Syntax error; token: "{token.text}", near: "{near}"')

    def path(self) -> list[str | int]:
        """Take a document path; placeholders in it keep their #, which no name begins with."""
        if self.kind not in (NAME, ALIAS):
            raise self.syntax_error()
        parts: list[str | int] = [self.take().text]
        self.path_rest(parts)
        return parts

    def path_rest(self, parts: list[str | int]) -> None:
        """Take the members and indexes that follow, onto `parts`."""
        while True:
            if self.accept("."):
                if self.kind not in (NAME, ALIAS):
                    raise self.syntax_error()
                parts.append(self.take().text)
            elif self.accept("["):
                # Its range is looked at later; 4096 digits are no work.
                parts.append(int(self.expect(INDEX).text))
                self.expect("]")
            else:
                return


def invalid(label: str, message: str) -> DynamoError:
    """An expression that is wrong."""
    return validation(f"Invalid {label}: {message}")

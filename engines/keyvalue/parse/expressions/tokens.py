"""The words of an expression, and what DynamoDB says of one in the wrong place.

    b.c >= :x   ->   name "b", "." , name "c", ">=", value ":x", end

All expressions share their words: keywords of one are no names in another either. A character that
begins no word is a token of its own, which no grammar takes; so whatever stands wrongly before it
is told of first.
"""

from __future__ import annotations

from engines.keyvalue.errors import DynamoError, validation

# Kinds of tokens; keywords and punctuation are of the kind of their own (upper-case) text.
NAME = "name"  # an attribute's or function's name
ALIAS = "alias"  # #name, a placeholder of ExpressionAttributeNames
VALUE = "value"  # :name, a placeholder of ExpressionAttributeValues
INDEX = "index"  # digits
END = "end"
UNKNOWN = "unknown"

# In any case.
KEYWORDS = frozenset(("ADD", "AND", "BETWEEN", "DELETE", "IN", "NOT", "OR", "REMOVE", "SET"))
_KEYWORD_LENGTH_MAX = 7

_SPACE = frozenset(" \t\r\n")
_DIGITS = frozenset("0123456789")
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NAME_PART = _NAME_START | _DIGITS | {"_"}
_PAIRS = frozenset(("<=", ">=", "<>"))
_SINGLES = frozenset("()[],.+-=<>")
_PLACEHOLDERS = {"#": ALIAS, ":": VALUE}


class Tokens:
    """The words of a text and an END behind them: each one's kind, and where it starts and ends."""

    __slots__ = ("ends", "kinds", "starts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.kinds = kinds = list[str]()
        self.starts = starts = list[int]()
        self.ends = ends = list[int]()
        length = len(text)
        position = 0
        while position < length:
            start = position
            char = text[start]
            position += 1
            if char in _SPACE:
                continue
            if char in _NAME_START:
                position = _run_end(text, position, _NAME_PART)
                kind = NAME
                if position - start <= _KEYWORD_LENGTH_MAX:
                    word = text[start:position].upper()
                    if word in KEYWORDS:
                        kind = word
            elif char in _PLACEHOLDERS:
                position = _run_end(text, position, _NAME_PART)
                kind = _PLACEHOLDERS[char] if position > start + 1 else UNKNOWN
            elif char in _SINGLES:
                kind = char
                if text[start : start + 2] in _PAIRS:
                    position += 1
                    kind = text[start:position]
            elif char in _DIGITS:
                position = _run_end(text, position, _DIGITS)
                kind = INDEX
            else:
                kind = UNKNOWN
            kinds.append(kind)
            starts.append(start)
            ends.append(position)
        kinds.append(END)
        starts.append(length)
        ends.append(length)

    def texts(self, kind: str) -> list[str]:
        """Return the texts of the tokens of one kind."""
        return [
            self.text[self.starts[place] : self.ends[place]]
            for place, found in enumerate(self.kinds)
            if found == kind
        ]


def _run_end(text: str, position: int, chars: frozenset[str]) -> int:
    """Return where a run of such characters ends."""
    length = len(text)
    while position < length and text[position] in chars:
        position += 1
    return position


class Reader:
    """The tokens of one expression, taken from left to right.

    `label` is the parameter's name, as messages begin with it; `kind` is that of the next token.
    """

    __slots__ = ("kind", "label", "position", "tokens")

    def __init__(self, label: str, text: str) -> None:
        self.label = label
        self.tokens = Tokens(text)
        self.position = 0
        self.kind = self.tokens.kinds[0]

    @property
    def is_call(self) -> bool:
        """Tell whether a function begins here: a name, and a parenthesis behind it."""
        return self.kind == NAME and self.tokens.kinds[self.position + 1] == "("

    def skip(self) -> None:
        """Go behind the next token, which is not the last."""
        self.position += 1
        self.kind = self.tokens.kinds[self.position]

    def take(self) -> str:
        """Return the text of the next token and go behind it."""
        tokens, position = self.tokens, self.position
        self.position = position + 1
        self.kind = tokens.kinds[position + 1]
        return tokens.text[tokens.starts[position] : tokens.ends[position]]

    def expect(self, kind: str) -> None:
        """Go behind the next token, which must be of this kind."""
        if self.kind != kind:
            raise self.syntax_error()
        self.skip()

    def accept(self, kind: str) -> bool:
        """Go behind the next token if it is of this kind."""
        if self.kind != kind:
            return False
        self.skip()
        return True

    def syntax_error(self) -> DynamoError:
        """The next token stands wrongly; it is shown with its neighbours."""
        tokens, place = self.tokens, self.position
        last = min(len(tokens.kinds) - 1, place + 1)
        near = tokens.text[tokens.starts[max(0, place - 1)] : tokens.ends[last]]
        shown = tokens.text[tokens.starts[place] : tokens.ends[place]] or "<EOF>"
        return invalid(self.label, f'Syntax error; token: "{shown}", near: "{near}"')

    def path(self) -> list[str | int]:
        """Take a document path; placeholders in it keep their #, which no name begins with."""
        if self.kind not in (NAME, ALIAS):
            raise self.syntax_error()
        parts: list[str | int] = [self.take()]
        if self.kind in (".", "["):
            self.path_rest(parts)
        return parts

    def path_rest(self, parts: list[str | int]) -> None:
        """Take the members and indexes that follow, onto `parts`."""
        while True:
            if self.accept("."):
                if self.kind not in (NAME, ALIAS):
                    raise self.syntax_error()
                parts.append(self.take())
            elif self.accept("["):
                if self.kind != INDEX:
                    raise self.syntax_error()
                # Its range is looked at later; the digits that fit into an expression are no work.
                parts.append(int(self.take()))
                self.expect("]")
            else:
                return


def invalid(label: str, message: str) -> DynamoError:
    """An expression that is wrong."""
    return validation(f"Invalid {label}: {message}")

"""What statements are made of: paths, literals, parameters; and the reader that takes them.

    Address.Cities[0]      {'a': [1, TRUE, NULL], 'b': <<'x', 'y'>>}      ?

Each constant gets a name of its own (":0", ":1" ...), as in the expressions of other operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engines.keyvalue.errors import validation
from engines.keyvalue.parse.attribute_values import LEVELS_MAX, canonical
from engines.keyvalue.parse.expressions.checks import INDEX_MAX, PATH_PARTS_MAX
from engines.keyvalue.parse.expressions.trees import Path, Value
from engines.keyvalue.parse.partiql.tokens import Kind, Token, malformed, tokenize, unexpected
from engines.keyvalue.values import AttributeValue, type_of

# Names that stand for something else unless they are quoted.
KEYWORDS = frozenset((
    "ALL", "AND", "AS", "ASC", "BETWEEN", "BY", "DELETE", "DESC", "EXISTS", "FALSE", "FROM",
    "GROUP", "HAVING", "IN", "INSERT", "INTO", "IS", "JOIN", "LIKE", "LIMIT", "MISSING", "NOT",
    "NULL", "ON", "OR", "ORDER", "REMOVE", "RETURNING", "SELECT", "SET", "TRUE", "UPDATE",
    "VALUE", "VALUES", "WHERE",
))  # fmt: skip
DEPTH_MAX = 64
_SETS = {"S": "SS", "N": "NS", "B": "BS"}


class Reader:
    """A statement's tokens and parameters, read from the left."""

    def __init__(self, text: str, parameters: Sequence[AttributeValue]) -> None:
        self._tokens = tokenize(text)
        self._at = 0
        self._parameters = parameters
        self._parameter_count = 0
        self._depth = 0
        self.values: dict[str, AttributeValue] = {}
        self.heads: set[str] = set()
        self.nested: set[str] = set()

    @property
    def token(self) -> Token:
        """The token that is next."""
        return self._tokens[self._at]

    def next(self) -> Token:
        """Take the next token."""
        token = self._tokens[self._at]
        if token.kind is not Kind.END:
            self._at += 1
        return token

    def is_symbol(self, *symbols: str) -> bool:
        """Say whether one of the symbols is next."""
        token = self.token
        return token.kind is Kind.SYMBOL and token.text in symbols

    def is_call(self) -> bool:
        """Say whether a function's name and its parenthesis are next."""
        if self.token.kind is not Kind.WORD or self.token.keyword in KEYWORDS:
            return False
        behind = self._tokens[self._at + 1]
        return behind.kind is Kind.SYMBOL and behind.text == "("

    def took(self, *keywords: str) -> bool:
        """Take these keywords if they are next, all of them."""
        tokens = self._tokens[self._at : self._at + len(keywords)]
        if [token.keyword for token in tokens] != [*keywords]:
            return False
        self._at += len(keywords)
        return True

    def took_symbol(self, symbol: str) -> bool:
        """Take this symbol if it is next."""
        if not self.is_symbol(symbol):
            return False
        self._at += 1
        return True

    def expect(self, *keywords: str) -> None:
        """Take these keywords. Raises DynamoError."""
        for keyword in keywords:
            if not self.took(keyword):
                raise unexpected(self.token)

    def expect_symbol(self, symbol: str) -> None:
        """Take this symbol. Raises DynamoError."""
        if not self.took_symbol(symbol):
            raise unexpected(self.token)

    def deeper(self) -> None:
        """Count a level of nesting. Raises DynamoError: there are too many."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise malformed(f"Nesting is deeper than {DEPTH_MAX} levels")

    def back(self) -> None:
        """Leave a level of nesting."""
        self._depth -= 1

    def end(self) -> None:
        """Expect the end of the statement, and that each parameter had its place."""
        self.took_symbol(";")
        if self.token.kind is not Kind.END:
            raise unexpected(self.token)
        if self._parameter_count != len(self._parameters):
            raise _wrong_parameter_count()

    def name(self) -> str:
        """Take the name of an attribute, a table or an index."""
        token = self.next()
        if token.kind is Kind.NAME and token.text:
            return token.text
        if token.kind is Kind.WORD and token.keyword not in KEYWORDS:
            return token.text
        raise unexpected(token)

    def path(self) -> Path:
        """Take a document path."""
        parts: list[str | int] = [self.name()]
        while True:
            if self.took_symbol("."):
                parts.append(self.name())
            elif self.took_symbol("["):
                token = self.next()
                if token.kind is not Kind.NUMBER or not token.text.isdigit():
                    raise malformed(f"Unexpected path component at {token.place + 1}")
                # An index of more digits is too large whatever they are.
                if len(token.text) > 10 or int(token.text) > INDEX_MAX:
                    raise malformed("List index is not within the allowable range")
                parts.append(int(token.text))
                self.expect_symbol("]")
            else:
                break
        if len(parts) > PATH_PARTS_MAX:
            raise malformed(
                f"The document path has too many nesting levels; nesting levels: {len(parts)}"
            )
        head = str(parts[0])
        self.heads.add(head)
        if len(parts) > 1:
            self.nested.add(head)
        return Path(tuple(parts))

    def is_constant(self) -> bool:
        """Say whether a literal or a parameter is next."""
        token = self.token
        return (
            token.kind in (Kind.NUMBER, Kind.STRING)
            or token.keyword in ("TRUE", "FALSE", "NULL")
            or self.is_symbol("?", "[", "{", "<<", "-", "+")
        )

    def constant(self) -> Value:
        """Take a literal or a parameter, and keep it under a name."""
        return self.keep(canonical(self.literal()))

    def keep(self, value: AttributeValue) -> Value:
        """Give a value a name."""
        name = f":{len(self.values)}"
        self.values[name] = value
        return Value(name)

    def literal(self, level: int = 1) -> AttributeValue:
        """Take a literal or a parameter; it is canonical after `canonical`."""
        token = self.next()
        if token.kind is Kind.STRING:
            return {"S": token.text}
        if token.kind is Kind.NUMBER:
            return {"N": token.text}
        if token.kind is Kind.WORD and token.keyword in _WORDS:
            return dict(_WORDS[token.keyword])
        read = _LITERALS.get(token.text) if token.kind is Kind.SYMBOL else None
        if read is None:
            raise unexpected(token)
        if level > LEVELS_MAX:
            raise validation("Nesting Levels have exceeded supported limits")
        return read(self, level)

    def parameter(self, level: int) -> AttributeValue:
        """Return the next parameter; its `?` has been taken."""
        if self._parameter_count >= len(self._parameters):
            raise _wrong_parameter_count()
        self._parameter_count += 1
        return self._parameters[self._parameter_count - 1]

    def elements(self, end: str, level: int) -> list[AttributeValue]:
        """Take literals up to a symbol, separated by commas."""
        found: list[AttributeValue] = []
        if self.took_symbol(end):
            return found
        while True:
            found.append(self.literal(level + 1))
            if self.took_symbol(end):
                return found
            self.expect_symbol(",")


def _wrong_parameter_count() -> Exception:
    return validation("Number of parameters in request and statement don't match.")


def _list(reader: Reader, level: int) -> AttributeValue:
    return {"L": reader.elements("]", level)}


def _map(reader: Reader, level: int) -> AttributeValue:
    members: dict[str, AttributeValue] = {}
    while not reader.took_symbol("}"):
        if members:
            reader.expect_symbol(",")
        token = reader.next()
        if token.kind not in (Kind.STRING, Kind.NAME):
            raise unexpected(token)
        if token.text in members:
            raise malformed(f"Duplicate attribute name: {token.text}")
        reader.expect_symbol(":")
        members[token.text] = reader.literal(level + 1)
    return {"M": members}


def _set(reader: Reader, level: int) -> AttributeValue:
    elements = reader.elements(">>", level)
    if not elements:
        raise malformed("An empty set has no type")
    kinds = {type_of(element) for element in elements}
    kind = kinds.pop()
    if kinds or kind not in _SETS:
        raise malformed("The elements of a set must be all strings, all numbers or all binary")
    return {_SETS[kind]: [element[kind] for element in elements]}


def _negative(reader: Reader, level: int) -> AttributeValue:
    token = reader.next()
    if token.kind is not Kind.NUMBER:
        raise unexpected(token)
    return {"N": f"-{token.text}"}


def _positive(reader: Reader, level: int) -> AttributeValue:
    token = reader.next()
    if token.kind is not Kind.NUMBER:
        raise unexpected(token)
    return {"N": token.text}


_WORDS: Mapping[str, AttributeValue] = {
    "FALSE": {"BOOL": False},
    "NULL": {"NULL": True},
    "TRUE": {"BOOL": True},
}
_LITERALS: Mapping[str, Callable[[Reader, int], AttributeValue]] = {
    "+": _positive,
    "-": _negative,
    "<<": _set,
    "?": Reader.parameter,
    "[": _list,
    "{": _map,
}

"""WHERE: a condition -> the tree that conditions of other operations have too.

a = 'x' AND (b BETWEEN 1 AND 5 OR NOT contains(c.d, ?)) AND e IS NOT MISSING
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engines.keyvalue.parse.expressions.bounds import BoundsInOrder
from engines.keyvalue.parse.expressions.checks import IN_OPTIONS_MAX, Check, OfType, TypeName
from engines.keyvalue.parse.expressions.condition_syntax import OPERATORS_MAX
from engines.keyvalue.parse.expressions.trees import (
    And,
    Between,
    Compare,
    Condition,
    Function,
    In,
    Not,
    Operand,
    Or,
    Path,
    Size,
    Test,
    Value,
)
from engines.keyvalue.parse.partiql.terms import Reader
from engines.keyvalue.parse.partiql.tokens import malformed, unexpected

_COMPARATORS: Mapping[str, str] = {
    "=": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip
_ORDERED = frozenset("SNB")
_TEXTS = frozenset("SB")
_FUNCTIONS: Mapping[str, Callable[[Value], Check] | None] = {
    "attribute_type": lambda value: TypeName(value.name),
    "begins_with": lambda value: OfType(value.name, _TEXTS, "begins_with"),
    "contains": None,
}


def condition(reader: Reader) -> Condition:
    """Take a condition. Raises DynamoError."""
    reader.heads, reader.nested = set(), set()
    terms = _Terms(reader)
    test = terms.either()
    return Condition(test, reader.values, frozenset(reader.heads), frozenset(reader.nested))


class _Terms:
    """Reads one condition; counts its operators, and looks at the types of its constants."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._operator_count = 0

    def either(self) -> Test:
        """Take terms between OR."""
        terms = [self._all()]
        while self._reader.took("OR"):
            self._count()
            terms.append(self._all())
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _all(self) -> Test:
        terms = [self._not()]
        while self._reader.took("AND"):
            self._count()
            terms.append(self._not())
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _not(self) -> Test:
        reader = self._reader
        if reader.took("NOT"):
            self._count()
            reader.deeper()
            term: Test = Not(self._not())
            reader.back()
            return term
        if reader.took_symbol("("):
            reader.deeper()
            term = self.either()
            reader.back()
            reader.expect_symbol(")")
            return term
        return self._single()

    def _single(self) -> Test:
        reader = self._reader
        self._count()
        if reader.is_call() and reader.token.text.lower() in _FUNCTIONS:
            return self._function()
        operand = self._operand()
        symbol = reader.token.text
        if reader.is_symbol(*_COMPARATORS):
            reader.next()
            other = self._operand()
            op = _COMPARATORS[symbol]
            if op not in ("=", "<>"):
                self._ordered(op, operand, other)
            return Compare(op, operand, other)
        if reader.took("IS"):
            return self._is(operand)
        is_negated = reader.took("NOT")
        test = self._range(operand)
        return Not(test) if is_negated else test

    def _range(self, operand: Operand) -> Test:
        reader = self._reader
        if reader.took("BETWEEN"):
            low = self._operand()
            reader.expect("AND")
            high = self._operand()
            self._ordered("BETWEEN", operand, low, high)
            if isinstance(low, Value) and isinstance(high, Value):
                self._check(BoundsInOrder(low.name, high.name))
            return Between(operand, low, high)
        if reader.took("IN"):
            return In(operand, tuple(self._options()))
        raise unexpected(reader.token)

    def _options(self) -> list[Operand]:
        """Take what stands behind IN: a list, a tuple, or a parameter that is a list."""
        reader = self._reader
        if reader.is_symbol("?"):
            listed = reader.literal()
            if "L" not in listed:
                raise malformed("The operand of IN must be a list")
            options: list[Operand] = [reader.keep(value) for value in listed["L"]]
        else:
            if not reader.is_symbol("[", "("):
                raise unexpected(reader.token)
            end = "]" if reader.next().text == "[" else ")"
            options = [self._operand()]
            while not reader.took_symbol(end):
                reader.expect_symbol(",")
                options.append(self._operand())
        if not 1 <= len(options) <= IN_OPTIONS_MAX:
            raise malformed(
                "The IN operator is provided with too many operands; "
                f"number of operands: {len(options)}"
            )
        return options

    def _is(self, operand: Operand) -> Test:
        reader = self._reader
        is_negated = reader.took("NOT")
        if not isinstance(operand, Path):
            raise malformed("IS requires a document path")
        if reader.took("MISSING"):
            name = "attribute_exists" if is_negated else "attribute_not_exists"
            return Function(name, (operand,))
        reader.expect("NULL")
        test = Function("attribute_type", (operand, reader.keep({"S": "NULL"})))
        return Not(test) if is_negated else test

    def _function(self) -> Test:
        reader = self._reader
        name = reader.next().text.lower()
        reader.expect_symbol("(")
        first = self._operand()
        reader.expect_symbol(",")
        second = self._operand()
        reader.expect_symbol(")")
        check = _FUNCTIONS[name]
        if check is not None and isinstance(second, Value):
            self._check(check(second))
        elif name == "attribute_type":
            raise malformed("The second operand of attribute_type must be a constant")
        return Function(name, (first, second))

    def _operand(self) -> Operand:
        reader = self._reader
        if reader.is_constant():
            return reader.constant()
        if not reader.is_call():
            return reader.path()
        name = reader.next().text
        if name.lower() != "size":
            raise malformed(f"Unsupported function: {name}")
        reader.expect_symbol("(")
        sized = Size(reader.path())
        reader.expect_symbol(")")
        return sized

    def _ordered(self, operator: str, *operands: Operand) -> None:
        for operand in operands:
            if isinstance(operand, Value):
                self._check(OfType(operand.name, _ORDERED, operator))

    def _check(self, check: Check) -> None:
        problem = check.problem(self._reader.values)
        if problem is not None:
            raise malformed(problem)

    def _count(self) -> None:
        self._operator_count += 1
        if self._operator_count > OPERATORS_MAX:
            raise malformed(
                f"The WHERE clause contains too many operators; maximum: {OPERATORS_MAX}"
            )

"""The bounds of BETWEEN: of one type, and in order."""

from __future__ import annotations

from dataclasses import dataclass

from engines.keyvalue.parse.expressions.checks import SHOWN_LENGTH_MAX
from engines.keyvalue.parse.expressions.trees import Values
from engines.keyvalue.parse.ordering import is_greater
from engines.keyvalue.values import AttributeValue, type_of


@dataclass(slots=True)
class BoundsInOrder:
    """Two values must be fit to be bounds."""

    low: str
    high: str

    def problem(self, values: Values) -> str | None:
        """Return the message if they are not."""
        low, high = values[self.low], values[self.high]
        if type_of(low) != type_of(high):
            rule = "same data type for lower and upper bounds"
        elif is_greater(low, high):
            rule = "upper bound to be greater than or equal to lower bound"
        else:
            return None
        return (
            f"The BETWEEN operator requires {rule}; "
            f"lower bound operand: {_shown(low)}, upper bound operand: {_shown(high)}"
        )


def _shown(value: AttributeValue) -> str:
    kind = type_of(value)
    content = value[kind]
    if kind == "B":
        size = len(content) // 4 * 3 - content.count("=", -2)
        content = f"java.nio.HeapByteBuffer[pos=0 lim={size} cap={size}]"
    return f"AttributeValue: {{{kind}:{content[:SHOWN_LENGTH_MAX]}}}"

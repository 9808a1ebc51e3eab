"""`*` (any text, also none) and `?` (one character): does a pattern match, does it include another.

There is no escape: a name that holds one of the two is asked for by `stringEquals`. Both functions
take time in proportion to the product of the two lengths at most, whatever the pattern.
"""

from __future__ import annotations

import re
from functools import lru_cache

PATTERNS_KEPT = 4096


def matches(pattern: str, text: str) -> bool:
    """Say whether the whole of `text` is what `pattern` describes."""
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=PATTERNS_KEPT)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern.

    What lies between two stars is looked for once, from the left, and never again: whatever place
    a later part finds, no other place of an earlier one would have helped it.
    """
    first, *rest = (
        "".join("." if sign == "?" else re.escape(sign) for sign in part)
        for part in pattern.split("*")
    )
    *middle, last = rest or [""]
    between = "".join(f"(?>.*?{part})" for part in middle if part)
    return re.compile(first + between + (f".*{last}" if rest else ""), re.DOTALL)


def includes(pattern: str, other: str) -> bool:
    """Say whether every text that `other` describes is one that `pattern` describes.

    Never wrongly true. Where two patterns say the same in different words it may be false.
    """
    # reached[i] says whether the pattern so far covers the first i characters of `other`, in which
    # a star is one that only a star covers.
    reached = [True] + [False] * len(other)
    for sign in pattern:
        if sign == "*":
            for i in range(len(other)):
                reached[i + 1] = reached[i + 1] or reached[i]
            continue
        steps = [
            reached[i] and (character != "*" if sign == "?" else character == sign)
            for i, character in enumerate(other)
        ]
        reached = [False, *steps]
    return reached[-1]

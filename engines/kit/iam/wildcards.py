"""`*` (any text, also none) and `?` (one character): does a pattern match, does it include another.

There is no escape: a name that holds one of the two is asked for by `stringEquals`. Both functions
take time in proportion to the product of the two lengths, whatever the pattern.
"""

from __future__ import annotations


def matches(pattern: str, text: str) -> bool:
    """Say whether the whole of `text` is what `pattern` describes."""
    return _covers(pattern, text, unless="")


def includes(pattern: str, other: str) -> bool:
    """Say whether every text that `other` describes is one that `pattern` describes.

    Never wrongly true. Where two patterns say the same in different words it may be false.
    """
    return _covers(pattern, other, unless="*")


def _covers(pattern: str, text: str, unless: str) -> bool:
    """Match sign by sign; `unless` is the character that only a star covers.

    `reached[i]` says whether the pattern so far covers the first i characters of `text`.
    """
    reached = [True] + [False] * len(text)
    for sign in pattern:
        if sign == "*":
            for i in range(len(text)):
                reached[i + 1] = reached[i + 1] or reached[i]
            continue
        steps = [
            reached[i] and (character != unless if sign == "?" else character == sign)
            for i, character in enumerate(text)
        ]
        reached = [False, *steps]
    return reached[-1]

"""The expressions of one request: read, checked, and kept for requests that are like it.

Text and names of an expression give its pattern (tree and checks), which is kept; the values of a
request are then checked against it and go along with it. What is kept is bounded by count and size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from engines.keyvalue.errors import DynamoError, validation
from engines.keyvalue.parse.expressions.condition_syntax import ConditionReader
from engines.keyvalue.parse.expressions.conditions import ConditionPattern, condition_pattern
from engines.keyvalue.parse.expressions.key_conditions import key_condition
from engines.keyvalue.parse.expressions.tokens import ALIAS, Tokens, invalid
from engines.keyvalue.parse.expressions.trees import (
    NO_VALUES,
    Condition,
    Expressions,
    Update,
    Values,
)
from engines.keyvalue.parse.expressions.update_syntax import UpdateReader, read_projection
from engines.keyvalue.parse.expressions.updates import (
    ProjectionPattern,
    UpdatePattern,
    projection_pattern,
    update_pattern,
)

EXPRESSION_BYTES_MAX = 4096
# A kept pattern takes about 50 bytes for each character, so this is 25 MB at most in a worker.
KEPT_COUNT = 512
KEPT_LENGTH_MAX = 1024

_NO_ALIASES: Mapping[str, str] = {}

Pattern: TypeAlias = ConditionPattern | UpdatePattern | ProjectionPattern


def read(fields: Mapping[str, Any], names: Sequence[str]) -> Expressions:
    """Return the expressions of a request, of which it may have those in `names`.

    The order of `names` is that in which DynamoDB reads them: UpdateExpression,
    ConditionExpression, KeyConditionExpression, FilterExpression, ProjectionExpression. `fields`
    has their texts, and ExpressionAttributeNames and ExpressionAttributeValues, the keys of which
    are well formed and the values canonical.

    Raises DynamoError for what is wrong with the expressions or with placeholders.
    """
    aliases: Mapping[str, str] = fields.get("ExpressionAttributeNames") or _NO_ALIASES
    values: Values = fields.get("ExpressionAttributeValues") or NO_VALUES
    used_aliases: set[str] = set()
    used_values: set[str] = set()
    update = projection = condition = filters = key = None
    for label in names:
        text = fields.get(label)
        if text is None:
            continue
        pattern = _pattern(label, text, aliases, used_aliases)
        if isinstance(pattern, ProjectionPattern):
            if pattern.problem is not None:
                raise invalid(label, pattern.problem)
            projection = pattern.projection
            continue
        _check(label, pattern, values)
        used_values |= pattern.values
        if isinstance(pattern, UpdatePattern):
            update = Update(pattern.actions, values, pattern.branch, pattern.nested)
        elif label == "KeyConditionExpression":
            key = pattern
        else:
            found = Condition(pattern.test, values, pattern.heads, pattern.nested)
            if label == "FilterExpression":
                filters = found
            else:
                condition = found
    if len(used_aliases) != len(aliases):
        raise _unused("ExpressionAttributeNames", aliases, used_aliases)
    if len(used_values) != len(values):
        raise _unused("ExpressionAttributeValues", values, used_values)
    tests = None if key is None else key_condition(key.test, values)
    return Expressions(condition, filters, tests, projection, update)


def _check(label: str, pattern: ConditionPattern | UpdatePattern, values: Values) -> None:
    """Raise what is wrong with a request's values for an expression."""
    is_complete = pattern.values <= values.keys()
    for check in pattern.late if is_complete else pattern.checks:
        problem = check.problem(values)
        if problem is not None:
            raise invalid(label, problem)


def _unused(member: str, given: Mapping[str, Any], used: set[str]) -> DynamoError:
    """Placeholders stand in no expression. All that do are given."""
    unused = ", ".join(name for name in given if name not in used)
    return validation(f"Value provided in {member} unused in expressions: keys: {{{unused}}}")


def _pattern(label: str, text: str, aliases: Mapping[str, str], used_aliases: set[str]) -> Pattern:
    """Return the pattern of a text with a request's names, kept or new."""
    names: tuple[str | None, ...] = ()
    if aliases and "#" in text and len(text) <= EXPRESSION_BYTES_MAX:
        used = _aliases(text)
        used_aliases.update(used)
        names = tuple([aliases.get(alias) for alias in used])
    if len(text) > KEPT_LENGTH_MAX or sum([len(name or "") for name in names]) > KEPT_LENGTH_MAX:
        return _new_pattern(label, text, names)
    return kept_pattern(label, text, names)


def _aliases(text: str) -> tuple[str, ...]:
    """Return the #names of a text, each once."""
    return kept_aliases(text) if len(text) <= KEPT_LENGTH_MAX else _new_aliases(text)


def _new_aliases(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(Tokens(text).texts(ALIAS)))


def _new_pattern(label: str, text: str, names: tuple[str | None, ...]) -> Pattern:
    """Return the pattern of a text; `names` are what its #names stand for, None: undefined.

    Raises DynamoError for a text that is none.
    """
    if not text:
        raise invalid(label, "The expression can not be empty;")
    size_bytes = len(text.encode())
    if size_bytes > EXPRESSION_BYTES_MAX:
        raise invalid(
            label,
            f"Expression size has exceeded the maximum allowed size; expression size: {size_bytes}",
        )
    resolved = dict(zip(_aliases(text), names, strict=True)) if names else {}
    if label == "UpdateExpression":
        return update_pattern(UpdateReader(label, text).read(), resolved)
    if label == "ProjectionExpression":
        return projection_pattern(read_projection(label, text), resolved)
    return condition_pattern(ConditionReader(label, text).read(), resolved)


kept_aliases = lru_cache(KEPT_COUNT)(_new_aliases)
kept_pattern = lru_cache(KEPT_COUNT)(_new_pattern)

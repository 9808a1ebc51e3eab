"""The expressions of one request: read, checked, and kept for requests that are like it.

Text and names of an expression give its pattern (tree and checks), which is kept; the values of a
request are then checked against it and go along with it. What is kept is bounded by count and size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from engines.keyvalue.errors import validation
from engines.keyvalue.parse.expressions.checks import Check
from engines.keyvalue.parse.expressions.condition_syntax import ConditionReader
from engines.keyvalue.parse.expressions.conditions import ConditionPattern, condition_pattern
from engines.keyvalue.parse.expressions.key_conditions import key_condition
from engines.keyvalue.parse.expressions.tokens import ALIAS, invalid, tokenize
from engines.keyvalue.parse.expressions.trees import (
    NO_VALUES,
    NOTHING,
    Condition,
    Expressions,
    Projection,
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
_KEPT_COUNT = 512
_KEPT_LENGTH_MAX = 1024

Pattern: TypeAlias = ConditionPattern | UpdatePattern | ProjectionPattern

# In the order in which DynamoDB reads them.
_ORDER = (
    "UpdateExpression",
    "ConditionExpression",
    "KeyConditionExpression",
    "FilterExpression",
    "ProjectionExpression",
)


def read(fields: Mapping[str, Any], names: Sequence[str]) -> Expressions:
    """Return the expressions of a request, of which it may have those in `names`.

    `fields` has their texts, and ExpressionAttributeNames and ExpressionAttributeValues, the keys
    of which are well formed and the values canonical.

    Raises DynamoError for what is wrong with the expressions or with placeholders.
    """
    given = [name for name in _ORDER if name in fields and name in names]
    if not given:
        return NOTHING
    aliases: Mapping[str, str] = fields.get("ExpressionAttributeNames") or {}
    values: Values = fields.get("ExpressionAttributeValues") or NO_VALUES
    used_aliases: set[str] = set()
    used_values: set[str] = set()
    patterns: dict[str, Any] = {}
    for label in given:
        text = fields[label]
        used = _aliases(text)
        pattern = _pattern(label, text, used, aliases)
        if isinstance(pattern, ProjectionPattern):
            if pattern.problem is not None:
                raise invalid(label, pattern.problem)
        else:
            _check(label, pattern, values)
            used_values |= pattern.values
        used_aliases.update(used)
        patterns[label] = pattern
    _check_unused("ExpressionAttributeNames", aliases, used_aliases)
    _check_unused("ExpressionAttributeValues", values, used_values)
    return _expressions(patterns, values)


def _check(label: str, pattern: ConditionPattern | UpdatePattern, values: Values) -> None:
    """Raise what is wrong with a request's values for an expression."""
    is_complete = pattern.values <= values.keys()
    checks: tuple[Check, ...] = pattern.late if is_complete else pattern.checks
    for check in checks:
        problem = check.problem(values)
        if problem is not None:
            raise invalid(label, problem)


def _check_unused(member: str, given: Mapping[str, Any], used: set[str]) -> None:
    """Raise DynamoError if a placeholder stands in no expression. All used ones are given."""
    if len(used) != len(given):
        unused = ", ".join(name for name in given if name not in used)
        raise validation(f"Value provided in {member} unused in expressions: keys: {{{unused}}}")


def _expressions(patterns: Mapping[str, Any], values: Values) -> Expressions:
    updates: UpdatePattern | None = patterns.get("UpdateExpression")
    key: ConditionPattern | None = patterns.get("KeyConditionExpression")
    parts: ProjectionPattern | None = patterns.get("ProjectionExpression")
    update = projection = None
    if updates is not None:
        update = Update(updates.actions, values, updates.branch, updates.nested)
    if parts is not None:
        projection = Projection(parts.paths, parts.branch, parts.nested)
    return Expressions(
        condition=_condition(patterns.get("ConditionExpression"), values),
        filter=_condition(patterns.get("FilterExpression"), values),
        key_condition=None if key is None else key_condition(key.test, values),
        projection=projection,
        update=update,
    )


def _condition(pattern: ConditionPattern | None, values: Values) -> Condition | None:
    if pattern is None:
        return None
    return Condition(pattern.test, values, pattern.heads, pattern.nested)


def _pattern(label: str, text: str, used: tuple[str, ...], aliases: Mapping[str, str]) -> Pattern:
    """Return the pattern of a text with a request's names, kept or new."""
    names = tuple([aliases.get(alias) for alias in used])
    if len(text) > _KEPT_LENGTH_MAX or sum(len(name or "") for name in names) > _KEPT_LENGTH_MAX:
        return _new_pattern(label, text, used, names)
    return _kept_pattern(label, text, used, names)


def _aliases(text: str) -> tuple[str, ...]:
    """Return the #names of a text, each once."""
    if "#" not in text or len(text) > EXPRESSION_BYTES_MAX:
        return ()
    return _kept_aliases(text) if len(text) <= _KEPT_LENGTH_MAX else _new_aliases(text)


def _new_aliases(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(token.text for token in tokenize(text) if token.kind == ALIAS))


def _new_pattern(
    label: str, text: str, used: tuple[str, ...], names: tuple[str | None, ...]
) -> Pattern:
    """Return the pattern of a text.

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
    resolved = dict(zip(used, names, strict=True))
    if label == "UpdateExpression":
        return update_pattern(UpdateReader(label, text).read(), resolved)
    if label == "ProjectionExpression":
        return projection_pattern(read_projection(label, text), resolved)
    return condition_pattern(ConditionReader(label, text).read(), resolved)


_kept_aliases = lru_cache(_KEPT_COUNT)(_new_aliases)
_kept_pattern = lru_cache(_KEPT_COUNT)(_new_pattern)

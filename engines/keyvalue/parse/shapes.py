"""The vocabulary of the operations' tables: shapes, compiled to closures when they are made.

    record("KeySchemaElement", AttributeName=text(1, 255).required, KeyType=KEY_TYPE.required)

A shape does two things, in this order for a whole request: `field` or `value` turns decoded JSON
into its types (`json_types`), and `check` collects what breaks a documented constraint, as text:

    Value 'hi' at 'select' failed to satisfy constraint: Member must satisfy enum value set: [...]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from engines.keyvalue.parse import json_types
from engines.keyvalue.parse.json_types import CAST, ELEMENT, FIELD, PACKAGE, Typed

# (value, path, errors): appends to `errors`; nobody looks further when there are ERRORS_MAX.
Check = Callable[[Any, str, list[str]], None]

ERRORS_MAX = 10
# How much of a value its message shows.
_SHOWN_LENGTH_MAX = 1024
_SHOWN_ELEMENTS_MAX = 10
_SHOWN_LEVELS_MAX = 3

TABLE_NAME_PATTERN = "[a-zA-Z0-9_.-]+"
TABLE_ARN = re.compile(
    r"arn:aws[a-z-]*:dynamodb:[a-z0-9-]*:[0-9]*:table/([a-zA-Z0-9_.-]{3,255})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A type of the service model: how it is read, what it is checked for, what it is made of."""

    java: str
    field: Typed
    value: Typed
    check: Check | None = None
    is_required: bool = False
    # Members that may stand instead of a required one.
    unless: tuple[str, ...] = ()
    absent: Callable[[], Any] | None = None
    members: Mapping[str, Shape] | None = None
    element: Shape | None = None
    size_max: int | None = None

    @property
    def required(self) -> Shape:
        """The same shape as a member that must be there."""
        return replace(self, is_required=True)

    def required_unless(self, *names: str) -> Shape:
        """The same shape as a member that must be there if none of the named ones is."""
        return replace(self, is_required=True, unless=names)


def text(
    size_min: int = 0,
    size_max: int | None = None,
    pattern: str = "",
    *,
    java: str = json_types.STRING,
) -> Shape:
    """Return a string of so many characters that matches a pattern as a whole."""
    compiled = re.compile(pattern, re.ASCII) if pattern else None

    def check(value: str, path: str, errors: list[str]) -> None:
        if compiled is not None and not compiled.fullmatch(value):
            errors.append(_refused(value, path, f"satisfy regular expression pattern: {pattern}"))
        _check_size(value, path, errors, size_min, size_max)

    is_free = not pattern and not size_min and size_max is None
    return Shape(java, json_types.text, json_types.text, None if is_free else check)


def choice(*words: str) -> Shape:
    """Return one of some words, in the order in which DynamoDB lists them."""
    known = frozenset(words)
    constraint = f"satisfy enum value set: [{', '.join(words)}]"

    def check(value: str, path: str, errors: list[str]) -> None:
        if value not in known:
            errors.append(_refused(value, path, constraint))

    return Shape(json_types.STRING, json_types.text, json_types.text, check)


def integer(least: int | None = None, most: int | None = None) -> Shape:
    """Return a whole number of 32 bits."""
    return _whole("Integer", 32, least, most)


def long(least: int | None = None, most: int | None = None) -> Shape:
    """Return a whole number of 64 bits."""
    return _whole("Long", 64, least, most)


def _whole(name: str, bits: int, least: int | None, most: int | None) -> Shape:
    typed = json_types.whole(name, bits)

    def check(value: int, path: str, errors: list[str]) -> None:
        if least is not None and value < least:
            errors.append(_refused(value, path, f"have value greater than or equal to {least}"))
        if most is not None and value > most:
            errors.append(_refused(value, path, f"have value less than or equal to {most}"))

    return Shape(f"java.lang.{name}", typed, typed, check)


def _real(name: str, java: str) -> Shape:
    typed = json_types.real(name, java)
    return Shape(java, typed, typed)


FLAG = Shape("java.lang.Boolean", json_types.flag, json_types.flag)
DOUBLE = _real("Double", "java.lang.Double")
# Seconds since 1970.
MOMENT = _real("Date", "java.util.Date")
ATTRIBUTE_VALUE = Shape(
    PACKAGE + "AttributeValue",
    json_types.attribute_value_field,
    json_types.attribute_value,
    absent=dict,
)


def each(element: Shape, size_min: int = 0, size_max: int | None = None) -> Shape:
    """Return a list."""
    checked = element.check
    has_nulls = element.absent is None

    def check(value: list[Any], path: str, errors: list[str]) -> None:
        _check_size(value, path, errors, size_min, size_max, element)
        for number, item in enumerate(value, 1):
            if len(errors) >= ERRORS_MAX:
                return
            if item is None:
                errors.append(_refused(None, f"{path}.{number}.member", "not be null"))
            elif checked is not None:
                checked(item, f"{path}.{number}.member", errors)

    is_free = checked is None and not has_nulls and not size_min and size_max is None
    return Shape(
        f"java.util.List<{element.java}>",
        json_types.elements(element.value, FIELD, absent=element.absent),
        json_types.elements(element.value, CAST, absent=element.absent),
        None if is_free else check,
        element=element,
        size_max=size_max,
    )


def mapping(
    value: Shape,
    size_min: int = 0,
    size_max: int | None = None,
    *,
    keys: Shape | None = None,
    keys_constraint: str = "",
    values_size_max: int | None = None,
) -> Shape:
    """Return a map from strings; its values' own sizes are told of as the map's."""
    has_nulls = value.absent is None

    def check(content: dict[str, Any], path: str, errors: list[str]) -> None:
        _check_size(content, path, errors, size_min, size_max, value)
        if keys is not None and keys.check is not None and not _all_pass(keys.check, content):
            errors.append(_refused(content, path, keys_constraint, "Map keys must", value))
        if values_size_max is not None and not _all_sized(content, values_size_max):
            constraint = (
                f"satisfy constraint: [Member must have length less than or equal to "
                f"{values_size_max}, Member must have length greater than or equal to 1]"
            )
            errors.append(_refused(content, path, constraint, "Map value must", value))
        for name, item in content.items():
            if len(errors) >= ERRORS_MAX:
                return
            if item is None:
                errors.append(_refused(None, f"{path}.{name}.member", "not be null"))
            elif value.check is not None:
                value.check(item, f"{path}.{name}.member", errors)

    is_free = (
        value.check is None and not has_nulls and keys is None and not size_min and size_max is None
    )
    return Shape(
        f"java.util.Map<java.lang.String, {value.java}>",
        json_types.entries(value.value, value.java, FIELD, absent=value.absent),
        json_types.entries(value.value, value.java, CAST, absent=value.absent),
        None if is_free else check,
        element=value,
        size_max=size_max,
    )


def record(name: str, /, **members: Shape) -> Shape:
    """Return a structure of the service model."""
    typed = {member: shape.field for member, shape in members.items()}
    java = PACKAGE + name
    return Shape(
        java,
        json_types.members(typed, java, FIELD),
        json_types.members(typed, java, ELEMENT),
        _checking(members),
        members=members,
    )


def _checking(members: Mapping[str, Shape]) -> Check | None:
    """Return the check of a structure: its members in the order of the table."""
    plan = [
        (member, member[0].lower() + member[1:], shape.is_required, shape.unless, shape.check)
        for member, shape in members.items()
        if shape.is_required or shape.check is not None
    ]

    def check(value: dict[str, Any], path: str, errors: list[str]) -> None:
        for member, shown, is_required, unless, checked in plan:
            content = value.get(member)
            if content is None:
                if is_required and not any(name in value for name in unless):
                    errors.append(_refused(None, _below(path, shown), "not be null"))
            elif checked is not None:
                checked(content, _below(path, shown), errors)
            if len(errors) >= ERRORS_MAX:
                return

    return check if plan else None


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _all_pass(check: Check, content: Iterable[str]) -> bool:
    errors: list[str] = []
    for each_key in content:
        check(each_key, "", errors)
        if errors:
            return False
    return True


def _all_sized(content: Mapping[str, Any], size_max: int) -> bool:
    return all(item is None or 1 <= len(item) <= size_max for item in content.values())


def _check_size(
    value: Any,
    path: str,
    errors: list[str],
    size_min: int,
    size_max: int | None,
    element: Shape | None = None,
) -> None:
    if len(value) < size_min:
        constraint = f"have length greater than or equal to {size_min}"
        errors.append(_refused(value, path, constraint, element=element))
    if size_max is not None and len(value) > size_max:
        constraint = f"have length less than or equal to {size_max}"
        errors.append(_refused(value, path, constraint, element=element))


def _refused(
    value: Any,
    path: str,
    constraint: str,
    subject: str = "Member must",
    element: Shape | None = None,
) -> str:
    shown = "null" if value is None else f"'{_shown(value, None, element)}'"
    place = path[:_SHOWN_LENGTH_MAX]
    return f"Value {shown} at '{place}' failed to satisfy constraint: {subject} {constraint}"


def _shown(value: Any, shape: Shape | None, element: Shape | None, level: int = 0) -> str:
    """Return a value as Java prints it, the beginning of what is long.

    `element` is the shape of what is in a list or map, where it is known.
    """
    if isinstance(value, list | dict) and level >= _SHOWN_LEVELS_MAX:
        return "..."
    if isinstance(value, list):
        parts = (_below_shown(item, element, level) for item in islice(value, _SHOWN_ELEMENTS_MAX))
        return f"[{', '.join(parts)[:_SHOWN_LENGTH_MAX]}]"
    if isinstance(value, dict) and shape is not None and shape.members is not None:
        parts = (
            f"{name[0].lower()}{name[1:]}={_below_shown(value[name], member, level)}"
            for name, member in shape.members.items()
            if name in value
        )
        return f"{shape.java.rpartition('.')[2]}({', '.join(parts)[:_SHOWN_LENGTH_MAX]})"
    if isinstance(value, dict):
        pairs = islice(value.items(), _SHOWN_ELEMENTS_MAX)
        parts = (
            f"{name[:_SHOWN_LENGTH_MAX]}={_below_shown(item, element, level)}"
            for name, item in pairs
        )
        return f"{{{', '.join(parts)[:_SHOWN_LENGTH_MAX]}}}"
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)[:_SHOWN_LENGTH_MAX]


def _below_shown(value: Any, shape: Shape | None, level: int) -> str:
    return _shown(value, shape, shape.element if shape is not None else None, level + 1)


def _table() -> Shape:
    """Return the name of a table, or its ARN."""
    name = text(3, 255, TABLE_NAME_PATTERN)
    named = name.check
    assert named is not None

    def check(value: str, path: str, errors: list[str]) -> None:
        if not TABLE_ARN.fullmatch(value):
            named(value, path, errors)

    return replace(name, check=check)


TABLE = _table()
TABLE_KEYS_CONSTRAINT = (
    "satisfy constraint: [Member must have length less than or equal to 255, Member must have "
    "length greater than or equal to 3, Member must satisfy regular expression pattern: "
    f"{TABLE_NAME_PATTERN}]"
)

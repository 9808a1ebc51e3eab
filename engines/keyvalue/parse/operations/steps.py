"""Steps that several operations share: names of tables, keys and items, expressions' company.

steps=(table, NO_EXPRESSIONS.check, keys("Key"), expressions("ConditionExpression"))
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engines.keyvalue import capacity
from engines.keyvalue.errors import DynamoError, invalid_parameter, validation
from engines.keyvalue.parse import expressions, legacy
from engines.keyvalue.parse.attribute_values import FormError, canonical, canonical_item
from engines.keyvalue.parse.expressions.trees import Expressions
from engines.keyvalue.parse.operations.plan import Fields, Parsed, Step
from engines.keyvalue.parse.shapes import TABLE_ARN
from engines.keyvalue.values import AttributeValue, Item

NAME_BYTES_MAX = 65535

# With its # or :. Developer Guide, "Constraints", expression parameters.
PLACEHOLDER_BYTES_MAX = 255
_NAME_KEY = re.compile(r"#[A-Za-z0-9_]+", re.ASCII)
_VALUE_KEY = re.compile(r":[A-Za-z0-9_]+", re.ASCII)


def table(parsed: Parsed) -> None:
    """Put the table's name where its ARN stands."""
    name_table(parsed, parsed.fields)


def name_table(parsed: Parsed, holder: Fields, member: str = "TableName") -> None:
    """Put a name in `holder` where a table's ARN stands, and keep the ARN."""
    given = holder.get(member)
    if given is not None and ":" in given:
        holder[member] = named(parsed, given)


def named(parsed: Parsed, given: str) -> str:
    """Return the name of a table that is given by name or ARN."""
    match = TABLE_ARN.fullmatch(given)
    if match is None:
        return given
    parsed.table_arns.append(given)
    return match[1]


def required_table(fields: Fields) -> None:
    """Check the table's name as the control operations do, before everything else."""
    name = fields.get("TableName")
    if name is None:
        raise validation("The parameter 'TableName' is required but was not present in the request")
    if not 3 <= len(name) <= 255 and not TABLE_ARN.fullmatch(name):
        raise validation(
            "TableName must be at least 3 characters long and at most 255 characters long"
        )


@dataclass(frozen=True)
class Company:
    """Which parameters of a request are expressions, and which must not stand beside them.

    `valued` are the expressions that may use ExpressionAttributeValues. A parameter of
    `only_beside` counts only if the expression that replaces it is there.
    """

    legacy: tuple[str, ...]
    expressions: tuple[str, ...]
    valued: tuple[str, ...] = ()
    only_beside: Mapping[str, str] | None = None

    def check(self, parsed: Parsed) -> None:
        """Refuse both kinds in one request, and placeholders without an expression."""
        self.check_fields(parsed.fields)

    def check_fields(self, fields: Fields) -> None:
        """Check the members of one request or of one entry of a batch."""
        used = [name for name in self.expressions if name in fields]
        if used:
            beside = self.only_beside or {}
            older = [
                name
                for name in self.legacy
                if name in fields and beside.get(name, used[0]) in fields
            ]
            if older:
                raise validation(
                    "Can not use both expression and non-expression parameters in the same "
                    f"request: Non-expression parameters: {{{', '.join(older)}}} "
                    f"Expression parameters: {{{', '.join(used)}}}"
                )
        elif "ExpressionAttributeNames" in fields:
            raise validation(
                "ExpressionAttributeNames can only be specified when using expressions"
            )
        if "ExpressionAttributeValues" in fields and not any(n in fields for n in self.valued):
            verb = "is" if len(self.valued) == 1 else "are"
            raise validation(
                "ExpressionAttributeValues can only be specified when using expressions: "
                f"{' and '.join(self.valued)} {verb} null"
            )


def keys(member: str) -> Step:
    """Make the values of a key canonical."""

    def step(parsed: Parsed) -> None:
        parsed.fields[member] = canonical_item(parsed.fields[member])

    return step


def new_item(item: Mapping[str, AttributeValue]) -> Item:
    """Return an item to be stored, its values canonical, its names and its size in bounds."""
    found = canonical_item(item)
    size = capacity.item_size(found)
    if size > NAME_BYTES_MAX or "" in found:
        check_attribute_names(found)
    if size > capacity.ITEM_BYTES_MAX:
        raise validation("Item size has exceeded the maximum allowed size")
    return found


def check_attribute_names(names: Iterable[str]) -> None:
    """Refuse an empty name, and one that is too long."""
    for name in names:
        if not name:
            raise invalid_parameter("Empty attribute name")
        if len(name.encode()) > NAME_BYTES_MAX:
            raise invalid_parameter(
                f"Attribute name is too large, must be less than {NAME_BYTES_MAX + 1} bytes"
            )


def put_item(parsed: Parsed) -> None:
    """Make the item of a PutItem canonical."""
    parsed.fields["Item"] = new_item(parsed.fields["Item"])


def start_key(parsed: Parsed) -> None:
    """Make the values of ExclusiveStartKey canonical."""
    given = parsed.fields.get("ExclusiveStartKey")
    if given is None:
        return
    try:
        parsed.fields["ExclusiveStartKey"] = canonical_item(given)
    except FormError as error:
        raise validation(f"The provided starting key is invalid: {error.message}") from None


def attributes_to_get(parsed: Parsed) -> None:
    """Refuse a name that is asked for twice."""
    check_attributes_to_get(parsed.fields)


def check_attributes_to_get(fields: Fields) -> None:
    """Check the members of one request or of one entry of a batch."""
    names = fields.get("AttributesToGet")
    if names is None:
        return
    check_attribute_names(names)
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise invalid_parameter(f"Duplicate value in attribute name: {name}")
        seen.add(name)


def old_values_only(parsed: Parsed) -> None:
    """PutItem and DeleteItem have no updated attributes to return."""
    if parsed.fields.get("ReturnValues", "NONE") not in ("NONE", "ALL_OLD"):
        raise validation("ReturnValues can only be ALL_OLD or NONE")


def parameters(fields: Fields) -> None:
    """Make the parameters of a PartiQL statement canonical."""
    if "Parameters" in fields:
        fields["Parameters"] = [canonical(value) for value in fields["Parameters"]]


def expressed(*names: str) -> Step:
    """Read the expressions of a request."""

    def step(parsed: Parsed) -> None:
        parsed.expressions = read_expressions(parsed.fields, names)

    return step


def read_expressions(fields: Fields, names: Sequence[str]) -> Expressions:
    """Return the expressions of one request or entry of a batch, or what its parameters mean."""
    _check_names(fields)
    _check_values(fields)
    return legacy.completed(fields, expressions.read(fields, names))


def _check_names(fields: Fields) -> None:
    names = fields.get("ExpressionAttributeNames")
    if names is None:
        return
    _check_placeholders("ExpressionAttributeNames", names, _NAME_KEY)
    for name, attribute in names.items():
        if not attribute:
            raise validation(
                "ExpressionAttributeNames contains invalid value: "
                f"Empty attribute name for key {name}"
            )


def _check_values(fields: Fields) -> None:
    values = fields.get("ExpressionAttributeValues")
    if values is None:
        return
    _check_placeholders("ExpressionAttributeValues", values, _VALUE_KEY)
    found = {}
    for name, value in values.items():
        try:
            found[name] = canonical(value)
        except DynamoError as error:
            raise validation(
                f"ExpressionAttributeValues contains invalid value: {error.message} for key {name}"
            ) from None
    fields["ExpressionAttributeValues"] = found


def _check_placeholders(member: str, given: Mapping[str, Any], pattern: re.Pattern[str]) -> None:
    if not given:
        raise validation(f"{member} must not be empty")
    for name in given:
        if len(name) > PLACEHOLDER_BYTES_MAX:
            raise validation(
                f"{member} contains invalid key: The expression attribute map contains a key that "
                f"is too long; size of key: {len(name.encode())}"
            )
        if not pattern.fullmatch(name):
            raise validation(f'{member} contains invalid key: Syntax error; key: "{name}"')

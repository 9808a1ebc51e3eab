"""From a body's bytes to a checked request, in the order in which DynamoDB complains.

JSON -> types (SerializationException) -> constraints, at most ten of them ("N validation errors
detected: ...") -> what does not go together -> attribute values -> expressions.

What an operation has is in `operations`; this module runs its table.
"""

from __future__ import annotations

import orjson

from engines.keyvalue.errors import serialization, unknown_operation, validation
from engines.keyvalue.parse.operations import OPERATIONS, STREAM_OPERATIONS
from engines.keyvalue.parse.operations.plan import Parsed
from engines.keyvalue.parse.shapes import ERRORS_MAX

__all__ = ["Parsed", "read"]

_OPERATIONS = {**OPERATIONS, **STREAM_OPERATIONS}


def read(operation: str, body: bytes) -> Parsed:
    """Return the checked request of an operation, or raise a DynamoError.

    Names come once in a JSON object; where one comes twice, the last one counts.
    """
    table = _OPERATIONS.get(operation)
    if table is None:
        raise unknown_operation()
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise serialization() from None
    fields = table.shape.value(decoded)
    if table.before is not None:
        table.before(fields)
    if table.shape.check is not None:
        errors: list[str] = []
        table.shape.check(fields, "", errors)
        if errors:
            raise validation(_told(errors[:ERRORS_MAX]))
    parsed = Parsed(fields)
    for step in table.steps:
        step(parsed)
    return parsed


def _told(errors: list[str]) -> str:
    plural = "s" if len(errors) > 1 else ""
    return f"{len(errors)} validation error{plural} detected: {'; '.join(errors)}"

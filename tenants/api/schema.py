"""What the OpenAPI document says of every endpoint alike: errors, the idempotency header."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter

IDEMPOTENT = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="A repetition of the same request within a day gets the first one's answer.",
)

# Of a list: see `core/pagination.py`.
PAGE = [
    OpenApiParameter("cursor", str, description="Where a page begins: take it from `next`."),
    OpenApiParameter("limit", int, description="How many a page holds, up to 200."),
]

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457. `code` is stable; `errors` holds messages by field.",
    "required": ["type", "title", "status", "detail", "code", "request_id", "retryable"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "retryable": {"type": "boolean"},
        "errors": {"type": "object", "additionalProperties": True},
        "operation_id": {
            "type": "string",
            "format": "uuid",
            "description": "With status 423: the operation that runs.",
        },
    },
}


def add_problems(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Give every endpoint the same default answer: a problem."""
    result["components"]["schemas"]["Problem"] = PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path in result["paths"].values():
        for operation in path.values():
            operation["responses"]["default"] = {"description": "Refused", "content": content}
    return result

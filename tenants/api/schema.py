"""What the OpenAPI document says of every endpoint alike: errors, the idempotency header."""

from __future__ import annotations

from collections.abc import Mapping
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
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": 200},
        description="How many a page holds.",
    ),
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


# What every endpoint may answer, and what only those that change something may.
REFUSALS: Mapping[int, str] = {
    400: "The request is not valid; `errors` says where.",
    401: "It is not known who asks.",
    403: "Who asks may not.",
    404: "There is none, or it is another tenant's.",
    406: "Nothing of what the caller accepts can be given.",
    429: "Too often; Retry-After says when again.",
    503: "Ask again.",
}
REFUSED_CHANGES: Mapping[int, str] = {
    402: "Over the quota, or in arrears: only what shrinks is done.",
    409: "Not in this state, or one too many.",
    412: "The resource is no longer what If-Match says.",
    413: "The body is too long.",
    415: "The body is not of a known type.",
    423: "Another operation runs on the instance; `operation_id` names it.",
    428: "This installation changes nothing without If-Match.",
}
# Of one endpoint only, by its operation id.
OWN_REFUSALS: Mapping[str, Mapping[int, str]] = {
    "file_download": {
        409: "The file is not whole yet.",
        410: "The file is listed, but its bytes are gone.",
    },
}
CONDITION = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "The ETag that GET gave: the change is made only if the resource still has it.",
}


def add_problems(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Declare what every endpoint may refuse, and If-Match where a resource is changed."""
    result["components"]["schemas"]["Problem"] = PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path in result["paths"].values():
        for method, operation in path.items():
            refusals = REFUSALS if method == "get" else {**REFUSALS, **REFUSED_CHANGES}
            own = OWN_REFUSALS.get(operation["operationId"], {})
            for status, description in {**refusals, **own}.items():
                operation["responses"].setdefault(
                    str(status), {"description": description, "content": content}
                )
            if method == "get":
                operation["responses"]["304"] = {"description": "Still what If-None-Match says."}
            if method in ("patch", "delete") and "get" in path:
                operation.setdefault("parameters", []).append(CONDITION)
    return result

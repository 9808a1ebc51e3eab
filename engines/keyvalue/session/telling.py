"""What auditors are told of a request: each control operation with its end, and refused rights.

Requests for items are told by the data plane, as counts, where the instance's owner wants it.
Reason codes are those of HTTP by what went wrong: DynamoDB's own answers are nearly all 400.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.keyvalue.session.context import (
    READ,
    READ_CHANGES,
    READ_STRUCTURE,
    WRITE,
    WRITE_STRUCTURE,
    Context,
)
from engines.kit.errors import Reason, RequestError
from engines.kit.http.whole import Address

_CODES: Mapping[Reason, int] = {
    Reason.BACKEND: 503,
    Reason.CONFLICT: 409,
    Reason.DENIED: 403,
    Reason.INTERNAL: 500,
    Reason.NOT_FOUND: 404,
    Reason.QUOTA: 402,
    Reason.RATE: 429,
    Reason.SHUTDOWN: 503,
    Reason.SUSPENDED: 403,
    Reason.TIMEOUT: 504,
}
_CODE = 400
# Members that name a table, the one that is changed first; the ARN of a backup names its table.
_NAMES = ("TargetTableName", "TableName", "ResourceArn", "BackupArn")
TARGET_MAX = 300

# What a right was asked for -> what was not done.
_DENIED: Mapping[str, str] = {
    READ: "table.read",
    READ_CHANGES: "table.read",
    READ_STRUCTURE: "table.read",
    WRITE: "table.write",
    WRITE_STRUCTURE: "table.write",
}


def tell(
    context: Context,
    event: str,
    fields: Mapping[str, Any],
    address: Address,
    error: Exception | None = None,
) -> None:
    """Tell how a control operation ended; `event` is its action without service and engine."""
    code = 200 if error is None else _code(error)
    _emit(context, event, address, code, target_of(context, fields))


def tell_denied(context: Context, address: Address) -> None:
    """Tell which rights were refused to a request that is no control operation."""
    for action, name in sorted(context.denied):
        target = f"/tables/{name}" if name else ""
        _emit(context, _DENIED[action], address, 403, f"instances/{context.record.handle}{target}")


def target_of(context: Context, fields: Mapping[str, Any]) -> str:
    """Return what a request is about: `instances/shop/tables/orders/backups/0176-ab`."""
    named = next((str(fields[member]) for member in _NAMES if fields.get(member)), "")
    if named.startswith("arn:"):
        # arn:aws:dynamodb:<region>:<account>:table/<name>[/backup/<id>]
        named = named.partition(":table/")[2].replace("/backup/", "/backups/", 1)
    target = f"instances/{context.record.handle}"
    return f"{target}/tables/{named}"[:TARGET_MAX] if named else target


def _code(error: Exception) -> int:
    return _CODES.get(error.reason, _CODE) if isinstance(error, RequestError) else 500


def _emit(context: Context, event: str, address: Address, code: int, target: str) -> None:
    context.ports.audit.emit(
        f"weftkit.{context.record.engine}.{event}",
        record=context.record,
        initiator=context.grant.credential.username,
        address=str(address),
        outcome="success" if code == 200 else "failure",
        reason_code=code,
        target=target,
    )

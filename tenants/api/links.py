"""Where an answer leads: the OpenAPI document's links (OpenAPI 3.1, "Link Object").

A link names an operation and says which parts of the answer are its parameters. Documents show
them; schemathesis follows them, so that its tests are chains of requests and not only single ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TENANT = {"tenant": "$request.path.tenant"}
_INSTANCE = {**_TENANT, "instance": "$request.path.instance"}
_BODY = "$response.body#"

# Operation that answers -> operations that follow, and the parameters they take from the answer.
# The schema of the answer decides, so that every request that starts an operation leads to it.
BY_ANSWER: Mapping[str, Sequence[tuple[str, Mapping[str, str]]]] = {
    "OperationOutput": (
        ("operation_get", {**_TENANT, "operation_id": f"{_BODY}/id"}),
        ("operation_cancel", {**_TENANT, "operation_id": f"{_BODY}/id"}),
        ("operation_retry", {**_TENANT, "operation_id": f"{_BODY}/id"}),
        ("instance_get", {**_TENANT, "instance": f"{_BODY}/instance"}),
    ),
    "PaginatedOperationOutputList": (
        ("operation_get", {**_TENANT, "operation_id": f"{_BODY}/items/0/id"}),
        ("operation_cancel", {**_TENANT, "operation_id": f"{_BODY}/items/0/id"}),
    ),
    "PaginatedInstanceOutputList": (
        ("instance_get", {**_TENANT, "instance": f"{_BODY}/items/0/handle"}),
    ),
    "InstanceOutput": tuple(
        (name, {**_TENANT, "instance": f"{_BODY}/handle"})
        for name in (
            "instance_change",
            "instance_scale",
            "instance_suspend",
            "instance_resume",
            "instance_connection",
            "instance_delete",
            "instance_undelete",
            "credential_create",
            "credential_list",
            "backup_create",
            "instance_backup_list",
        )
    ),
    "PaginatedCredentialOutputList": (
        ("credential_get", {**_INSTANCE, "credential_id": f"{_BODY}/items/0/id"}),
        ("credential_rotate", {**_INSTANCE, "credential_id": f"{_BODY}/items/0/id"}),
    ),
    "CredentialCreated": tuple(
        (name, {**_INSTANCE, "credential_id": f"{_BODY}/id"})
        for name in ("credential_get", "credential_rotate", "credential_revoke")
    ),
    "PaginatedBackupOutputList": tuple(
        (name, {**_TENANT, "backup_id": f"{_BODY}/items/0/id"})
        for name in (
            "backup_get",
            "backup_change",
            "backup_verify",
            "backup_restore",
            "backup_delete",
        )
    ),
}


def add_links(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add the links of every answer that succeeds."""
    operations = {
        operation["operationId"]: operation
        for path in result["paths"].values()
        for operation in path.values()
    }
    for operation in operations.values():
        for status, answer in operation["responses"].items():
            content = answer.get("content", {}).get("application/json", {})
            name = content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
            if status.startswith("2") and name in BY_ANSWER:
                answer["links"] = {
                    target: {"operationId": target, "parameters": dict(parameters)}
                    for target, parameters in BY_ANSWER[name]
                    if _has_all(parameters, operation)
                }
    return result


def _has_all(parameters: Mapping[str, str], operation: Mapping[str, Any]) -> bool:
    """Say whether the request has what a link takes from it."""
    held = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
    taken = {value.rsplit(".", 1)[1] for value in parameters.values() if "$request.path" in value}
    return taken <= held

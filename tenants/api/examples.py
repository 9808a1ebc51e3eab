"""An example of every request body, by the operation that takes it, for the OpenAPI document.

Those that an endpoint declares itself (`extend_schema(examples=...)`) stay as they are. A test
checks each example against its schema, and that none is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEY_CHANGE = {"name": "deploy", "is_enabled": False}
_GRACE = {"grace_s": 86_400}
_ID = "01a20f00-0000-7000-8000-000000000001"

BODIES: Mapping[str, Mapping[str, Any]] = {
    "api_key_change": _KEY_CHANGE,
    "api_key_reroll": _GRACE,
    "audit_drain_update": {"is_enabled": True},
    "backup_change": {"label": "before the migration", "is_held": True},
    "budget_change": {"amount_micros": 400_000_000},
    "budget_create": {
        "name": "data team",
        "amount_micros": 250_000_000,
        "thresholds": [50, 80, 100],
        "tag_key": "team",
        "tag_value": "data",
    },
    "credential_create": {"role": "write", "label": "web shop", "cidrs": ["203.0.113.0/24"]},
    "credential_rotate": _GRACE,
    "instance_audit_update": {"data_events": True},
    "instance_change": {"plan": "standard", "blocks": 2, "tags": {"team": "data"}},
    "instance_create": {
        "name": "shop",
        "engine": "relational",
        "plan": "standard",
        "blocks": 2,
        "tags": {"team": "data"},
    },
    "invitation_create": {"email": "bob@example.org", "role": "member"},
    "member_change": {"role": "auditor"},
    "operator_account_change": {"collection": "invoice"},
    "operator_credit_note_create": {
        "amount_micros": 1_500_000,
        "reference": "CN-7",
        "reason": "outage of 12 March",
    },
    "operator_payment_record": {"amount_micros": 12_340_000, "reference": "SEPA 2026-11-25 0815"},
    "operator_price_list_publish": {
        "valid_from": "2027-01-01T00:00:00Z",
        "prices": [
            {
                "plan": "standard",
                "meter": "read_units",
                "unit": "unit",
                "micros": 300_000,
                "per": 1_000_000,
                "included": 1_000_000,
            },
            {
                "plan": "standard",
                "meter": "storage",
                "unit": "byte-hour",
                "micros": 150,
                "per": 1_073_741_824,
            },
        ],
    },
    "own_key_change": _KEY_CHANGE,
    "own_key_create": {"name": "laptop", "environment": "dev", "cidrs": ["203.0.113.7/32"]},
    "own_key_reroll": _GRACE,
    "policy_change": {"roles": ["Viewer", "Reader"]},
    "service_id_change": {"is_enabled": False},
    "service_id_create": {"name": "orders-app", "description": "The web shop's orders"},
    "tenant_change": {"name": "Acme Corporation", "requires_second_factor": True},
    "tenant_transfer": {"member": _ID},
    "webhook_change": {"is_enabled": True},
    "webhook_create": {
        "url": "https://hooks.example.org/weftkit",
        "event_types": ["operation.ended", "backup.failed"],
    },
    "webhook_rotate": _GRACE,
}
# What a refusal looks like.
PROBLEM: Mapping[str, Any] = {
    "type": "urn:weftkit:problem:operation_running",
    "title": "Locked",
    "status": 423,
    "detail": "a backup operation runs on this instance",
    "code": "operation_running",
    "request_id": "5f0c6b9c7c0e4f5f9a0e1d2c3b4a5968",
    "retryable": True,
    "operation_id": _ID,
}


def add_examples(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Give every body of JSON that has no example the one of the table."""
    for path in result["paths"].values():
        for operation in path.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            example = BODIES.get(operation["operationId"])
            if body is not None and example is not None and "examples" not in body:
                body["examples"] = {"Example": {"value": dict(example)}}
    result["components"]["schemas"]["Problem"]["examples"] = [dict(PROBLEM)]
    return result

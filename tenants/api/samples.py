"""An example of every answer, made from its schema and a table of what its fields hold.

All of them tell of one tenant, `acme`, and its instance `acme-shop`, so that ids and handles agree
between pages of the document. A test checks each against its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ID = "01a20f00-0000-7000-8000-000000000001"
MOMENT = "2026-11-25T08:15:00Z"
_EMAIL = "alice@example.org"
_KEY = "k7w2m9qd"
_HOST = "acme-shop.db.example.org"

# Field -> what it holds, wherever the schema lets it.
FIELDS: Mapping[str, Any] = {
    "action": "weftkit.instance.create",
    "actions": ["instances.read", "weftkit.relational.data.read"],
    "actor": f"user:{_EMAIL}",
    "address": "203.0.113.7",
    "agent": "weft/1.0",
    "allowlist": ["203.0.113.0/24"],
    "amount_micros": 12_340_000,
    "applied_micros": 12_340_000,
    "ca": "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n",
    "cidrs": ["203.0.113.0/24"],
    "code": "operation_running",
    "config": {"url": "https://logs.example.org/weftkit"},
    "created_by": f"user:{_EMAIL}",
    "currency": "EUR",
    "description": "The web shop's orders",
    "digest": "9f86d081" * 8,
    "disabled_reason": "",
    "email": _EMAIL,
    "engine": "relational",
    "environment": "prod",
    "error": "",
    "error_code": "",
    "error_message": "",
    "event": {"eventType": "activity", "outcome": "success"},
    "event_id": ID,
    "event_type": "operation.ended",
    "event_types": ["operation.ended", "backup.failed"],
    "eviction_policy": "noeviction",
    "fields_always": ["eventTime", "action", "outcome"],
    "handle": "acme-shop",
    "host": _HOST,
    "iam_id": f"iam-ServiceId-{ID}",
    "idempotency_key": "",
    "initiator": f"user:{_EMAIL}",
    "instance": "acme-shop",
    "invited_by": f"user:{_EMAIL}",
    "key_id": _KEY,
    "kind": "provision",
    "label": "web shop",
    "last_error": "",
    "last_refusal": "",
    "links": {"tenants": "/api/v1/tenants"},
    "member": "bob@example.org",
    "message": "Instance created",
    "meter": "read_units",
    "name": "shop",
    "next": None,
    "number": "WK-2026-000042",
    "one_liner": f"psql 'postgresql://wk_{_KEY}@{_HOST}:5432/acme-shop'",
    "parent": None,
    "password": None,
    "payload": {"type": "operation.ended"},
    "plan": "standard",
    "policy": ID,
    "port": 5432,
    "previous": None,
    "product": "PostgreSQL",
    "public_key": "MCowBQYDK2VwAyEA...",
    "reason": "outage of 12 March",
    "reason_code": 200,
    "reference": "SEPA 2026-11-25 0815",
    "region": "local",
    "request_id": "5f0c6b9c7c0e4f5f9a0e1d2c3b4a5968",
    "response_excerpt": "ok",
    "roles": ["Viewer", "Reader"],
    "secret": None,
    "sha256": "9f86d081" * 8,
    "signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    "size_bytes": 10_485_760,
    "stored_bytes": 4_194_304,
    "status_detail": "",
    "tag_key": "team",
    "tag_value": "data",
    "tags": {"team": "data"},
    "target": "instances/acme-shop",
    "target_type": "instance",
    "tenant": "acme",
    "tenant_id": ID,
    "text": "acme-shop uses 82 % of its storage.",
    "thresholds": [50, 80, 100],
    "title": "Create an instance",
    "token": None,
    "unit": "unit",
    "uri": f"postgresql://wk_{_KEY}@{_HOST}:5432/acme-shop",
    "uri_pooled": f"postgresql://wk_{_KEY}@{_HOST}:6432/acme-shop",
    "uri_tls": f"postgresql://wk_{_KEY}@{_HOST}:5432/acme-shop?sslmode=verify-full",
    "url": "https://hooks.example.org/weftkit",
    "username": f"wk_{_KEY}",
    "value": "acme-shop",
    "verification_facts": {"tables": 12, "rows": 48_120},
    "version": 1,
    "why": "The signature does not match.",
}
# Fields of some schemas hold something else than elsewhere.
EXCEPTIONS: Mapping[tuple[str, str], Any] = {
    ("TenantOutput", "handle"): "acme",
    ("TenantOutput", "name"): "Acme Corporation",
    ("MyTenantOutput", "handle"): "acme",
    ("EngineOutput", "name"): "relational",
    ("PlanOutput", "name"): "standard",
    ("StepOutput", "name"): "start_server",
    ("StepOutput", "title"): "Start the server",
    ("RoleOutput", "name"): "Viewer",
    ("DrainOutput", "name"): "log archive",
    ("DrainCreated", "name"): "log archive",
    ("BudgetOutput", "name"): "data team",
    ("ActionOutput", "name"): "weftkit.instance.create",
    ("NoticeOutput", "title"): "Storage is nearly full",
}
BY_FORMAT: Mapping[str, str] = {
    "uuid": ID,
    "date-time": MOMENT,
    "email": _EMAIL,
    "uri": "https://db.example.org/api/v1/",
}


def add_samples(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Give every answer of JSON that succeeds an example, unless its endpoint declares one."""
    schemas = result["components"]["schemas"]
    for path in result["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                content = answer.get("content", {}).get("application/json")
                if status.startswith("2") and content is not None and "examples" not in content:
                    value = sample(content["schema"], schemas)
                    content["examples"] = {"Example": {"value": value}}
    return result


def sample(schema: Mapping[str, Any], schemas: Mapping[str, Any], owner: str = "") -> Any:
    """Return a value that `schema` allows; `owner` is the component that it belongs to."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return sample(schemas[name], schemas, name)
    for word in ("allOf", "oneOf", "anyOf"):
        if word in schema:
            return sample(schema[word][0], schemas, owner)
    if "enum" in schema:
        return schema["enum"][0]
    kinds = schema.get("type", "object")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    if kind == "object":
        return _object(schema, schemas, owner)
    if kind == "array":
        return [sample(schema["items"], schemas, owner)]
    if kind == "string":
        return BY_FORMAT.get(schema.get("format", ""), "text")
    if kind == "boolean":
        return schema.get("default", True)
    return max(schema.get("minimum", 0), 1) if kind in ("integer", "number") else None


def _object(schema: Mapping[str, Any], schemas: Mapping[str, Any], owner: str) -> dict[str, Any]:
    return {
        name: _field(name, field, schemas, owner)
        for name, field in schema.get("properties", {}).items()
    }


def _field(name: str, field: Mapping[str, Any], schemas: Mapping[str, Any], owner: str) -> Any:
    given = EXCEPTIONS.get((owner, name), FIELDS.get(name))
    is_null = given is None and name in FIELDS and "null" in field.get("type", ())
    if is_null or (given is not None and _fits(given, field)):
        return given
    return sample(field, schemas, owner)


def _fits(value: Any, field: Mapping[str, Any]) -> bool:
    """Say whether the table's value is of the field's type: names have several meanings."""
    kinds = field.get("type", "any" if not field else "")
    words = {str: "string", int: "integer", list: "array", dict: "object"}
    return kinds == "any" or words[type(value)] in ([kinds] if isinstance(kinds, str) else kinds)

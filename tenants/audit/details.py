"""What of a request and of its answer an event may tell: fields by name, never secrets.

A list of what is allowed, not of what is forbidden: a field that nobody thought of stays out.
Values are bounded in length, number and depth.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

TEXT_MAX = 200
ITEMS_MAX = 20
DEPTH_MAX = 3

# Fields of requests that say what was wanted, and hold no secret by their nature.
TOLD = frozenset(
    {
        "actions", "amount_micros", "allowlist", "auth_method", "blocks", "budget", "cidrs",
        "currency", "data_events", "deletion_protected", "dry_run", "effect", "email", "enabled",
        "engine", "environment", "events", "expires_at", "file", "format", "from", "grace_s",
        "interval_s", "kind", "label", "limit_micros", "name", "operator", "plan", "policy",
        "prefix", "region", "resource", "retention_days", "role", "roles", "schedule", "sha256",
        "size_bytes", "state", "subject", "tags", "target", "target_time", "to", "type",
    }
)  # fmt: skip
# Fields of answers that name what was made or what goes on.
ANSWERED = frozenset({"id", "handle", "instance", "kind", "name", "state", "status"})
# Objects whose names are the tenant's own words.
FREE_NAMES = frozenset({"tags"})


def request_details(body: Any, told: Collection[str] = ()) -> dict[str, Any]:
    """Return what an event may tell of a request's body."""
    return _chosen(body, TOLD | set(told))


def answer_details(body: Any) -> dict[str, Any]:
    """Return what an event may tell of an answer's body."""
    return _chosen(body, ANSWERED)


def _chosen(body: Any, names: Collection[str]) -> dict[str, Any]:
    found = _bounded(body, names, 0)
    return found if isinstance(found, dict) else {}


def _bounded(value: Any, names: Collection[str] | None, depth: int) -> Any:
    """Return `value` cut to what an event has room for; of objects what `names` has, if given."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping | list | tuple) and depth > DEPTH_MAX:
        return "..."
    if isinstance(value, Mapping):
        told = [(name, item) for name, item in value.items() if names is None or name in names]
        return {
            storable(str(name))[:TEXT_MAX]: _bounded(
                item, None if name in FREE_NAMES else names, depth + 1
            )
            for name, item in told[:ITEMS_MAX]
        }
    if isinstance(value, list | tuple):
        return [_bounded(item, names, depth + 1) for item in value[:ITEMS_MAX]]
    return storable(str(value))[:TEXT_MAX]


def storable(text: str) -> str:
    """Return text as PostgreSQL's jsonb can keep it: without NUL and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")

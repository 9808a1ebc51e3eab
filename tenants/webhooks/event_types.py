"""Every type of event that a tenant can be told of, once; `webhook_emit` knows no others.

A name is `<object>.<what happened>`. The fields of each type's data are part of the API: they may
grow, and none goes away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventType:
    """One type; `fields` are the names that its data always has."""

    name: str
    title: str
    fields: tuple[str, ...] = ()


TYPES: tuple[EventType, ...] = (
    EventType("account.arrears", "The account came into arrears, or out of them", ("state",)),
    EventType("api_key.expiring", "An API key expires soon", ("key_id", "expires_at")),
    EventType("backup.failed", "A backup failed", ("instance", "operation_id")),
    EventType("backup.succeeded", "A backup was taken", ("instance", "operation_id")),
    EventType("budget.alert", "A budget's threshold is passed", ("budget", "percent")),
    EventType("instance.status", "An instance has another status", ("instance", "status")),
    EventType("invoice.final", "An invoice is final", ("invoice",)),
    EventType("invoice.overdue", "An invoice was not paid in time", ("invoice",)),
    EventType("invoice.paid", "An invoice is paid", ("invoice",)),
    EventType("member.added", "Somebody became a member", ("email", "role")),
    EventType("member.removed", "Somebody is no member any more", ("email",)),
    EventType(
        "operation.ended",
        "An operation succeeded, failed or was cancelled",
        ("operation_id", "kind", "instance", "state"),
    ),
    EventType("quota.notice", "A quota is nearly or wholly used", ("kind", "instance")),
    EventType("webhook.disabled", "An endpoint was switched off", ("endpoint_id", "reason")),
    EventType("webhook.test", "A test that somebody asked for", ("endpoint_id",)),
)
BY_NAME: Mapping[str, EventType] = {each.name: each for each in TYPES}
CHOICES = [(each.name, each.title) for each in TYPES]

"""The body of an event: CADF (DMTF DSP0262) with the fields of IBM's Activity Tracker.

Pure: facts go in, JSON comes out. Names of things are CRNs,
`crn:v1:weftkit:public:weftkit:<region>:a/<tenant id>:<instance handle>:<type>:<resource>`; a handle
may be given to another instance once its first owner is purged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from tenants.audit.actions import SERVICE, Action, Severity
from tenants.audit.details import storable

OBSERVER = "ActivityTracker"
MESSAGE_MAX = 500
TEXT_MAX = 300
AGENT_MAX = 200

OUTCOMES = ("success", "pending", "failure")
# A refusal by its HTTP code; every other failure is a warning.
CODE_SEVERITY: Mapping[int, Severity] = {
    **dict.fromkeys((400, 409, 424, 500, 502, 504, 505), Severity.WARNING),
    **dict.fromkeys((401, 403, 503, 507), Severity.CRITICAL),
}
# What leads an initiator's name -> its type, and the credential that it usually shows.
INITIATORS: Mapping[str, tuple[str, str]] = {
    "user": ("service/security/account/user", "user"),
    "key": ("service/security/account/serviceid", "apikey"),
    "serviceid": ("service/security/account/serviceid", "apikey-serviceid"),
    "client": ("service/security/clientid", "user"),
    "system": ("service/security/account/serviceid", "s2s-authorization"),
}
CREDENTIAL_TYPES = frozenset(
    {
        "token", "user", "apikey", "certificate", "public-access", "hmac", "compute-resource",
        "instance-identity-token", "apikey-serviceid", "s2s-authorization",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one event. `target` is a path below the tenant, `instances/acme-shop`."""

    event_id: UUID
    action: Action
    at: datetime
    tenant_id: UUID | None
    initiator: str
    target: str
    outcome: str = "success"
    reason_code: int = 200
    reason: str = ""
    address: str = ""
    agent: str = ""
    credential_type: str = ""
    instance: str = ""
    region: str = "local"
    correlation_id: str = ""
    request_data: Mapping[str, Any] = field(default_factory=dict)
    response_data: Mapping[str, Any] = field(default_factory=dict)


def event_body(facts: Facts) -> dict[str, Any]:
    """Return the event, field by field."""
    return {
        "id": str(facts.event_id),
        "action": facts.action.name,
        "outcome": facts.outcome,
        "eventTime": event_time(facts.at),
        "severity": severity_of(facts).value,
        "message": message_of(facts),
        "initiator": _initiator(facts),
        "target": _target(facts),
        "observer": {"name": OBSERVER},
        "reason": _reason(facts),
        "requestData": dict(facts.request_data),
        "responseData": dict(facts.response_data),
        "correlationId": storable(facts.correlation_id)[:TEXT_MAX],
        "dataEvent": facts.action.is_data,
        "logSourceCRN": crn(facts),
        "saveServiceCopy": True,
    }


def event_time(at: datetime) -> str:
    """Return a time as CADF wants it: UTC, two decimals, `2026-11-25T04:10:00.12+0000`."""
    moment = at.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 10_000:02d}+0000"


def severity_of(facts: Facts) -> Severity:
    """Return how grave it is: the action's own severity, or what the refusal's code says."""
    if facts.outcome != "failure":
        return facts.action.grade
    return CODE_SEVERITY.get(facts.reason_code, Severity.WARNING)


def message_of(facts: Facts) -> str:
    """Return the one line that people read; the outcome is in it only where it is a failure."""
    what = storable(f"{facts.action.text} {resource_of(facts)}".strip())
    said = f"{SERVICE}: {what[: MESSAGE_MAX - 30]}"
    return f"{said} [failure]" if facts.outcome == "failure" else said


def resource_of(facts: Facts) -> str:
    """Return the name of what a target is: `acme-shop` of `instances/acme-shop/suspend`.

    Names are the instance's handle and ids, which have digits; words of addresses have none. Tables
    are called as their owner likes.
    """
    segments = facts.target.split("/")
    if segments[-2:-1] == ["tables"]:
        return segments[-1]
    for segment in reversed(segments):
        if segment == facts.instance or any(letter.isdigit() for letter in segment):
            return segment
    return segments[-1]


def crn(facts: Facts, target_type: str = "", resource: str = "") -> str:
    """Return the CRN of the instance (or of the tenant, if it is about none), or of a part."""
    scope = f"a/{facts.tenant_id}" if facts.tenant_id else ""
    parts = ["crn", "v1", SERVICE, "public", SERVICE, facts.region, scope, facts.instance]
    return ":".join([*parts, target_type, _segment(resource)])


def _segment(text: str) -> str:
    return storable(text).replace(":", "%3A")[:TEXT_MAX]


def _initiator(facts: Facts) -> dict[str, Any]:
    kind, _, rest = facts.initiator.partition(":")
    type_uri, credential = INITIATORS.get(kind, INITIATORS["client"])
    shown = facts.credential_type or credential
    assert shown in CREDENTIAL_TYPES, shown
    name = storable(rest or facts.initiator)[:TEXT_MAX]
    return {
        "id": storable(facts.initiator)[:TEXT_MAX],
        "name": name,
        "typeURI": type_uri,
        "credential": {"type": shown},
        "host": {
            "address": facts.address[:TEXT_MAX],
            "addressType": _address_type(facts.address),
            "agent": storable(facts.agent)[:AGENT_MAX],
        },
    }


def _address_type(address: str) -> str:
    try:
        return f"IPv{ip_address(address).version}"
    except ValueError:
        return "IPv4"


def _target(facts: Facts) -> dict[str, Any]:
    target_type = facts.action.target_type
    resource = resource_of(facts)
    is_instance = target_type == "instance" or resource == facts.instance
    return {
        "id": crn(facts) if is_instance else crn(facts, target_type, resource),
        "name": storable(facts.target)[:TEXT_MAX],
        "typeURI": f"{facts.action.service.replace('.', '/')}/{target_type}",
    }


def _reason(facts: Facts) -> dict[str, Any]:
    try:
        phrase = HTTPStatus(facts.reason_code).phrase
    except ValueError:
        phrase = "Unknown"
    reason: dict[str, Any] = {"reasonCode": facts.reason_code, "reasonType": phrase}
    if facts.outcome == "failure":
        reason["reasonForFailure"] = storable(facts.reason or phrase)[:TEXT_MAX]
    return reason

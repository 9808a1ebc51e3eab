"""The question "may X do Y on Z", answered by the same decision that every request meets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from engines.kit import iam
from engines.kit.iam import Decision, PlatformRole, Policy, ServiceRole, Target
from tenants.accounts.models import MemberRole, Tenant
from tenants.accounts.permissions import ALL_ACTIONS, CATALOGUE, predefined
from tenants.core.errors import invalid_field
from tenants.iam.policies import Subject
from tenants.iam.selectors import policies_of_key, policies_of_member, policies_of_service
from tenants.instances.selectors import instance_get


def check(*, tenant: Tenant, held: Sequence[Policy], question: Mapping[str, Any]) -> Decision:
    """Answer `question`: action, instance, resource_type, resource; the last three may be ""."""
    if question["action"] not in ALL_ACTIONS:
        raise invalid_field("action", f"there is no action {question['action']}")
    engine = ""
    if question["instance"]:
        engine = instance_get(tenant=tenant, handle=question["instance"]).engine
    elif question["resource_type"] or question["resource"]:
        raise invalid_field("instance", "name the instance that the resource is in")
    target = Target(
        str(tenant.pk),
        engine,
        question["instance"],
        question["resource_type"],
        question["resource"],
    )
    return iam.decide(held, question["action"], target, CATALOGUE)


def subject_named(question: Mapping[str, Any]) -> tuple[str, UUID]:
    """Return whom a question is about; the two parts come together."""
    for name in ("subject", "subject_type"):
        if name not in question:
            raise invalid_field(name, "subject and subject_type come together")
    return question["subject_type"], question["subject"]


def policies_held(subject: Subject) -> tuple[Policy, ...]:
    """Return all that a subject holds now: nothing while it is disabled, expired or revoked."""
    if subject.service is not None:
        if not subject.service.is_enabled:
            return ()
        return policies_of_service(service_id=subject.service.pk)
    if subject.membership is not None:
        member = subject.membership
        role = predefined(MemberRole(member.role), str(member.tenant_id))
        return (role, *policies_of_member(membership=member))
    assert subject.api_key is not None
    key = subject.api_key
    if key.state != "active":
        return ()
    if key.membership is not None:
        return policies_held(Subject(membership=key.membership))
    if key.service is not None:
        return policies_held(Subject(service=key.service))
    own = (predefined(MemberRole(key.role), str(key.tenant_id)),) if key.role else ()
    return (*own, *policies_of_key(api_key=key))


def kind_of(role: str) -> str:
    """Return what sort of role it is."""
    if role in set(PlatformRole):
        return "platform"
    return "service" if role in set(ServiceRole) else "member"

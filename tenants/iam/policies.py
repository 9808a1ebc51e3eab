"""Writes: policies of members, service ids and API keys. Nobody gives or takes what they lack."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from engines.kit import iam
from engines.kit.iam import Match, Operator, PlatformRole, ServiceRole
from engines.kit.iam.vocabulary import ENGINES, prefix_of
from tenants.accounts.actors import Actor
from tenants.accounts.models import Membership, Tenant
from tenants.accounts.permissions import ALL_ACTIONS
from tenants.core.errors import ConflictError, ForbiddenError, LimitError, invalid_field
from tenants.iam.models import AccessPolicy, ApiKey, ServiceId
from tenants.iam.selectors import SCOPE_FIELDS, as_policy
from tenants.iam.service_ids import instances_republish, service_id_locked

POLICIES_PER_SUBJECT_MAX = 50
POLICIES_PER_TENANT_MAX = 1000
ACTIONS_MAX = 100
VALUE_CHARACTERS_MAX = 255
ROLES: tuple[str, ...] = (*PlatformRole, *ServiceRole)
INSTANCE_VALUE = re.compile(r"[a-z0-9*?-]{1,40}")

Scope = Mapping[str, Mapping[str, str]]
"""{"engine" | "instance" | "resource_type" | "resource": {"operator", "value"}}"""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose policy it is: exactly one of the three."""

    service: ServiceId | None = None
    membership: Membership | None = None
    api_key: ApiKey | None = None


@transaction.atomic
def policy_create(
    *,
    actor: Actor,
    subject: Subject,
    roles: Sequence[str],
    actions: Sequence[str] = (),
    scope: Scope | None = None,
    description: str = "",
) -> AccessPolicy:
    """Grant roles, actions or both, within `scope` or in the whole tenant."""
    # The tenant first: all that is counted of it waits here.
    Tenant.objects.select_for_update(no_key=True).get(pk=actor.tenant.pk)
    _lock_subject(subject)
    _check_room(actor.tenant, subject)
    policy = AccessPolicy(
        tenant=actor.tenant,
        service=subject.service,
        membership=subject.membership,
        api_key=subject.api_key,
        description=description,
        created_by=actor.name,
        **_checked(roles, actions, scope or {}),
    )
    _demand_holds(actor, policy)
    policy.save(force_insert=True)
    _tell(policy)
    return policy


@transaction.atomic
def policy_change(
    *, actor: Actor, policy: AccessPolicy, changes: Mapping[str, Any]
) -> AccessPolicy:
    """Change `roles`, `actions`, `scope` or `description`; the subject stays."""
    policy = _locked(policy)
    _demand_holds(actor, policy)
    values = _checked(
        changes.get("roles", policy.roles),
        changes.get("actions", policy.actions),
        changes.get("scope", policy.scope),
    )
    values["description"] = changes.get("description", policy.description)
    for name, value in values.items():
        setattr(policy, name, value)
    _demand_holds(actor, policy)
    policy.save(update_fields=[*values, "updated_at"])
    _tell(policy)
    return policy


@transaction.atomic
def policy_delete(*, actor: Actor, policy: AccessPolicy) -> None:
    """Take a policy away. Twice is fine."""
    if policy.service_id is not None:
        service_id_locked(policy.service_id)
    found = AccessPolicy.objects.select_for_update().filter(pk=policy.pk).first()
    if found is None:
        return
    _demand_holds(actor, found)
    found.delete()
    _tell(policy)


def _lock_subject(subject: Subject) -> None:
    if subject.service is not None:
        service_id_locked(subject.service.pk)
    if subject.api_key is not None:
        key = subject.api_key
        if key.service_id is not None or key.membership_id is not None:
            raise ConflictError(
                "this key has the rights of its owner: give the policy to that",
                code="api_key_has_an_owner",
            )
        if key.revoked_at is not None:
            raise ConflictError("the API key is revoked", code="api_key_revoked")


def _check_room(tenant: Tenant, subject: Subject) -> None:
    own = AccessPolicy.objects.filter(
        service=subject.service, membership=subject.membership, api_key=subject.api_key
    )
    if own.count() >= POLICIES_PER_SUBJECT_MAX:
        raise LimitError(f"one subject has at most {POLICIES_PER_SUBJECT_MAX} policies")
    if AccessPolicy.objects.filter(tenant=tenant).count() >= POLICIES_PER_TENANT_MAX:
        raise LimitError(f"a tenant has at most {POLICIES_PER_TENANT_MAX} policies")


def _locked(policy: AccessPolicy) -> AccessPolicy:
    if policy.service_id is not None:
        service_id_locked(policy.service_id)
    found = AccessPolicy.objects.select_for_update().filter(pk=policy.pk).first()
    if found is None:
        raise ConflictError("the policy is gone", code="policy_gone")
    return found


def _demand_holds(actor: Actor, policy: AccessPolicy) -> None:
    if not actor.may_grant(as_policy(policy)):
        raise ForbiddenError("nobody gives or takes more than they hold themselves")


def _tell(policy: AccessPolicy) -> None:
    if policy.service_id is not None:
        instances_republish(service_id=policy.service_id)


def _checked(roles: Sequence[str], actions: Sequence[str], scope: Scope) -> dict[str, Any]:
    """Return what is stored; refuse words that nobody knows and scopes that cannot be met."""
    if unknown := sorted(set(roles) - set(ROLES)):
        raise invalid_field("roles", f"there is no role {', '.join(unknown)}")
    if unknown := sorted(set(actions) - ALL_ACTIONS):
        raise invalid_field("actions", f"there is no action {', '.join(unknown)}")
    if len(set(actions)) > ACTIONS_MAX:
        raise invalid_field("actions", f"at most {ACTIONS_MAX}")
    if not roles and not actions:
        raise invalid_field("roles", "a policy has a role or an action")
    checked = {name: _part(name, scope[name]) for name in SCOPE_FIELDS if name in scope}
    if unknown := sorted(set(scope) - set(SCOPE_FIELDS)):
        raise invalid_field("scope", f"there is no attribute {', '.join(unknown)}")
    _check_engine(checked, actions)
    _check_resource(checked)
    return {
        "roles": sorted(set(roles)),
        "actions": sorted(set(actions)),
        "scope": checked,
    }


def _part(name: str, part: Mapping[str, str]) -> dict[str, str]:
    value, operator = part["value"], Operator(part["operator"])
    if not 1 <= len(value) <= VALUE_CHARACTERS_MAX or "\0" in value:
        raise invalid_field("scope", f"{name}: 1 to {VALUE_CHARACTERS_MAX} characters")
    if name == "instance" and not INSTANCE_VALUE.fullmatch(value):
        raise invalid_field("scope", "instance: a handle, or one with * and ?")
    return {"operator": operator.value, "value": value}


def _check_engine(scope: Mapping[str, Mapping[str, str]], actions: Sequence[str]) -> None:
    part = scope.get("engine")
    if part is None:
        return
    match = Match(part["value"], Operator(part["operator"]))
    covered = [engine for engine in ENGINES if match.covers(engine)]
    if not covered:
        raise invalid_field("scope", f"engine: none of {', '.join(sorted(ENGINES))}")
    for action in set(actions) & iam.SERVICE_ACTIONS.keys():
        if not any(action.startswith(prefix_of(engine)) for engine in covered):
            raise invalid_field("actions", f"{action} is of another engine than the scope's")


def _check_resource(scope: Mapping[str, Mapping[str, str]]) -> None:
    kind = scope.get("resource_type")
    if kind is None:
        if "resource" in scope:
            raise invalid_field("scope", "resource: name its resource_type too")
        return
    engine = scope.get("engine", {"operator": "", "value": ""})
    if engine["operator"] != Operator.EQUALS or kind["operator"] != Operator.EQUALS:
        raise invalid_field("scope", "resource_type: it and the engine are given by stringEquals")
    kinds = iam.RESOURCE_KINDS.get(engine["value"], ())
    if kind["value"] not in kinds:
        there = f"it has {', '.join(kinds)}" if kinds else "its instances are one whole"
        raise invalid_field("scope", f"resource_type: not in {engine['value']}; {there}")

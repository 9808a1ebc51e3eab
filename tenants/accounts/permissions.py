"""Actions of the control plane, and the roles that hold them: data for `engines.kit.iam.decide`.

An action is `<noun>.<verb>`; add a row to the set whose holders shall have it. A member's role is a
predefined policy on the whole tenant; platform roles are what policies grant on single instances.
A role can be given or minted (a member's, an API key's) only by one that holds all of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from engines.kit import iam
from engines.kit.iam import PlatformRole, Policy, ServiceRole
from tenants.accounts.models import MemberRole

READ = frozenset(
    {
        "tenant.read",
        "backups.read",
        "members.read",
        "instances.read",
        "credentials.read",
        "operations.read",
        "files.read",
    }
)
USAGE = frozenset({"usage.read", "notices.read"})
MONEY = frozenset({"billing.read", "budgets.manage"})
AUDIT = frozenset({"audit.read"})
# What an operator may do to a running instance without changing what it is.
OPERATE = frozenset(
    {
        "instances.suspend",
        "operations.manage",
    }
)
WORK = OPERATE | frozenset(
    {
        "backups.create",
        "backups.restore",
        "instances.create",
        "instances.update",
        "instances.export",
        "instances.import",
        "files.manage",
        "credentials.create",
        "credentials.rotate",
        "credentials.revoke",
    }
)
ADMINISTER = frozenset(
    {
        "backups.manage",
        "instances.delete",
        "members.manage",
        "policies.manage",
        "policies.read",
        "service_ids.manage",
        "service_ids.read",
        "api_keys.read",
        "api_keys.manage",
        "audit.manage",
        "operations.reset",
        "tenant.update",
        "webhooks.manage",
        "webhooks.read",
    }
)
OWN = frozenset({"owners.manage"})
# What every member may do about themselves.
SELF = frozenset({"own_keys.manage"})
LOOK_AT_IAM = frozenset({"api_keys.read", "policies.read", "service_ids.read", "webhooks.read"})

ACTIONS = READ | USAGE | MONEY | AUDIT | WORK | ADMINISTER | OWN | SELF

# Members who work with instances hold all that there is in them: they may make any credential.
WORKS_INSIDE = iam.ROLE_ACTIONS[ServiceRole.MANAGER]

ROLE_ACTIONS: Mapping[MemberRole, frozenset[str]] = {
    MemberRole.OWNER: ACTIONS,
    MemberRole.ADMIN: ACTIONS - OWN,
    MemberRole.MEMBER: READ | USAGE | WORK | SELF,
    MemberRole.BILLING: frozenset({"tenant.read", "instances.read"}) | USAGE | MONEY | SELF,
    MemberRole.AUDITOR: READ | USAGE | {"billing.read"} | AUDIT | LOOK_AT_IAM | SELF,
    MemberRole.READ_ONLY: READ | USAGE | SELF,
}
PLATFORM_ACTIONS: Mapping[PlatformRole, frozenset[str]] = {
    PlatformRole.ADMINISTRATOR: ACTIONS - OWN,
    PlatformRole.EDITOR: READ | USAGE | WORK,
    PlatformRole.OPERATOR: READ | USAGE | OPERATE,
    PlatformRole.VIEWER: READ | USAGE,
}
# The service actions that a member's role holds beside those of the control plane.
SERVICE_PART: Mapping[MemberRole, frozenset[str]] = {
    MemberRole.OWNER: WORKS_INSIDE | iam.ROLE_ACTIONS[PlatformRole.ADMINISTRATOR],
    MemberRole.ADMIN: WORKS_INSIDE | iam.ROLE_ACTIONS[PlatformRole.ADMINISTRATOR],
    MemberRole.MEMBER: WORKS_INSIDE | iam.ROLE_ACTIONS[PlatformRole.EDITOR],
    MemberRole.BILLING: frozenset(),
    MemberRole.AUDITOR: iam.ROLE_ACTIONS[PlatformRole.VIEWER],
    MemberRole.READ_ONLY: iam.ROLE_ACTIONS[PlatformRole.VIEWER],
}

CATALOGUE: iam.Catalogue = {
    **iam.ROLE_ACTIONS,
    **{role: iam.ROLE_ACTIONS[role] | actions for role, actions in PLATFORM_ACTIONS.items()},
    **{role: SERVICE_PART[role] | actions for role, actions in ROLE_ACTIONS.items()},
}
"""Every role -> all of its actions, on the control plane and inside instances."""

ALL_ACTIONS = ACTIONS | iam.SERVICE_ACTIONS.keys()


def predefined(role: MemberRole, tenant_id: str) -> Policy:
    """Return the policy that a member's role is."""
    return Policy(tenant_id, frozenset({role.value}), policy_id=f"role:{role.value}")


def role_allows(role: MemberRole, action: str) -> bool:
    """Say whether `role` may do `action`; an action that no table knows is a mistake of ours."""
    assert action in ALL_ACTIONS, action
    return action in CATALOGUE[role.value]


def role_includes(role: MemberRole, other: MemberRole) -> bool:
    """Say whether `role` may do all that `other` may."""
    return CATALOGUE[role.value] >= CATALOGUE[other.value]

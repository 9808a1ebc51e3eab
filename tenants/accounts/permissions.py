"""Who may do what: one pure table, asked by the API and by the dashboard.

Roles are cumulative sets of actions, `<noun>.<verb>`. A role can be given or minted (a member's, an
API key's) only by one that holds all of its actions.
"""

from __future__ import annotations

from collections.abc import Mapping

from tenants.accounts.models import MemberRole

READ = frozenset(
    {
        "tenant.read",
        "members.read",
        "instances.read",
        "credentials.read",
        "operations.read",
        "files.read",
    }
)
USAGE = frozenset({"usage.read"})
AUDIT = frozenset({"audit.read"})
WORK = frozenset(
    {
        "instances.create",
        "instances.update",
        "instances.suspend",
        "instances.export",
        "instances.import",
        "files.manage",
        "credentials.create",
        "credentials.rotate",
        "credentials.revoke",
        "operations.manage",
    }
)
ADMINISTER = frozenset(
    {
        "instances.delete",
        "members.manage",
        "api_keys.read",
        "api_keys.manage",
        "operations.reset",
    }
)
OWN = frozenset({"owners.manage"})

ACTIONS = READ | USAGE | AUDIT | WORK | ADMINISTER | OWN

ROLE_ACTIONS: Mapping[MemberRole, frozenset[str]] = {
    MemberRole.OWNER: ACTIONS,
    MemberRole.ADMIN: ACTIONS - OWN,
    MemberRole.MEMBER: READ | USAGE | WORK,
    MemberRole.BILLING: frozenset({"tenant.read", "instances.read"}) | USAGE,
    MemberRole.AUDITOR: READ | USAGE | AUDIT | {"api_keys.read"},
    MemberRole.READ_ONLY: READ | USAGE,
}


def role_allows(role: MemberRole, action: str) -> bool:
    """Say whether `role` may do `action`; an action that no table knows is a mistake of ours."""
    assert action in ACTIONS, action
    return action in ROLE_ACTIONS[role]


def role_includes(role: MemberRole, other: MemberRole) -> bool:
    """Say whether `role` may do all that `other` may."""
    return ROLE_ACTIONS[role] >= ROLE_ACTIONS[other]

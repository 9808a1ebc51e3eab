"""The decision: policies say who may do what where, and the most permissive one wins.

There are no denials, so another policy never takes a right away. A policy belongs to one tenant and
grants nothing anywhere else. Where a policy names no engine, instance or part of one, it means all
of them; where it does, it grants nothing on the tenant as a whole.

    Target(tenant, engine, instance, kind, name)   what is asked about; "" where it is larger
    Scope(engine, instance, kind, name)            what a policy covers; None where it means all
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from engines.kit.iam import wildcards

Catalogue = Mapping[str, frozenset[str]]
"""Role -> its actions."""


class Operator(StrEnum):
    """How a policy's value is compared, in IBM's words."""

    EQUALS = "stringEquals"
    MATCHES = "stringMatches"


@dataclass(frozen=True, slots=True)
class Match:
    """One attribute of what a policy covers."""

    value: str
    operator: Operator = Operator.EQUALS

    def covers(self, text: str) -> bool:
        """Say whether `text` is meant; "" (nothing so small is asked about) never is."""
        if not text:
            return False
        if self.operator is Operator.EQUALS:
            return self.value == text
        return wildcards.matches(self.value, text)

    def includes(self, other: Match) -> bool:
        """Say whether all that `other` means is meant."""
        if other.operator is Operator.EQUALS:
            return self.covers(other.value)
        if self.operator is Operator.EQUALS:
            return False
        return wildcards.includes(self.value, other.value)


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked about: a tenant, or an instance, or a database, collection or bucket in it."""

    tenant: str
    engine: str = ""
    instance: str = ""  # its handle
    kind: str = ""  # one of RESOURCE_KINDS of its engine
    name: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a policy covers inside its tenant."""

    engine: Match | None = None
    instance: Match | None = None
    kind: Match | None = None
    name: Match | None = None

    def covers(self, target: Target) -> bool:
        """Say whether the target is inside."""
        return (
            (self.engine is None or self.engine.covers(target.engine))
            and (self.instance is None or self.instance.covers(target.instance))
            and (self.kind is None or self.kind.covers(target.kind))
            and (self.name is None or self.name.covers(target.name))
        )

    def includes(self, other: Scope) -> bool:
        """Say whether every target that `other` covers is covered."""
        pairs = (
            (self.engine, other.engine),
            (self.instance, other.instance),
            (self.kind, other.kind),
            (self.name, other.name),
        )
        return all(
            mine is None or (theirs is not None and mine.includes(theirs)) for mine, theirs in pairs
        )


ANYWHERE = Scope()


@dataclass(frozen=True, slots=True)
class Policy:
    """Roles, single actions, or both, in one scope of one tenant."""

    tenant: str
    roles: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    scope: Scope = ANYWHERE
    policy_id: str = ""  # what the decision names as its reason


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and the first policy that gave it."""

    is_allowed: bool
    policy: Policy | None = None


DENIED = Decision(False)


def decide(
    policies: Iterable[Policy], action: str, target: Target, catalogue: Catalogue
) -> Decision:
    """Say whether one of `policies` allows `action` on `target`.

    A role that the catalogue lacks has no actions.
    """
    for policy in policies:
        if (
            policy.tenant == target.tenant
            and _has(policy, action, catalogue)
            and policy.scope.covers(target)
        ):
            return Decision(True, policy)
    return DENIED


def includes(policies: Iterable[Policy], wanted: Policy, catalogue: Catalogue) -> bool:
    """Say whether who holds `policies` may do all that `wanted` allows, everywhere it does.

    Each action must be covered by one policy. Never wrongly true; what only several policies
    together cover may be refused.
    """
    held = [
        policy
        for policy in policies
        if policy.tenant == wanted.tenant and policy.scope.includes(wanted.scope)
    ]
    return all(
        any(_has(policy, action, catalogue) for policy in held)
        for action in actions_of(wanted, catalogue)
    )


def actions_of(policy: Policy, catalogue: Catalogue) -> frozenset[str]:
    """Return all actions that a policy allows in its scope."""
    return policy.actions.union(*(catalogue.get(role, frozenset()) for role in policy.roles))


def _has(policy: Policy, action: str, catalogue: Catalogue) -> bool:
    return action in policy.actions or any(
        action in catalogue.get(role, ()) for role in policy.roles
    )

"""What a credential may do inside its instance: how it is published, and how it is decided there.

The control plane resolves a service id's policies against one instance (`scoped_grants`); what is
left is roles, actions and parts, which the instance's record carries with the credential. The data
plane compiles them once (`rights_of`) and answers from what it has compiled. Both ask `decide`.

A credential without grants has what its role gives in the whole instance. One with grants has what
these give, and never more than its role.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from engines.kit.iam.decision import Match, Operator, Policy, Scope, Target, actions_of, decide
from engines.kit.iam.vocabulary import (
    RESOURCE_KINDS,
    ROLE_ACTIONS,
    ServiceRole,
    prefix_of,
)
from engines.kit.records import Credential, Role, ScopedGrant

# What a credential's role is in the words of policies.
SERVICE_ROLES = {
    Role.READ: ServiceRole.READER,
    Role.WRITE: ServiceRole.WRITER,
    Role.ADMIN: ServiceRole.MANAGER,
}
COMPILED_MAX = 8192
ANSWERS_MAX = 1024
# A name this long is decided anew each time, lest a client fill the memory with names.
NAME_CHARACTERS_MAX = 512


def scoped_grants(policies: Iterable[Policy], target: Target) -> tuple[ScopedGrant, ...]:
    """Return what policies give inside the instance `target`, in the record's form."""
    prefix = prefix_of(target.engine)
    found = []
    for policy in policies:
        scope = policy.scope
        around = Scope(engine=scope.engine, instance=scope.instance)
        roles = sorted(policy.roles & ROLE_ACTIONS.keys())
        actions = sorted(action for action in policy.actions if action.startswith(prefix))
        if policy.tenant == target.tenant and around.covers(target) and (roles or actions):
            found.append(
                ScopedGrant(
                    tuple(roles),
                    tuple(actions),
                    kind=scope.kind.value if scope.kind else "",
                    name=scope.name.value if scope.name else "",
                    is_pattern=scope.name is not None and scope.name.operator is Operator.MATCHES,
                )
            )
    return tuple(found)


class Rights:
    """The answers for one credential, as far as they are known."""

    __slots__ = ("_answers", "_engine", "_everywhere", "_granted", "_kind", "_somewhere")

    def __init__(self, role: Role, grants: tuple[ScopedGrant, ...] | None, engine: str) -> None:
        cap = Policy("", frozenset({SERVICE_ROLES[role]}))
        self._engine = engine
        self._kind = RESOURCE_KINDS.get(engine, ("",))[0]
        self._granted = (cap,) if grants is None else tuple(map(_as_policy, grants))
        whole = Target("", engine)
        prefix = prefix_of(engine)
        mine = frozenset(a for a in actions_of(cap, ROLE_ACTIONS) if a.startswith(prefix))
        given = frozenset[str]().union(*(actions_of(p, ROLE_ACTIONS) for p in self._granted))
        self._somewhere = mine & given
        self._everywhere = frozenset(
            action
            for action in self._somewhere
            if decide(self._granted, action, whole, ROLE_ACTIONS).is_allowed
        )
        self._answers: dict[tuple[str, str, str], bool] = {}

    @property
    def is_none(self) -> bool:
        """True if there is nothing that the credential may do."""
        return not self._somewhere

    def allows(self, action: str, part: str = "", kind: str = "") -> bool:
        """Say whether `action` is allowed on a part of the instance, or on all of it ("").

        `kind` is one of RESOURCE_KINDS of the engine; "" for the first of them.
        """
        if action in self._everywhere:
            return True
        if not part or action not in self._somewhere:
            return False
        question = (action, part, kind)
        answer = self._answers.get(question)
        return self._decided(question) if answer is None else answer

    def _decided(self, question: tuple[str, str, str]) -> bool:
        action, part, kind = question
        target = Target("", self._engine, kind=kind or self._kind, name=part)
        answer = decide(self._granted, action, target, ROLE_ACTIONS).is_allowed
        if len(part) <= NAME_CHARACTERS_MAX:
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            self._answers[question] = answer
        return answer


def rights_of(credential: Credential, engine: str) -> Rights:
    """Return the compiled rights of a credential; the same object for as long as they hold."""
    # Names that were asked about are kept per credential: no tenant's questions answer another's.
    owner = "" if credential.grants is None else credential.key_id
    return _compiled(owner, credential.role, credential.grants, engine)


@lru_cache(maxsize=COMPILED_MAX)
def _compiled(
    owner: str, role: Role, grants: tuple[ScopedGrant, ...] | None, engine: str
) -> Rights:
    del owner  # only part of the key
    return Rights(role, grants, engine)


def _as_policy(grant: ScopedGrant) -> Policy:
    operator = Operator.MATCHES if grant.is_pattern else Operator.EQUALS
    scope = Scope(
        kind=Match(grant.kind) if grant.kind else None,
        name=Match(grant.name, operator) if grant.name else None,
    )
    return Policy("", frozenset(grant.roles), frozenset(grant.actions), scope)

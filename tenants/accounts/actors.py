"""Who acts: a member, an API key, or WeftKit itself, in one tenant.

Services and operations keep an actor's text, `user:<email>` or `key:<key id>`, which outlives both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from engines.kit import iam
from engines.kit.iam import Policy, Target
from tenants.accounts.models import MemberRole, Tenant
from tenants.accounts.permissions import ALL_ACTIONS, CATALOGUE, predefined
from tenants.core.errors import ForbiddenError


@dataclass(frozen=True, slots=True)
class Actor:
    """One that acts in `tenant`; `name` says who.

    `role` is a predefined policy on the whole tenant, None for who has none; `granted` are the
    policies beside it. `member_id` is the membership of a person, also behind a key of theirs.
    """

    tenant: Tenant
    role: MemberRole | None
    name: str
    granted: tuple[Policy, ...] = ()
    member_id: UUID | None = None
    policies: tuple[Policy, ...] = field(init=False)

    def __post_init__(self) -> None:
        own = () if self.role is None else (predefined(self.role, str(self.tenant.pk)),)
        object.__setattr__(self, "policies", own + self.granted)

    def target(self, *, engine: str = "", instance: str = "") -> Target:
        """Return the tenant, or one of its instances, as what a decision is about."""
        return Target(str(self.tenant.pk), engine, instance)

    def may(self, action: str, target: Target | None = None) -> bool:
        """Say whether `action` is allowed, on `target` or on the tenant as a whole."""
        assert action in ALL_ACTIONS, action
        wanted = target or self.target()
        return iam.decide(self.policies, action, wanted, CATALOGUE).is_allowed

    def demand(self, action: str, target: Target | None = None) -> None:
        """Refuse unless `action` is allowed, on `target` or on the tenant as a whole."""
        if not self.may(action, target):
            raise ForbiddenError(f"{self._title} does not allow {action}", extra={"action": action})

    def may_somewhere(self, action: str) -> bool:
        """Say whether `action` is allowed on anything at all."""
        return any(action in iam.actions_of(policy, CATALOGUE) for policy in self.policies)

    def may_grant(self, wanted: Policy) -> bool:
        """Say whether the actor holds all that `wanted` would allow."""
        return iam.includes(self.policies, wanted, CATALOGUE)

    def demand_may_grant(self, role: MemberRole) -> None:
        """Refuse unless the actor holds all of a member's role on the whole tenant."""
        if not self.may_grant(predefined(role, str(self.tenant.pk))):
            raise ForbiddenError(f"{self._title} cannot give, mint or take {role.value}")

    @property
    def _title(self) -> str:
        return "this identity" if self.role is None else f"the role {self.role.value}"


SYSTEM = "system"

"""Who acts: a member, an API key, or WeftKit itself, in one tenant.

Services and operations keep an actor's text, `user:<email>` or `key:<key id>`, which outlives both.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenants.accounts.models import MemberRole, Tenant
from tenants.accounts.permissions import role_allows
from tenants.core.errors import ForbiddenError


@dataclass(frozen=True, slots=True)
class Actor:
    """One that acts in `tenant` with `role`; `name` says who."""

    tenant: Tenant
    role: MemberRole
    name: str

    def demand(self, action: str) -> None:
        """Refuse unless the role allows `action`."""
        if not role_allows(self.role, action):
            raise ForbiddenError(
                f"the role {self.role.value} does not allow {action}", extra={"action": action}
            )


SYSTEM = "system"

"""The pages that are looked at: by axe-core, for their width, and for screenshots. Add yours.

An address is below `/t/acme/`; `{instance}` is the handle of a relational instance in service,
`{cache}` of an inmemory one. `seed` is called once before, for what must be there to be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tenants.accounts.models import MemberRole
from tenants.iam.models import ServiceId
from tenants.iam.policies import Subject, policy_create
from tenants.iam.service_ids import service_id_create
from tenants.iam.services import api_key_create
from tests.tenants.cast import Cast

Seed = Callable[[Cast], None]


def nothing(cast: Cast) -> None:
    """Seed nothing more."""


def bob_reads_only(cast: Cast) -> None:
    """Take from Bob what lets him create."""
    cast.bob.memberships.update(role="read-only")


def iam(cast: Cast) -> None:
    """Seed a service id with a policy and a key, once."""
    if ServiceId.objects.filter(tenant=cast.acme).exists():
        return
    service = service_id_create(actor=cast.owner, name="orders-app", description="The web shop")
    policy_create(
        actor=cast.owner,
        subject=Subject(service=service),
        roles=["Viewer", "Writer"],
        scope={"instance": {"operator": "stringMatches", "value": "acme-*"}},
    )
    api_key_create(actor=cast.owner, name="orders-app", service=service, environment="prod")
    api_key_create(actor=cast.owner, name="deploy", role=MemberRole.MEMBER)


@dataclass(frozen=True, slots=True)
class Look:
    """One page. `person` names who of the cast looks at it; `status` is what it answers."""

    name: str
    address: str
    person: str = "alice"
    status: int = 200
    seed: Seed = nothing
    tenant: str = "acme"

    def __str__(self) -> str:
        return self.name


PAGES = [
    Look("overview", ""),
    Look("overview-first-run", "", person="charlie", tenant="globex"),
    Look("instances", "instances"),
    Look("instances-empty", "instances", person="charlie", tenant="globex"),
    Look("instance-new", "instances/new"),
    Look("instance-connect", "instances/{instance}"),
    Look("instance-connect-inmemory", "instances/{cache}"),
    Look("instance-metrics", "instances/{instance}/metrics"),
    Look("instance-credentials", "instances/{instance}/credentials"),
    Look("instance-credentials-empty", "instances/{cache}/credentials"),
    Look("instance-operations", "instances/{instance}/operations"),
    Look("instance-settings", "instances/{instance}/settings"),
    Look("operations", "operations"),
    Look("operations-empty", "operations", person="charlie", tenant="globex"),
    Look("iam", "iam", seed=iam),
    Look("iam-check", "iam/check?action=weftkit.relational.data.read", seed=iam),
    Look("iam-keys", "iam/keys", seed=iam),
    Look("iam-policies", "iam/policies", seed=iam),
    Look("iam-policy-new", "iam/policies/new"),
    Look("iam-refused", "iam", person="bob", status=403),
    Look("my-keys", "my-keys", person="bob"),
    Look("not-found", "nowhere", status=404),
    Look("forbidden", "instances/new", person="bob", status=403, seed=bob_reads_only),
]

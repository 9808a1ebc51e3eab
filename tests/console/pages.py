"""The pages that are looked at: by axe-core, for their width, and for screenshots. Add yours.

An address is below `/t/acme/`; `{instance}` is the handle of a relational instance in service,
`{cache}` of an inmemory one, `{items}` of a keyvalue one. `seed` is called once before, for what
must be there to be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from django.utils import timezone

from tenants.accounts.invitations import invitation_create
from tenants.accounts.models import Invitation, MemberRole
from tenants.audit.chain import chains_link
from tenants.audit.models import AuditDrain
from tenants.audit.services import audit_write
from tenants.billing.budgets import budget_create
from tenants.billing.models import Budget
from tenants.iam.models import ServiceId
from tenants.iam.policies import Subject, policy_create
from tenants.iam.service_ids import service_id_create
from tenants.iam.services import api_key_create
from tenants.instances.models import Instance
from tenants.webhooks.models import WebhookAttempt, WebhookEndpoint
from tenants.webhooks.services import endpoint_create, endpoint_test
from tests.tenants.cast import Cast
from tests.tenants.host_part import ready_backup
from tests.tenants.months import NOVEMBER, OCTOBER, finalised, instance_since, used

Seed = Callable[[Cast], None]
WEBHOOK = UUID(int=7)
INVOICE = UUID(int=8)
BUDGET = UUID(int=9)


def nothing(cast: Cast) -> None:
    """Seed nothing more."""


def bob_reads_only(cast: Cast) -> None:
    """Take from Bob what lets him create."""
    cast.bob.memberships.update(role="read-only")


def audit(cast: Cast) -> None:
    """Seed events of each kind and a drain that has failed, once."""
    if AuditDrain.objects.filter(tenant=cast.acme).exists():
        return
    wanted = [
        ("weftkit.instance.create", "instances/acme-shop", "success", 202),
        ("weftkit.credential.create", "instances/acme-shop/credentials/1", "success", 201),
        ("weftkit.instance.delete", "instances/acme-shop", "failure", 403),
        ("weftkit.session.start", "console", "failure", 401),
    ]
    for action, target, outcome, code in wanted:
        audit_write(
            tenant_id=cast.acme.pk, action=action, initiator="user:alice@example.org",
            target=target, outcome=outcome, reason_code=code, address="192.0.2.7",
        )  # fmt: skip
    AuditDrain.objects.create(
        tenant=cast.acme, name="siem", kind="webhook", created_by="user:alice@example.org",
        config={"url": "https://siem.example.org/weftkit"}, failures=3, last_error="answered 503",
    )  # fmt: skip
    chains_link()


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


def backup(cast: Cast) -> None:
    """Seed a backup of the inmemory instance, once."""
    cache = Instance.objects.get(handle="acme-cache")
    if not cache.backups.exists():
        ready_backup(cache)


def bills(cast: Cast) -> None:
    """Seed an invoice of a month that had usage, and a budget that is nearly used up, once."""
    if Budget.objects.filter(tenant=cast.acme).exists():
        return
    used(instance_since(cast.acme, OCTOBER, "unmetered"), OCTOBER, read_units=9_000_000)
    invoice = finalised(cast.acme, NOVEMBER)
    lines = list(invoice.lines.all())
    invoice.delete()
    invoice.pk = INVOICE
    invoice.save(force_insert=True)
    for line in lines:
        line.invoice = invoice
        line.save(force_insert=True)
    budget = budget_create(tenant=cast.acme, actor="test", name="all of it", amount_micros=10**9)
    Budget.objects.filter(pk=budget.pk).update(id=BUDGET)
    Budget.objects.filter(pk=BUDGET).update(
        spent_micros=850_000_000, forecast_micros=1_200_000_000, looked_at=timezone.now()
    )


def people(cast: Cast) -> None:
    """Seed an open invitation, once."""
    if not Invitation.objects.filter(tenant=cast.acme).exists():
        invitation_create(actor=cast.owner, email="erin@example.org", role=MemberRole.MEMBER)


def webhooks(cast: Cast) -> None:
    """Seed a webhook with a delivery that failed once, once."""
    if WebhookEndpoint.objects.filter(pk=WEBHOOK).exists():
        return
    made, _ = endpoint_create(tenant=cast.acme, actor="test", url="https://hooks.example.org/x")
    made.pk, made.failing_since = WEBHOOK, timezone.now()
    made.save(force_insert=True)
    WebhookEndpoint.objects.exclude(pk=WEBHOOK).delete()
    delivery = endpoint_test(endpoint=made)
    WebhookAttempt.objects.create(
        delivery=delivery, status=500, error="answered 500", duration_ms=12, response_excerpt="oops"
    )


@dataclass(frozen=True, slots=True)
class Look:
    """One page. `person` is who of the cast looks at it, or `nobody`; `status` what it answers."""

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
    Look("instance-backups", "instances/{cache}/backups", seed=backup),
    Look("instance-backups-empty", "instances/{instance}/backups"),
    Look("instance-restore", "instances/{cache}/restore", seed=backup),
    Look("instance-credentials", "instances/{instance}/credentials"),
    Look("instance-credentials-empty", "instances/{cache}/credentials"),
    Look("instance-keyvalue", "instances/{items}"),
    Look("instance-keyvalue-backups", "instances/{items}/backups"),
    Look("instance-keyvalue-credentials", "instances/{items}/credentials"),
    Look("instance-keyvalue-metrics", "instances/{items}/metrics"),
    Look("instance-keyvalue-settings", "instances/{items}/settings"),
    Look("instance-operations", "instances/{instance}/operations"),
    Look("instance-settings", "instances/{instance}/settings"),
    Look("operations", "operations"),
    Look("operations-empty", "operations", person="charlie", tenant="globex"),
    Look("audit", "audit", seed=audit),
    Look("audit-data", "audit/data-events"),
    Look("audit-drains", "audit/drains", seed=audit),
    Look("audit-integrity", "audit/integrity", seed=audit),
    Look("audit-nothing-found", "audit?actor=user:nobody"),
    Look("audit-refused", "audit", person="bob", status=403),
    Look("billing", "billing", seed=bills),
    Look("billing-nothing", "billing", person="charlie", tenant="globex"),
    Look("billing-budget", f"billing/budgets/{BUDGET}", seed=bills),
    Look("billing-budgets", "billing/budgets", seed=bills),
    Look("billing-budgets-empty", "billing/budgets", person="charlie", tenant="globex"),
    Look("billing-invoice", f"billing/invoices/{INVOICE}", seed=bills),
    Look("billing-invoices", "billing/invoices", seed=bills),
    Look("billing-refused", "billing", person="bob", status=403),
    Look("billing-usage", "billing/usage", seed=bills),
    Look("iam", "iam", seed=iam),
    Look("iam-check", "iam/check?action=weftkit.relational.data.read", seed=iam),
    Look("iam-keys", "iam/keys", seed=iam),
    Look("iam-policies", "iam/policies", seed=iam),
    Look("iam-policy-new", "iam/policies/new"),
    Look("iam-refused", "iam", person="bob", status=403),
    Look("my-keys", "my-keys", person="bob"),
    Look("members", "members", seed=people),
    Look("members-plain", "members", person="bob", seed=people),
    Look("tenant-settings", "settings"),
    Look("webhooks", "webhooks", seed=webhooks),
    Look("webhooks-empty", "webhooks", person="charlie", tenant="globex"),
    Look("webhook", f"webhooks/{WEBHOOK}", seed=webhooks),
    Look("account", "../../account"),
    Look("account-email", "../../account/email"),
    Look("account-password", "../../account/password"),
    Look("account-second-factors", "../../account/second-factors"),
    Look("account-sessions", "../../account/sessions"),
    Look("sign-in", "../../sign-in", person="nobody"),
    Look("sign-up", "../../sign-up", person="nobody"),
    Look("password-reset", "../../password/reset", person="nobody"),
    Look("not-found", "nowhere", status=404),
    Look("forbidden", "instances/new", person="bob", status=403, seed=bob_reads_only),
]

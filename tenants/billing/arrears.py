"""Writes: overdue invoices, and what comes of them: after a grace the tenant's data stop to grow.

Nobody who is in arrears is cut off: reading, deleting and scaling down go on. A payment lifts it in
its own transaction: the data plane follows as quickly as it follows a change of plan.
"""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from engines.kit.records import GrowthRefusal
from tenants.accounts.models import Tenant
from tenants.billing.accounts import account_lock
from tenants.billing.models import BillingAccount, Collection, Invoice, InvoiceState
from tenants.billing.money import CENT, decimal_text
from tenants.billing.notices import notice_write, notices_resolve
from tenants.instances.models import Instance, InstanceStatus
from tenants.publish.services import record_publish

# Records that do not say what the account says: an instance was made at the very moment.
STRAYS = """
SELECT instance.id FROM instances_instance AS instance
JOIN publish.record AS record ON record.instance_id = instance.id
LEFT JOIN billing_billingaccount AS account ON account.tenant_id = instance.tenant_id
WHERE (record.body->>'growth_refused' IS NOT DISTINCT FROM %(arrears)s)
    <> (account.arrears_since IS NOT NULL)
"""


def overdue_follow(*, now: datetime | None = None) -> int:
    """Mark invoices that are past their time, and follow them up; return how many tenants."""
    moment = now or timezone.now()
    due = Invoice.objects.filter(state=InvoiceState.FINAL, due_at__lte=moment)
    overdue = Invoice.objects.filter(state=InvoiceState.OVERDUE)
    tenants = set(due.values_list("tenant_id", flat=True)) | set(
        overdue.filter(tenant__billing_account__arrears_since=None).values_list(
            "tenant_id", flat=True
        )
    )
    for tenant_id in sorted(tenants):
        _follow(Tenant.objects.get(pk=tenant_id), moment)
    _publish_strays()
    return len(tenants)


@transaction.atomic
def collection_set(*, tenant: Tenant, collection: Collection) -> BillingAccount:
    """Say whether the tenant pays, or is only shown what it costs, which ends its arrears."""
    account = account_lock(tenant=tenant)
    account.collection = collection
    account.save(update_fields=["collection", "updated_at"])
    arrears_follow(account=account, now=timezone.now())
    return account


@transaction.atomic
def _follow(tenant: Tenant, now: datetime) -> None:
    account = account_lock(tenant=tenant)
    due = Invoice.objects.select_for_update().filter(
        tenant=tenant, state=InvoiceState.FINAL, due_at__lte=now
    )
    for invoice in due.order_by("period_start"):
        invoice.state = InvoiceState.OVERDUE
        invoice.overdue_at = now
        invoice.save(update_fields=["state", "overdue_at", "updated_at"])
        notice_write(
            tenant_id=tenant.pk,
            kind="invoice.overdue",
            subject_id=invoice.pk,
            title=f"Invoice {invoice.number} is overdue",
            text=f"{decimal_text(invoice.due_micros, 2)} {invoice.currency} of the invoice "
            f"{invoice.number} were due on {invoice.due_at:%d %B %Y}. After "
            f"{settings.ARREARS_GRACE.days} days what grows your data is refused.",
            data={"invoice": invoice.number, "invoice_id": str(invoice.pk)},
        )
    arrears_follow(account=account, now=now)


def arrears_follow(*, account: BillingAccount, now: datetime) -> None:
    """Begin or end the arrears of a locked account, as its invoices say."""
    in_arrears = account.collection == Collection.INVOICE and any(
        invoice.due_micros >= CENT
        for invoice in Invoice.objects.filter(
            tenant_id=account.tenant_id,
            state=InvoiceState.OVERDUE,
            overdue_at__lte=now - settings.ARREARS_GRACE,
        )
    )
    if in_arrears == (account.arrears_since is not None):
        return
    account.arrears_since = now if in_arrears else None
    account.save(update_fields=["arrears_since", "updated_at"])
    if in_arrears:
        notice_write(
            tenant_id=account.tenant_id,
            kind="arrears.began",
            title="Your account is in arrears",
            text="Until the overdue invoices are paid, what grows your data is refused. "
            "Reading and deleting go on.",
            data={"state": "began"},
        )
    else:
        notices_resolve(tenant_id=account.tenant_id, kinds=("arrears.began",))
        notice_write(
            tenant_id=account.tenant_id,
            kind="arrears.ended",
            title="Your account is in good standing again",
            text="Your data may grow again.",
            data={"state": "ended"},
            is_open=False,
        )
    living = Instance.objects.filter(tenant_id=account.tenant_id).exclude(
        status=InstanceStatus.PURGED
    )
    for instance in living.order_by("id"):
        record_publish(instance=instance)


def _publish_strays() -> None:
    with connection.cursor() as cursor:
        cursor.execute(STRAYS, {"arrears": GrowthRefusal.ARREARS.value})
        strays = [row[0] for row in cursor.fetchall()]
    for instance_id in strays:
        with transaction.atomic():
            instance = Instance.objects.select_for_update().get(pk=instance_id)
            if instance.status != InstanceStatus.PURGED:
                record_publish(instance=instance)

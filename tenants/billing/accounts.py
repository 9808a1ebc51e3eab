"""Writes: a tenant's billing account, made when it is first needed, locked before money moves.

Lock order: account, then invoice rows, then sequences; instances after the account.
"""

from __future__ import annotations

from django.conf import settings
from django.db import connection

from tenants.accounts.models import Tenant
from tenants.billing.models import BillingAccount, Collection
from tenants.billing.months import month_start

NEXT = """
INSERT INTO billing_billingsequence (name, value) VALUES (%s, 1)
ON CONFLICT (name) DO UPDATE SET value = billing_billingsequence.value + 1 RETURNING value
"""


def account_of(*, tenant: Tenant) -> BillingAccount:
    """Return the tenant's account; make it if there is none."""
    account, _ = BillingAccount.objects.get_or_create(
        tenant=tenant,
        defaults={
            "collection": Collection(settings.BILLING_COLLECTION),
            "billed_until": month_start(tenant.created_at),
        },
    )
    return account


def account_lock(*, tenant: Tenant) -> BillingAccount:
    """Return the tenant's account with its row locked."""
    assert connection.in_atomic_block
    account_of(tenant=tenant)
    return BillingAccount.objects.select_for_update().get(tenant=tenant)


def sequence_next(*, name: str) -> int:
    """Return the next number of a sequence without gaps; others wait for this transaction."""
    assert connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute(NEXT, [name])
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])

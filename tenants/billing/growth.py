"""Reads: whether an instance's data may grow; what its record tells the data plane.

No more than models, so that `publish` can ask.
"""

from __future__ import annotations

from engines.kit.records import GrowthRefusal
from tenants.accounts.models import Tenant
from tenants.billing.models import BillingAccount, QuotaState
from tenants.core.errors import PaymentRequiredError
from tenants.instances.models import Instance


def growth_refusal(*, instance: Instance) -> GrowthRefusal | None:
    """Return why the instance may not grow, None if it may."""
    if is_in_arrears(tenant=instance.tenant):
        return GrowthRefusal.ARREARS
    full = QuotaState.objects.filter(instance_id=instance.pk, refused_since__isnull=False)
    return GrowthRefusal.STORAGE if full.exists() else None


def is_in_arrears(*, tenant: Tenant) -> bool:
    """Say whether the tenant has not paid for so long that nothing of it may grow."""
    return BillingAccount.objects.filter(tenant=tenant, arrears_since__isnull=False).exists()


def arrears_refuse(*, tenant: Tenant) -> None:
    """Refuse what would cost more while the tenant is in arrears."""
    if is_in_arrears(tenant=tenant):
        raise PaymentRequiredError(
            "the account is in arrears: pay the overdue invoices first", code="arrears"
        )


def growth_demand(*, instance: Instance) -> None:
    """Refuse what would grow the instance's data where the data plane would refuse it too."""
    match growth_refusal(instance=instance):
        case GrowthRefusal.ARREARS:
            arrears_refuse(tenant=instance.tenant)
        case GrowthRefusal.STORAGE:
            raise PaymentRequiredError(
                "the storage quota is used up: delete data, or choose a plan with more storage",
                code="storage_quota",
            )
        case None:
            pass

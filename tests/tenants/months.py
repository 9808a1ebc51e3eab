"""Tenants and instances that are there since some month, what they used, and their invoices."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.billing.invoices import month_close
from tenants.billing.models import Invoice
from tenants.instances.models import Instance
from tenants.usage.models import PlanTerm, UsageHour
from tests.tenants.cast import Cast, serving_instance

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
JANUARY = datetime(2027, 1, 1, tzinfo=UTC)
LATE_ENOUGH = timedelta(hours=49)


def since(tenant: Tenant, moment: datetime) -> Tenant:
    """Make the tenant that old."""
    Tenant.objects.filter(pk=tenant.pk).update(created_at=moment)
    tenant.refresh_from_db()
    return tenant


def instance_since(
    tenant: Tenant, moment: datetime, plan: str, blocks: int = 1, **fields: object
) -> Instance:
    """Make an instance that is in service since then. Needs `OPERATION_WAIT_IN_TASK_S = 0`."""
    since(tenant, moment)
    name = f"i{uuid.uuid4().hex[:8]}"
    instance = serving_instance(tenant, name, plan=plan, blocks=blocks, **fields)
    PlanTerm.objects.filter(instance_id=instance.pk).update(started_at=moment)
    return instance


def used(instance: Instance, hour: datetime, **figures: int) -> None:
    """Have an instance use something in an hour, as a roll-up leaves it."""
    row, _ = UsageHour.objects.get_or_create(instance_id=instance.pk, hour=hour)
    for name, value in figures.items():
        setattr(row, name, (getattr(row, name) or 0) + value)
    row.updated_at = timezone.now()
    row.save()


def finalised(tenant: Tenant, stop: datetime) -> Invoice:
    """Return the tenant's final invoice of the month that ends then."""
    while month_close(tenant=tenant, now=stop + LATE_ENOUGH):
        pass
    return Invoice.objects.get(tenant=tenant, period_stop=stop)


def owing(cast: Cast, units: int = 8_000_000) -> Invoice:
    """Return acme's final invoice of October over two dollars."""
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    used(instance, OCTOBER, read_units=units)
    return finalised(cast.acme, NOVEMBER)

"""Reads: the lines that an invoice of a month has, as things stand now."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db.models import Sum

from tenants.billing.measuring import has_changed, late_months, measure
from tenants.billing.models import BillingAccount, InvoiceLine, InvoiceState
from tenants.billing.months import month_after, month_before
from tenants.billing.rating import Billed, Key, Rated, late, rate
from tenants.billing.selectors import price_segments, tariffs_of
from tenants.instances.models import Instance

# For so many invoiced months every change is looked for. Of those before only counted usage can
# come in late, and its coming in is noted.
RECENT_MONTHS = 3


def rated(*, tenant_id: UUID, start: datetime, stop: datetime, until: datetime) -> list[Rated]:
    """Rate what was used in [start, stop), up to `until`, by the price lists of that time."""
    lines: list[Rated] = []
    for price_list, first, last in price_segments(start=start, stop=stop):
        measured = measure(
            tenant_id=tenant_id, price_list_id=price_list.pk, start=first, stop=last, until=until
        )
        lines += rate(measured, tariffs_of(price_list=price_list), price_list.version)
    return lines


def rated_with_late(
    *, account: BillingAccount, start: datetime, stop: datetime, until: datetime
) -> list[Rated]:
    """Rate a month, and what of the invoiced months before is not on their invoices."""
    tenant_id = account.tenant_id
    lines = rated(tenant_id=tenant_id, start=start, stop=stop, until=until)
    changed, last = [], start
    for _ in range(RECENT_MONTHS):
        first = month_before(last)
        if has_changed(tenant_id=tenant_id, start=first, stop=last):
            changed.append(first)
        last = first
    for first in [*changed, *late_months(tenant_id=tenant_id, before=last)]:
        end = month_after(first)
        if end <= account.billed_until:
            whole = rated(tenant_id=tenant_id, start=first, stop=end, until=end)
            lines += late(whole, billed(tenant_id=tenant_id, start=first, stop=end))
    return lines


def billed(*, tenant_id: UUID, start: datetime, stop: datetime) -> dict[Key, Billed]:
    """Return what final invoices of whatever month have of the usage of [start, stop)."""
    rows = (
        InvoiceLine.objects.filter(invoice__tenant_id=tenant_id, start__gte=start, start__lt=stop)
        .exclude(invoice__state=InvoiceState.DRAFT)
        .values_list("instance_id", "plan", "meter", "start")
        .annotate(Sum("quantity"), Sum("billable_quantity"), Sum("amount_micros"))
        .order_by()
    )
    return {
        Key(instance_id, plan, meter, begun): Billed(int(quantity), int(billable), int(amount))
        for instance_id, plan, meter, begun, quantity, billable, amount in rows
    }


def lines_of(*, tenant_id: UUID, lines: Iterable[Rated]) -> list[InvoiceLine]:
    """Return unsaved invoice lines, which keep what the instances are called now."""
    instances = {row.pk: row for row in Instance.objects.filter(tenant_id=tenant_id)}
    return [
        InvoiceLine(
            instance_id=line.measured.instance_id,
            instance=instances[line.measured.instance_id].handle,
            engine=instances[line.measured.instance_id].engine,
            region=instances[line.measured.instance_id].region,
            tags=instances[line.measured.instance_id].tags,
            plan=line.measured.plan,
            meter=line.measured.meter,
            unit=line.tariff.unit,
            price_list=line.price_list,
            micros=line.tariff.micros,
            per=line.tariff.per,
            start=line.measured.start,
            stop=line.measured.stop,
            quantity=line.measured.quantity,
            billable_quantity=line.measured.billable_quantity,
            amount_micros=line.amount_micros,
            is_late=line.is_late,
        )
        for line in sorted(lines, key=_order)
    ]


def _order(line: Rated) -> tuple[bool, datetime, str, str, str]:
    key = line.measured
    return (line.is_late, key.start, str(key.instance_id), key.plan, key.meter)

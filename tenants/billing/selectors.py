"""Reads: prices in force, a tenant's account, its invoices, its notices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.billing.models import (
    BillingAccount,
    CreditNote,
    Invoice,
    InvoiceLine,
    InvoiceState,
    Notice,
    Payment,
    Price,
    PriceList,
)
from tenants.billing.rating import Tariff
from tenants.core.errors import NotFoundError


def price_list_list() -> QuerySet[PriceList]:
    """Return all price lists with their prices."""
    return PriceList.objects.prefetch_related("prices")


def price_list_at(*, moment: datetime | None = None) -> PriceList | None:
    """Return the list that is in force at `moment`, now by default."""
    lists = PriceList.objects.filter(valid_from__lte=moment or timezone.now())
    return lists.order_by("-valid_from").first()


def price_segments(
    *, start: datetime, stop: datetime
) -> list[tuple[PriceList, datetime, datetime]]:
    """Return [start, stop) cut where price lists change; what is before the first has no price."""
    lists = list(PriceList.objects.filter(valid_from__lt=stop).order_by("valid_from"))
    ends = [each.valid_from for each in lists[1:]] + [stop]
    return [
        (each, max(each.valid_from, start), end)
        for each, end in zip(lists, ends, strict=True)
        if end > start
    ]


def tariffs_of(*, price_list: PriceList) -> dict[tuple[str, str], Tariff]:
    """Return (plan, meter) -> tariff."""
    return {
        (price.plan, price.meter): Tariff(
            price.plan, price.meter, price.unit, price.micros, price.per, price.included
        )
        for price in price_list.prices.order_by("plan", "meter")
    }


def prices_by_plan() -> Mapping[str, list[Price]]:
    """Return the prices in force, plan -> its prices."""
    current = price_list_at()
    found: dict[str, list[Price]] = {}
    for price in Price.objects.filter(price_list=current).order_by("plan", "meter"):
        found.setdefault(price.plan, []).append(price)
    return found


def currency_now() -> str:
    """Return the currency of the installation, "" before the first price list."""
    current = price_list_at()
    return current.currency if current else ""


def account_find(*, tenant: Tenant) -> BillingAccount | None:
    """Return the tenant's account; None until something was done with it."""
    return BillingAccount.objects.filter(tenant=tenant).first()


def invoice_list(*, tenant: Tenant) -> QuerySet[Invoice]:
    """Return the tenant's invoices, drafts included."""
    return Invoice.objects.filter(tenant=tenant)


def invoice_get(*, tenant: Tenant, invoice_id: UUID) -> Invoice:
    """Return one invoice of `tenant`."""
    found = invoice_list(tenant=tenant).filter(pk=invoice_id).first()
    if found is None:
        raise NotFoundError("there is no such invoice")
    return found


def invoice_lines(*, invoice: Invoice) -> QuerySet[InvoiceLine]:
    """Return the lines of an invoice, by instance."""
    return invoice.lines.order_by("instance", "plan", "is_late", "meter", "start")


def invoice_open_list(*, tenant: Tenant) -> QuerySet[Invoice]:
    """Return what is to be paid, oldest first."""
    states = [InvoiceState.FINAL, InvoiceState.OVERDUE]
    return invoice_list(tenant=tenant).filter(state__in=states).order_by("period_start")


def payment_list(*, invoice: Invoice) -> QuerySet[Payment]:
    """Return what came in for an invoice."""
    return invoice.payments.order_by("id")


def credit_note_list(*, invoice: Invoice) -> QuerySet[CreditNote]:
    """Return what was taken back of an invoice."""
    return invoice.credit_notes.order_by("id")


def notice_list(*, tenant: Tenant, only_open: bool = False) -> QuerySet[Notice]:
    """Return what the tenant was told; those that still hold with `only_open`."""
    notices = Notice.objects.filter(tenant=tenant)
    return notices.filter(resolved_at=None) if only_open else notices

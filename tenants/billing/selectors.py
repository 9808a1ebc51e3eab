"""Reads: prices in force, a tenant's account, its invoices, its notices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.billing.models import (
    BillingAccount,
    Budget,
    BudgetScope,
    Collection,
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
from tenants.instances.models import Instance


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


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands: `good`, `overdue` or `arrears`, and what is open."""

    name: str
    collection: str
    credit_micros: int
    due_micros: int


def standing_of(*, tenant: Tenant) -> Standing:
    """Return how the tenant stands, also one that has no account yet."""
    account = account_find(tenant=tenant)
    invoices = list(invoice_open_list(tenant=tenant))
    name = "overdue" if any(i.state == InvoiceState.OVERDUE for i in invoices) else "good"
    is_internal = account is not None and account.collection == Collection.INTERNAL
    return Standing(
        name="arrears" if account is not None and account.arrears_since else name,
        collection=account.collection if account else str(settings.BILLING_COLLECTION),
        credit_micros=account.credit_micros if account else 0,
        due_micros=0 if is_internal else sum(invoice.due_micros for invoice in invoices),
    )


def invoice_list(*, tenant: Tenant) -> QuerySet[Invoice]:
    """Return the tenant's invoices, drafts included."""
    return Invoice.objects.filter(tenant=tenant)


def invoice_get(*, tenant: Tenant, invoice_id: UUID) -> Invoice:
    """Return one invoice of `tenant`."""
    found = invoice_list(tenant=tenant).filter(pk=invoice_id).first()
    if found is None:
        raise NotFoundError("there is no such invoice")
    return found


def invoice_any(*, invoice_id: UUID) -> Invoice | None:
    """Return an invoice of whatever tenant, for the platform's staff."""
    return Invoice.objects.select_related("tenant").filter(pk=invoice_id).first()


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


def budget_list(*, tenant: Tenant) -> QuerySet[Budget]:
    """Return the tenant's budgets."""
    return Budget.objects.filter(tenant=tenant)


def budget_get(*, tenant: Tenant, budget_id: UUID) -> Budget:
    """Return one budget of `tenant`."""
    found = budget_list(tenant=tenant).filter(pk=budget_id).first()
    if found is None:
        raise NotFoundError("there is no such budget")
    return found


def budget_instances(*, budget: Budget) -> set[UUID] | None:
    """Return the instances that a budget is about, None for all of its tenant."""
    match BudgetScope(budget.scope):
        case BudgetScope.TENANT:
            return None
        case BudgetScope.INSTANCE:
            assert budget.instance_id is not None
            return {budget.instance_id}
        case BudgetScope.TAG:
            tagged = Instance.objects.filter(
                tenant_id=budget.tenant_id, tags__contains={budget.tag_key: budget.tag_value}
            )
            return set(tagged.values_list("pk", flat=True))


def notice_list(*, tenant: Tenant, only_open: bool = False) -> QuerySet[Notice]:
    """Return what the tenant was told; those that still hold with `only_open`."""
    notices = Notice.objects.filter(tenant=tenant)
    return notices.filter(resolved_at=None) if only_open else notices

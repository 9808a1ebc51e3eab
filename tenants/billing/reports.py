"""Reads: lines as CSV: an invoice's own, and a cost report in the columns of FOCUS 1.0.

FOCUS (the FinOps Foundation's specification of cost data) names and orders columns; one row is one
line. A row of the running month has no invoice yet; late usage is a correction of its own month.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.billing.models import CreditNote, Invoice, InvoiceLine, InvoiceState, Meter
from tenants.billing.money import decimal_text, quantity_text, unit_price_text
from tenants.billing.months import month_start
from tenants.billing.selectors import invoice_lines
from tenants.billing.spend import preview

PROVIDER = "WeftKit"
# What begins so is a formula to a spreadsheet.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
CONSUMED_UNITS: Mapping[str, str] = {
    Meter.CAPACITY: "Block-Seconds",
    Meter.STORAGE: "Byte-Hours",
    Meter.MEMORY: "Byte-Hours",
    Meter.BACKUP: "Byte-Hours",
    Meter.READ_UNITS: "Units",
    Meter.WRITE_UNITS: "Units",
    Meter.QUERY_UNITS: "Units",
    Meter.BYTES_OUT: "Bytes",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line in its invoice and tenant."""

    tenant: Tenant
    line: InvoiceLine
    invoice_number: str
    currency: str
    month_start: datetime
    month_stop: datetime


Column = Callable[[Row], str]

INVOICE_COLUMNS: Mapping[str, Column] = {
    "instance": lambda row: row.line.instance,
    "engine": lambda row: row.line.engine,
    "plan": lambda row: row.line.plan,
    "meter": lambda row: row.line.meter,
    "from": lambda row: _time(row.line.start),
    "until": lambda row: _time(row.line.stop),
    "late": lambda row: "yes" if row.line.is_late else "no",
    "quantity": lambda row: str(int(row.line.quantity)),
    "billable_quantity": lambda row: str(int(row.line.billable_quantity)),
    "unit": lambda row: row.line.unit,
    "billable_units": lambda row: quantity_text(int(row.line.billable_quantity), row.line.per),
    "price_per_unit": lambda row: decimal_text(row.line.micros),
    "amount": lambda row: decimal_text(row.line.amount_micros),
    "currency": lambda row: row.currency,
    "tags": lambda row: json.dumps(row.line.tags, sort_keys=True),
}


def _amount(row: Row) -> str:
    return decimal_text(row.line.amount_micros)


def _unit_price(row: Row) -> str:
    return unit_price_text(row.line.micros, row.line.per, row.line.per)


FOCUS_COLUMNS: Mapping[str, Column] = {
    "BilledCost": _amount,
    "BillingAccountId": lambda row: str(row.tenant.pk),
    "BillingAccountName": lambda row: _safe(row.tenant.name),
    "BillingCurrency": lambda row: row.currency,
    "BillingPeriodEnd": lambda row: _time(row.month_stop),
    "BillingPeriodStart": lambda row: _time(row.month_start),
    "ChargeCategory": lambda row: "Usage",
    "ChargeClass": lambda row: "Correction" if row.line.is_late else "",
    "ChargeDescription": lambda row: f"{row.line.meter} of {row.line.instance} ({row.line.plan})",
    "ChargeFrequency": lambda row: "Usage-Based",
    "ChargePeriodEnd": lambda row: _time(row.line.stop),
    "ChargePeriodStart": lambda row: _time(row.line.start),
    "ConsumedQuantity": lambda row: str(int(row.line.quantity)),
    "ConsumedUnit": lambda row: CONSUMED_UNITS[row.line.meter],
    "ContractedCost": _amount,
    "ContractedUnitPrice": _unit_price,
    "EffectiveCost": _amount,
    "InvoiceId": lambda row: row.invoice_number,
    "InvoiceIssuerName": lambda row: PROVIDER,
    "ListCost": _amount,
    "ListUnitPrice": _unit_price,
    "PricingCategory": lambda row: "Standard",
    "PricingQuantity": lambda row: quantity_text(int(row.line.billable_quantity), row.line.per),
    "PricingUnit": lambda row: row.line.unit,
    "ProviderName": lambda row: PROVIDER,
    "PublisherName": lambda row: PROVIDER,
    "RegionId": lambda row: row.line.region,
    "RegionName": lambda row: row.line.region,
    "ResourceId": lambda row: str(row.line.instance_id),
    "ResourceName": lambda row: row.line.instance,
    "ResourceType": lambda row: "Instance",
    "ServiceCategory": lambda row: "Databases",
    "ServiceName": lambda row: f"{PROVIDER} {row.line.engine}",
    "SkuId": lambda row: f"{row.line.plan}/{row.line.meter}",
    "SkuPriceId": lambda row: f"{row.line.plan}/{row.line.meter}/{row.line.price_list}",
    "SubAccountId": lambda row: "",
    "SubAccountName": lambda row: "",
    "Tags": lambda row: json.dumps(row.line.tags, sort_keys=True),
}


def invoice_csv(*, invoice: Invoice) -> Iterator[bytes]:
    """Yield an invoice's lines as CSV."""
    rows = (_row_of(invoice, line) for line in invoice_lines(invoice=invoice).iterator(500))
    yield from _csv(INVOICE_COLUMNS, (_cells(INVOICE_COLUMNS, row) for row in rows))


def cost_report(
    *, tenant: Tenant, start: datetime, stop: datetime, now: datetime | None = None
) -> Iterator[bytes]:
    """Yield the lines of the months in [start, stop) as FOCUS; the running month's as of now."""
    yield from _csv(FOCUS_COLUMNS, _report_cells(tenant, start, stop, now or timezone.now()))


def _report_cells(
    tenant: Tenant, start: datetime, stop: datetime, now: datetime
) -> Iterator[list[str]]:
    invoices = Invoice.objects.filter(
        tenant=tenant, period_start__gte=start, period_start__lt=stop
    ).select_related("tenant")
    for invoice in invoices.order_by("period_start"):
        for line in invoice_lines(invoice=invoice).iterator(500):
            yield _cells(FOCUS_COLUMNS, _row_of(invoice, line))
        for note in invoice.credit_notes.select_related("invoice__tenant").order_by("id"):
            yield _credit_cells(note)
    if start <= month_start(now) < stop:
        running = preview(tenant=tenant, now=now)
        for line in running.lines:
            row = Row(tenant, line, "", running.currency, running.period_start, running.period_stop)
            yield _cells(FOCUS_COLUMNS, row)


def _row_of(invoice: Invoice, line: InvoiceLine) -> Row:
    number = "" if invoice.state == InvoiceState.DRAFT else invoice.number
    return Row(
        invoice.tenant, line, number, invoice.currency, invoice.period_start, invoice.period_stop
    )


def _credit_cells(note: CreditNote) -> list[str]:
    """Return what was taken back of an invoice as a row of its month."""
    invoice = note.invoice
    cost = decimal_text(-note.amount_micros)
    cells = {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
        **dict.fromkeys(("ProviderName", "PublisherName", "InvoiceIssuerName"), PROVIDER),
        "BillingAccountId": str(invoice.tenant_id),
        "BillingAccountName": _safe(invoice.tenant.name),
        "BillingCurrency": invoice.currency,
        "BillingPeriodEnd": _time(invoice.period_stop),
        "BillingPeriodStart": _time(invoice.period_start),
        "ChargeCategory": "Credit",
        "ChargeDescription": _safe(note.reason),
        "ChargeFrequency": "One-Time",
        "ChargePeriodEnd": _time(invoice.period_stop),
        "ChargePeriodStart": _time(invoice.period_start),
        "InvoiceId": invoice.number,
        "ServiceCategory": "Databases",
        "ServiceName": PROVIDER,
    }
    return [cells.get(name, "") for name in FOCUS_COLUMNS]


def _cells(columns: Mapping[str, Column], row: Row) -> list[str]:
    return [read(row) for read in columns.values()]


def _csv(names: Iterable[str], rows: Iterable[list[str]]) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text)

    def taken() -> bytes:
        piece = text.getvalue().encode()
        text.seek(0)
        text.truncate()
        return piece

    writer.writerow(names)
    for row in rows:
        writer.writerow(row)
        if text.tell() > 64 * 1024:
            yield taken()
    yield taken()


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

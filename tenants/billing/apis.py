"""REST: a tenant's account, its running month, invoices, cost report, budgets and notices.

Amounts are integers of micro-units (`1000000` is one of the currency).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import ServiceApi, TenantApi
from tenants.billing import budgets, reports, selectors, spend
from tenants.billing.dry_run import RateOutput
from tenants.billing.models import (
    Budget,
    BudgetScope,
    Collection,
    CreditNote,
    Invoice,
    InvoiceLine,
    InvoiceState,
    Meter,
    Notice,
    Payment,
)
from tenants.billing.months import month_after, month_before, month_start
from tenants.core.errors import invalid_field
from tenants.core.pagination import NewestFirst
from tenants.core.streaming import AnyAccept

CSV = "text/csv"
REPORT_MONTHS_MAX = 13
PREVIEW_LINES_MAX = 2000
MONTH = r"^\d{4}-(0[1-9]|1[0-2])$"
AMOUNT_MAX = 10**15


class PriceListOutput(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    currency = serializers.CharField()
    valid_from = serializers.DateTimeField()
    prices = RateOutput(many=True)


class AccountOutput(serializers.Serializer[Any]):
    collection = serializers.ChoiceField(Collection.choices)
    standing = serializers.ChoiceField(
        ["good", "overdue", "arrears"], help_text="arrears: what grows data is refused."
    )
    currency = serializers.CharField()
    credit_micros = serializers.IntegerField(help_text="Taken off the next invoice.")
    due_micros = serializers.IntegerField(help_text="Of all invoices that are to be paid.")
    month_start = serializers.DateTimeField()
    month_stop = serializers.DateTimeField()
    spent_micros = serializers.IntegerField(help_text="Of the running month.")
    forecast_micros = serializers.IntegerField(help_text="At the end of the running month.")


class LineOutput(serializers.ModelSerializer[InvoiceLine]):
    meter = serializers.ChoiceField(Meter.choices)
    tags = serializers.DictField(child=serializers.CharField())
    quantity = serializers.IntegerField(help_text="Measured, in the smallest unit.")
    billable_quantity = serializers.IntegerField(help_text="What of it has a price.")

    class Meta:
        model = InvoiceLine
        fields = [
            "instance", "engine", "region", "tags", "plan", "meter", "start", "stop", "is_late",
            "quantity", "billable_quantity", "unit", "micros", "per", "amount_micros",
            "price_list",
        ]  # fmt: skip


class PreviewOutput(serializers.Serializer[Any]):
    period_start = serializers.DateTimeField()
    period_stop = serializers.DateTimeField()
    currency = serializers.CharField()
    total_micros = serializers.IntegerField()
    lines_total = serializers.IntegerField(help_text="At most 2,000 are listed.")
    lines = LineOutput(many=True)


class InvoiceOutput(serializers.ModelSerializer[Invoice]):
    state = serializers.ChoiceField(InvoiceState.choices)
    due_micros = serializers.IntegerField()

    class Meta:
        model = Invoice
        fields = [
            "id", "number", "state", "period_start", "period_stop", "currency", "total_micros",
            "applied_micros", "credited_micros", "paid_micros", "due_micros", "finalised_at",
            "due_at", "overdue_at", "paid_at",
        ]  # fmt: skip


class PaymentOutput(serializers.ModelSerializer[Payment]):
    class Meta:
        model = Payment
        fields = ["id", "amount_micros", "reference", "received_at"]


class CreditNoteOutput(serializers.ModelSerializer[CreditNote]):
    class Meta:
        model = CreditNote
        fields = ["id", "number", "amount_micros", "reference", "reason", "created_at"]


class InvoiceDetailOutput(InvoiceOutput):
    payments = PaymentOutput(many=True)
    credit_notes = CreditNoteOutput(many=True)

    class Meta(InvoiceOutput.Meta):
        fields = [*InvoiceOutput.Meta.fields, "payments", "credit_notes"]


class MonthsInput(serializers.Serializer[Any]):
    start = serializers.RegexField(MONTH, required=False, help_text="The first month, YYYY-MM.")
    stop = serializers.RegexField(MONTH, required=False, help_text="The last month, YYYY-MM.")


class BudgetOutput(serializers.ModelSerializer[Budget]):
    scope = serializers.ChoiceField(BudgetScope.choices)
    thresholds = serializers.ListField(child=serializers.IntegerField())

    class Meta:
        model = Budget
        fields = [
            "id", "name", "scope", "instance", "tag_key", "tag_value", "amount_micros",
            "thresholds", "spent_micros", "forecast_micros", "looked_at", "created_at",
            "created_by",
        ]  # fmt: skip


class ThresholdsField(serializers.ListField):
    child = serializers.IntegerField(min_value=1, max_value=1000)


class BudgetInput(serializers.Serializer[Budget]):
    name = serializers.CharField(max_length=80)
    amount_micros = serializers.IntegerField(min_value=1, max_value=AMOUNT_MAX)
    thresholds = ThresholdsField(
        default=list(budgets.THRESHOLDS), min_length=1, max_length=10, help_text="Per cent."
    )
    instance = serializers.CharField(  # type: ignore[assignment]
        max_length=40, allow_blank=True, default=""
    )
    tag_key = serializers.CharField(max_length=64, allow_blank=True, default="")
    tag_value = serializers.CharField(max_length=128, allow_blank=True, default="")


class BudgetChange(serializers.Serializer[Budget]):
    name = serializers.CharField(max_length=80, required=False)
    amount_micros = serializers.IntegerField(min_value=1, max_value=AMOUNT_MAX, required=False)
    thresholds = ThresholdsField(required=False, min_length=1, max_length=10)


class NoticeOutput(serializers.ModelSerializer[Notice]):
    data = serializers.DictField()  # type: ignore[assignment]

    class Meta:
        model = Notice
        fields = ["id", "kind", "subject_id", "title", "text", "data", "created_at", "resolved_at"]


class NoticesInput(serializers.Serializer[Any]):
    open = serializers.BooleanField(default=False, help_text="Only those that still hold.")


class LinePages(NewestFirst):
    """Lines in the order of their instances; their ids are numbers."""

    ordering = "id"

    def decode_cursor(self, request: Request) -> Any:
        cursor = super(NewestFirst, self).decode_cursor(request)
        position = cursor.position if cursor is not None else None
        if position is not None and not (str(position).isascii() and str(position).isdigit()):
            raise invalid_field("cursor", self.invalid_cursor_message)
        return cursor


class PriceListApi(ServiceApi):
    @extend_schema(operation_id="price_list_list", responses=PriceListOutput(many=True))
    def get(self, request: Request) -> Response:
        """List the price lists: each is in force until the next one is."""
        return self.page(selectors.price_list_list(), PriceListOutput)


class AccountApi(TenantApi):
    actions = {"GET": "billing.read"}

    @extend_schema(operation_id="billing_account", responses=AccountOutput)
    def get(self, request: Request, tenant: str) -> Response:
        """Get the account's standing, what is due, and the running month's cost."""
        month = spend.month_of(tenant=self.actor.tenant)
        standing = selectors.standing_of(tenant=self.actor.tenant)
        answer = {
            "collection": standing.collection,
            "standing": standing.name,
            "currency": selectors.currency_now(),
            "credit_micros": standing.credit_micros,
            "due_micros": standing.due_micros,
            "month_start": month.start,
            "month_stop": month.stop,
            "spent_micros": month.spent(),
            "forecast_micros": month.forecast(),
        }
        return Response(AccountOutput(answer).data)


class PreviewApi(TenantApi):
    actions = {"GET": "billing.read"}

    @extend_schema(operation_id="invoice_preview", responses=PreviewOutput)
    def get(self, request: Request, tenant: str) -> Response:
        """Get the invoice that the running month would have if it ended now."""
        found = spend.preview(tenant=self.actor.tenant)
        answer = {
            "period_start": found.period_start,
            "period_stop": found.period_stop,
            "currency": found.currency,
            "total_micros": found.total_micros,
            "lines_total": len(found.lines),
            "lines": found.lines[:PREVIEW_LINES_MAX],
        }
        return Response(PreviewOutput(answer).data)


class InvoiceListApi(TenantApi):
    actions = {"GET": "billing.read"}

    @extend_schema(operation_id="invoice_list", responses=InvoiceOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the invoices, drafts included."""
        return self.page(selectors.invoice_list(tenant=self.actor.tenant), InvoiceOutput)


class InvoiceDetailApi(TenantApi):
    actions = {"GET": "billing.read"}

    @extend_schema(operation_id="invoice_get", responses=InvoiceDetailOutput)
    def get(self, request: Request, tenant: str, invoice_id: UUID) -> Response:
        """Get an invoice with its payments and credit notes."""
        found = selectors.invoice_get(tenant=self.actor.tenant, invoice_id=invoice_id)
        return Response(InvoiceDetailOutput(found).data)


class InvoiceLinesApi(TenantApi):
    actions = {"GET": "billing.read"}
    pagination_class = LinePages

    @extend_schema(operation_id="invoice_line_list", responses=LineOutput(many=True))
    def get(self, request: Request, tenant: str, invoice_id: UUID) -> Response:
        """List the lines of an invoice."""
        found = selectors.invoice_get(tenant=self.actor.tenant, invoice_id=invoice_id)
        return self.page(found.lines.all(), LineOutput)


class InvoiceCsvApi(TenantApi):
    actions = {"GET": "billing.read"}
    content_negotiation_class = AnyAccept

    @extend_schema(operation_id="invoice_csv", responses={(200, CSV): OpenApiTypes.STR})
    def get(self, request: Request, tenant: str, invoice_id: UUID) -> HttpResponse:
        """Get the lines of an invoice as CSV."""
        found = selectors.invoice_get(tenant=self.actor.tenant, invoice_id=invoice_id)
        name = found.number or f"draft-{found.period_start:%Y-%m}"
        return _csv(reports.invoice_csv(invoice=found), f"{tenant}-{name}")


class CostReportApi(TenantApi):
    actions = {"GET": "billing.read"}
    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="cost_report",
        parameters=[MonthsInput],
        responses={(200, CSV): OpenApiTypes.STR},
    )
    def get(self, request: Request, tenant: str) -> HttpResponse:
        """Get the costs of up to 13 months as CSV in FOCUS columns; default: the running month."""
        start, stop = _months(self.query(MonthsInput))
        pieces = reports.cost_report(tenant=self.actor.tenant, start=start, stop=stop)
        last = month_before(stop)
        return _csv(pieces, f"{tenant}-costs-{start:%Y-%m}-{last:%Y-%m}")


class BudgetListApi(TenantApi):
    actions = {"GET": "billing.read", "POST": "budgets.manage"}

    @extend_schema(operation_id="budget_list", responses=BudgetOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the budgets with what is spent of them, looked at every ten minutes."""
        return self.page(selectors.budget_list(tenant=self.actor.tenant), BudgetOutput)

    @extend_schema(
        operation_id="budget_create",
        request=BudgetInput,
        responses={201: BudgetOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Make a budget of the tenant, of an instance, or of a tag."""
        made = budgets.budget_create(
            tenant=self.actor.tenant, actor=self.actor.name, **self.validated(BudgetInput)
        )
        return Response(BudgetOutput(made).data, status=201)


class BudgetDetailApi(TenantApi):
    actions = {"GET": "billing.read", "PATCH": "budgets.manage", "DELETE": "budgets.manage"}

    @extend_schema(operation_id="budget_get", responses=BudgetOutput)
    def get(self, request: Request, tenant: str, budget_id: UUID) -> Response:
        """Get one budget."""
        found = selectors.budget_get(tenant=self.actor.tenant, budget_id=budget_id)
        return Response(BudgetOutput(found).data)

    @extend_schema(operation_id="budget_change", request=BudgetChange, responses=BudgetOutput)
    def patch(self, request: Request, tenant: str, budget_id: UUID) -> Response:
        """Change a budget's name, amount or thresholds."""
        found = selectors.budget_get(tenant=self.actor.tenant, budget_id=budget_id)
        changed = budgets.budget_change(budget=found, **self.validated(BudgetChange))
        return Response(BudgetOutput(changed).data)

    @extend_schema(operation_id="budget_delete", responses={204: None})
    def delete(self, request: Request, tenant: str, budget_id: UUID) -> Response:
        """Delete a budget."""
        found = selectors.budget_get(tenant=self.actor.tenant, budget_id=budget_id)
        budgets.budget_delete(budget=found)
        return Response(status=204)


class NoticeListApi(TenantApi):
    actions = {"GET": "notices.read"}

    @extend_schema(
        operation_id="notice_list", parameters=[NoticesInput], responses=NoticeOutput(many=True)
    )
    def get(self, request: Request, tenant: str) -> Response:
        """List what was told about quotas, invoices and budgets."""
        given = self.query(NoticesInput)
        found = selectors.notice_list(tenant=self.actor.tenant, only_open=given["open"])
        return self.page(found, NoticeOutput)


def _csv(pieces: Iterator[bytes], name: str) -> HttpResponse:
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.csv"',
        "Cache-Control": "private, no-store",
    }
    return HttpResponse(b"".join(pieces), content_type=f"{CSV}; charset=utf-8", headers=headers)


def _months(given: dict[str, str]) -> tuple[datetime, datetime]:
    """Return the period of the given months, the running one by default."""
    now = f"{datetime.now(UTC):%Y-%m}"
    last = _month(given, "stop", given.get("start", now))
    start = _month(given, "start", f"{last:%Y-%m}")
    if start > last:
        raise invalid_field("start", "the period ends before it begins")
    if (last.year - start.year) * 12 + last.month - start.month >= REPORT_MONTHS_MAX:
        raise invalid_field("start", f"at most {REPORT_MONTHS_MAX} months at once")
    return start, month_after(last)


def _month(given: dict[str, str], name: str, default: str) -> datetime:
    text = given.get(name, default)
    if not "1970" <= text[:4] <= "9000":
        raise invalid_field(name, "there were no bills then")
    return month_start(datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC))

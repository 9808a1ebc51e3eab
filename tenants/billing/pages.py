"""Pages: the running month, usage, invoices and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from tenants.billing import reports, selectors, spend
from tenants.billing.forms import BudgetChangeForm, BudgetForm, amount_shown
from tenants.billing.models import Budget, Invoice, InvoiceLine
from tenants.billing.money import quantity_text
from tenants.billing.months import month_after, month_before, month_start
from tenants.console.page_view import ConsoleView
from tenants.core.errors import NotFoundError
from tenants.instances.selectors import instance_ever_list, instance_list
from tenants.usage.selectors import FIGURES, usage_series_sum, usage_sum

LINES_SHOWN_MAX = 500
# How far back the charts look, and in which steps.
SPANS: Mapping[str, tuple[timedelta, timedelta]] = {
    "day": (timedelta(days=1), timedelta(hours=1)),
    "week": (timedelta(days=7), timedelta(hours=1)),
    "month": (timedelta(days=31), timedelta(hours=6)),
}
# How a budget stands, by the per cent of it that are spent.
LEVELS = ((100, "bad"), (80, "warn"), (0, ""))


class BillingPage(ConsoleView):
    """A page of the tenant's money."""

    actions = {"GET": "billing.read"}

    def shown(self, context: Mapping[str, Any], status: int = 200) -> HttpResponse:
        """Answer the page with the currency and what tabs need."""
        return self.page({"currency": selectors.currency_now(), **context}, status=status)


class MonthView(BillingPage):
    template = "billing/month.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        tenant = self.actor.tenant
        now = timezone.now()
        month = spend.month_of(tenant=tenant, now=now)
        preview = spend.preview(tenant=tenant, now=now)
        context = {
            "month": month.start,
            "spent": month.spent(),
            "forecast": month.forecast(),
            "standing": selectors.standing_of(tenant=tenant),
            "notices": selectors.notice_list(tenant=tenant, only_open=True).order_by("-id")[:10],
            "total": preview.total_micros,
            "lines": [line_row(line) for line in preview.lines[:LINES_SHOWN_MAX]],
            "lines_total": len(preview.lines),
        }
        return self.shown(context)


class UsageView(BillingPage):
    actions = {"GET": "usage.read"}
    template = "billing/usage.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        back, _ = SPANS[self._span()]
        stop = timezone.now()
        start = (stop - back).replace(minute=0, second=0, microsecond=0)
        named = instance_ever_list(tenant=self.actor.tenant).values_list("pk", "handle")
        rows = [
            row
            for row in usage_sum(instances=named, start=start, stop=stop)
            if any(row.figures.values())
        ]
        return self.shown({"rows": rows, "spans": list(SPANS), "span": self._span()})

    def _span(self) -> str:
        wish = self.request.GET.get("span", "")
        return wish if wish in SPANS else "day"


class SeriesView(ConsoleView):
    """The tenant's usage as columns, oldest first: units in each step, bytes held."""

    actions = {"GET": "usage.read"}

    def get(self, request: HttpRequest) -> HttpResponse:
        back, step = SPANS.get(request.GET.get("span", ""), SPANS["day"])
        now = timezone.now()
        ids = list(instance_ever_list(tenant=self.actor.tenant).values_list("pk", flat=True))
        points = usage_series_sum(instance_ids=ids, start=now - back, stop=now, step=step)
        known = {int(point.at.timestamp()): point for point in points}
        seconds = step // timedelta(seconds=1)
        first = int((now - back).timestamp()) // seconds * seconds
        times = range(first, int(now.timestamp()) + 1, seconds)
        units = {
            name: [known[at].figures[name] if at in known else 0 for at in times]
            for name in FIGURES
        }
        held = [known[at].storage_bytes if at in known else None for at in times]
        return self.json({"at": list(times), **units, "storage_bytes": held})


class InvoicesView(BillingPage):
    template = "billing/invoices.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        rows, pager = self.paged(selectors.invoice_list(tenant=self.actor.tenant))
        months = [month_start(timezone.now())]
        for _ in range(12):
            months.append(month_before(months[-1]))
        return self.shown({"rows": rows, "pager": pager, "months": months})


class InvoiceView(BillingPage):
    template = "billing/invoice.html"

    def get(self, request: HttpRequest, invoice_id: UUID) -> HttpResponse:
        invoice = selectors.invoice_get(tenant=self.actor.tenant, invoice_id=invoice_id)
        lines = selectors.invoice_lines(invoice=invoice)
        context = {
            "invoice": invoice,
            "currency": invoice.currency,
            "lines": [line_row(line) for line in lines[:LINES_SHOWN_MAX]],
            "lines_total": lines.count(),
            "payments": selectors.payment_list(invoice=invoice),
            "credit_notes": selectors.credit_note_list(invoice=invoice),
            "month": invoice.period_start,
        }
        return self.shown(context)


class InvoiceCsvView(ConsoleView):
    actions = {"GET": "billing.read"}

    def get(self, request: HttpRequest, invoice_id: UUID) -> HttpResponse:
        invoice: Invoice = selectors.invoice_get(tenant=self.actor.tenant, invoice_id=invoice_id)
        name = invoice.number or f"draft-{invoice.period_start:%Y-%m}"
        return csv_answer(b"".join(reports.invoice_csv(invoice=invoice)), name)


class CostReportView(ConsoleView):
    """The months from ?start= (or the running one alone) as FOCUS; at most a year of them."""

    actions = {"GET": "billing.read"}

    def get(self, request: HttpRequest) -> HttpResponse:
        now = timezone.now()
        first = month_start(now)
        offered = {"": first, f"{first:%Y-%m}": first}
        for _ in range(12):
            first = month_before(first)
            offered[f"{first:%Y-%m}"] = first
        start: datetime | None = offered.get(request.GET.get("start", ""))
        if start is None:
            raise NotFoundError("there is no report that begins then")
        stop = month_after(month_start(now))
        pieces = reports.cost_report(tenant=self.actor.tenant, start=start, stop=stop, now=now)
        return csv_answer(b"".join(pieces), f"costs-{start:%Y-%m}")


class BudgetsView(BillingPage):
    actions = {"GET": "billing.read", "POST": "budgets.manage"}
    template = "billing/budgets.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._answer(self._form())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = self._form(request.POST)
        if self.submit(form, "POST", "budgets") is None:
            return self._answer(form, 422)
        return self.done("billing-budgets", notice="The budget is made; it is looked at soon.")

    def _form(self, data: Any = None) -> BudgetForm:
        named = instance_list(tenant=self.actor.tenant).order_by("handle")
        return BudgetForm(data, handles=list(named.values_list("handle", flat=True)))

    def _answer(self, form: BudgetForm, status: int = 200) -> HttpResponse:
        rows, pager = self.paged(selectors.budget_list(tenant=self.actor.tenant))
        shown = [{"budget": row, "level": _level(row)} for row in rows]
        return self.shown({"rows": shown, "pager": pager, "form": form}, status)


class BudgetView(BillingPage):
    """One budget; POST changes or deletes it."""

    actions = {"GET": "billing.read", "POST": "budgets.manage"}
    template = "billing/budget.html"

    def get(self, request: HttpRequest, budget_id: UUID) -> HttpResponse:
        budget = self._budget(budget_id)
        values = {
            "name": budget.name,
            "amount_micros": amount_shown(budget.amount_micros),
            "thresholds": ", ".join(map(str, budget.thresholds)),
        }
        return self._answer(budget, BudgetChangeForm(initial=values))

    def post(self, request: HttpRequest, budget_id: UUID) -> HttpResponse:
        if request.POST.get("wish") == "delete":
            self.change("DELETE", "budget", budget_id=budget_id)
            return self.done("billing-budgets", notice="The budget is deleted.")
        form = BudgetChangeForm(request.POST)
        if self.submit(form, "PATCH", "budget", budget_id=budget_id) is None:
            return self._answer(self._budget(budget_id), form, 422)
        return self.done("billing-budgets", notice="The budget is changed; it is looked at soon.")

    def _budget(self, budget_id: UUID) -> Budget:
        return selectors.budget_get(tenant=self.actor.tenant, budget_id=budget_id)

    def _answer(self, budget: Budget, form: BudgetChangeForm, status: int = 200) -> HttpResponse:
        alerts = budget.alerts.order_by("-id")[:20]
        context = {"budget": budget, "level": _level(budget), "form": form, "alerts": alerts}
        return self.shown(context, status)


def line_row(line: InvoiceLine) -> dict[str, Any]:
    """Return a line with its quantity in the unit that has the price."""
    return {"line": line, "units": quantity_text(int(line.billable_quantity), line.per, places=3)}


def csv_answer(content: bytes, name: str) -> HttpResponse:
    """Answer a file to be saved."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return HttpResponse(content, content_type="text/csv; charset=utf-8", headers=headers)


def _level(budget: Budget) -> str:
    percent = budget.spent_micros * 100 // budget.amount_micros
    return next(level for threshold, level in LEVELS if percent >= threshold)

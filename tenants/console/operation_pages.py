"""Pages: operations of a tenant or an instance, live, and what can be done about one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from tenants.console.instance_view import InstanceView
from tenants.console.page_view import ConsoleView
from tenants.operations.kinds import KINDS
from tenants.operations.models import Operation, OperationState
from tenants.operations.selectors import operation_get, operation_list, operation_search

ROWS = 25
ANY = ("", "all")
MOMENT = forms.DateTimeInput({"type": "datetime-local"})


class OperationSearchForm(forms.Form):
    """What to look for; its names are the API's."""

    kind = forms.ChoiceField(
        choices=[ANY, *((kind, kind) for kind in sorted(KINDS))], required=False
    )
    state = forms.ChoiceField(
        choices=[ANY, *((state, state) for state in OperationState.values)], required=False
    )
    since = forms.DateTimeField(required=False, widget=MOMENT, label="From (UTC)")
    until = forms.DateTimeField(required=False, widget=MOMENT, label="Until (UTC)")


class OperationListView(ConsoleView):
    actions = {"GET": "operations.read"}
    template = "console/operations.html"
    part = "console/operations_part.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        form = OperationSearchForm(request.GET)
        # What cannot be is not looked for, and the form says so.
        wanted = form.cleaned_data if form.is_valid() else {}
        rows = operation_search(tenant=self.actor.tenant, **wanted)
        return self.page({**_paged(self, rows), "form": form})


class InstanceOperationsView(InstanceView):
    actions = {"GET": "operations.read"}
    template = "console/instance_operations.html"
    part = "console/operations_part.html"

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        rows = operation_list(tenant=self.actor.tenant).filter(instance=self.instance)
        return self.page(_paged(self, rows))


class OperationView(ConsoleView):
    actions = {"GET": "operations.read"}
    template = "console/operation.html"
    part = "console/operation_part.html"

    def get(self, request: HttpRequest, operation_id: UUID) -> HttpResponse:
        found = operation_get(tenant=self.actor.tenant, operation_id=operation_id)
        return self.page({"operation": found})


class _VerbView(ConsoleView):
    call = ""

    def post(self, request: HttpRequest, operation_id: UUID) -> HttpResponse:
        self.change("POST", self.call, operation_id=operation_id)
        return self.done("operation", operation_id)


class OperationCancelView(_VerbView):
    actions = {"POST": "operations.manage"}
    call = "operation-cancel"


class OperationRetryView(_VerbView):
    actions = {"POST": "operations.manage"}
    call = "operation-retry"


class OperationResetView(_VerbView):
    actions = {"POST": "operations.reset"}
    call = "operation-reset"


def _paged(view: ConsoleView, rows: QuerySet[Operation]) -> dict[str, Any]:
    found, pager = view.paged(rows, limit=ROWS)
    return {"operations": found, "pager": pager}

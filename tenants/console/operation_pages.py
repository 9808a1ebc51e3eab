"""Pages: operations of a tenant or an instance, live, and what can be done about one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from tenants.console.instance_view import InstanceView
from tenants.console.page_view import ConsoleView
from tenants.operations.models import Operation, OperationState
from tenants.operations.selectors import operation_get, operation_list

ROWS = 25


class OperationListView(ConsoleView):
    actions = {"GET": "operations.read"}
    template = "console/operations.html"
    part = "console/operations_part.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        rows = operation_list(tenant=self.actor.tenant)
        state = request.GET.get("state", "")
        if state in OperationState.values:
            rows = rows.filter(state=state)
        return self.page({**_paged(self, rows), "state_wanted": state, "states": OperationState})


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

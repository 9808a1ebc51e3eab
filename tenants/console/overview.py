"""A tenant's first page, and the places that the palette finds."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from tenants.console.page_view import ConsoleView
from tenants.console.selectors import instance_rows, operation_rows
from tenants.instances.selectors import instance_list

PLACES_MAX = 500


class OverviewView(ConsoleView):
    actions = {"GET": "tenant.read"}
    template = "console/overview.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        context = {"rows": instance_rows(self.actor), "operations": operation_rows(self.actor)}
        return self.page(context)


class PlacesView(ConsoleView):
    actions = {"GET": "tenant.read"}

    def get(self, request: HttpRequest) -> HttpResponse:
        if not self.actor.may("instances.read"):
            return self.json({"items": []})
        rows = instance_list(tenant=self.actor.tenant).order_by("handle")[:PLACES_MAX]
        return self.json(
            {
                "items": [
                    {"name": row.handle, "kind": row.engine, "address": self.address_of(row.handle)}
                    for row in rows
                ]
            }
        )

    def address_of(self, handle: str) -> str:
        return f"/t/{self.actor.tenant.handle}/#{handle}"

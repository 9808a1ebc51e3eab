"""A tenant's first page, and the places that the palette finds."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from tenants.console.page_view import ConsoleView
from tenants.console.selectors import (
    failed_rows,
    instance_rows,
    instances_seen,
    notice_rows,
    operation_rows,
    spend_of,
    start_of,
)
from tenants.instances.models import InstanceStatus

PLACES_MAX = 500


class OverviewView(ConsoleView):
    actions = {"GET": "tenant.read"}
    template = "console/overview.html"
    part = "console/overview_part.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        rows = instance_rows(self.actor)
        broken = [row for row in rows if row.instance.status == InstanceStatus.FAILED]
        failed, notices = failed_rows(self.actor), notice_rows(self.actor)
        context = {
            "rows": rows,
            "active_count": sum(row.instance.status == InstanceStatus.ACTIVE for row in rows),
            "broken": broken,
            "operations": operation_rows(self.actor),
            "failed": failed,
            "notices": notices,
            "alert_count": len(broken) + len(failed) + len(notices),
            "spend": spend_of(self.actor),
            "start": start_of([row.instance for row in rows]),
        }
        return self.page(context)


class PlacesView(ConsoleView):
    actions = {"GET": "tenant.read"}

    def get(self, request: HttpRequest) -> HttpResponse:
        tenant = self.actor.tenant.handle
        items = [
            {
                "name": row.handle,
                "kind": row.engine,
                "address": reverse("console:instance", args=[tenant, row.handle]),
            }
            for row in instances_seen(self.actor)[:PLACES_MAX]
        ]
        return self.json({"items": items})

"""Pages: search and export of events, one event, the chain's integrity, drains, data events."""

from __future__ import annotations

import json
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from tenants.audit import forms, selectors
from tenants.audit.anchors import anchor_make
from tenants.audit.apis import LINKS_MAX
from tenants.audit.chain import chain_verify
from tenants.audit.models import InstanceAudit
from tenants.audit.selectors import Search
from tenants.console.page_view import ConsoleView
from tenants.core.errors import NotFoundError
from tenants.instances.selectors import instance_list

DRAIN_WISHES = {"pause": False, "resume": True}


class EventsView(ConsoleView):
    """The search; what is looked for is in the address, so that it can be kept and shared."""

    actions = {"GET": "audit.read"}
    template = "audit/events.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        form = forms.SearchForm(request.GET or None)
        if form.is_bound and not form.is_valid():
            return self.page({"form": form, "rows": [], "pager": {}}, status=422)
        wanted = form.wanted() if form.is_bound else {}
        found = selectors.audit_list(tenant=self.actor.tenant, search=Search(**wanted))
        rows, pager = self.paged(found, ordering="-event_id")
        query = urlencode({name: _text(value) for name, value in wanted.items()})
        context = {"form": form, "rows": rows, "pager": pager, "query": query, "wanted": wanted}
        return self.page(context)


class EventView(ConsoleView):
    actions = {"GET": "audit.read"}
    template = "audit/event.html"

    def get(self, request: HttpRequest, event_id: UUID) -> HttpResponse:
        events = selectors.audit_list(tenant=self.actor.tenant)
        event = selectors.audit_get(events=events, event_id=event_id)
        body = json.loads(event.body)
        text = json.dumps({**body, "chain": event.chain()}, indent=2, ensure_ascii=False)
        return self.page({"event": event, "body": body, "text": text})


class IntegrityView(ConsoleView):
    """Walks the chain; a long one in parts, each from where the last ended."""

    actions = {"GET": "audit.read"}
    template = "audit/integrity.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        after = request.GET.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            raise NotFoundError("there is no such place in the chain")
        chain_id = self.actor.tenant.pk
        verdict = chain_verify(
            chain_id=chain_id, tenant_id=chain_id, after=int(after), links_max=LINKS_MAX
        )
        head = json.dumps(anchor_make(chain_id=chain_id), indent=2)
        return self.page({"verdict": verdict, "head": head})


class DrainsView(ConsoleView):
    actions = {"GET": "audit.read", "POST": "audit.manage"}
    template = "audit/drains.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._answer(forms.DrainForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = forms.DrainForm(request.POST)
        body = form.body() if form.is_valid() else {}
        made = self.submit(form, "POST", "audit-drains", body)
        if made is None:
            return self._answer(form, status=422)
        if not made.data["secret"]:
            return self.done("audit-drains", notice="The drain is made.")
        # Shown once, so not behind a redirect.
        return self._answer(forms.DrainForm(), secret=made.data["secret"])

    def _answer(
        self, form: forms.DrainForm, *, status: int = 200, secret: str = ""
    ) -> HttpResponse:
        rows = list(selectors.drain_list(tenant=self.actor.tenant).order_by("name"))
        return self.page({"rows": rows, "form": form, "secret": secret}, status=status)


class DrainView(ConsoleView):
    """Pauses, resumes or deletes a drain."""

    actions = {"POST": "audit.manage"}
    http_method_names = ["post"]

    def post(self, request: HttpRequest, drain_id: UUID) -> HttpResponse:
        wish = request.POST.get("wish", "delete")
        if wish == "delete":
            self.change("DELETE", "audit-drain", drain_id=drain_id)
            return self.done("audit-drains", notice="The drain is deleted.")
        if wish not in DRAIN_WISHES:
            raise NotFoundError("there is no such change")
        self.change("PATCH", "audit-drain", {"is_enabled": DRAIN_WISHES[wish]}, drain_id=drain_id)
        return self.done("audit-drains", notice=f"The drain is {wish.rstrip('e')}ed.")


class DataEventsView(ConsoleView):
    """Which instances tell of reads and writes; POST switches one."""

    actions = {"GET": "audit.read", "POST": "audit.manage"}
    template = "audit/data_events.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        rows, pager = self.paged(instance_list(tenant=self.actor.tenant))
        audited = InstanceAudit.objects.filter(
            instance_id__in=[row.pk for row in rows], data_events=True
        )
        on = set(audited.values_list("instance_id", flat=True))
        return self.page({"rows": [(row, row.pk in on) for row in rows], "pager": pager})

    def post(self, request: HttpRequest) -> HttpResponse:
        wish = request.POST.get("wish") == "on"
        handle = request.POST.get("handle", "")
        self.change("PATCH", "instance-audit", {"data_events": wish}, instance=handle or "-")
        state = "on" if wish else "off"
        return self.done("audit-data", notice=f"Data events of {handle} are {state}.")


def _text(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

"""Pages: the list of instances, a new one, and an instance's connect, metrics and settings."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from tenants.console.api_calls import RefusedError
from tenants.console.explorer.access import MADE_BY
from tenants.console.forms import AccessForm, InstanceForm, PlanForm, TagsForm
from tenants.console.instance_view import InstanceView
from tenants.console.page_view import ConsoleView
from tenants.console.selectors import gauges_of, instance_rows
from tenants.console.snippets import snippets_of
from tenants.instances.selectors import connection_of, credential_list
from tenants.usage.selectors import FIGURES, usage_series

DRY_RUN = {"dry_run": "true"}
# What a chart shows -> how far back, and its step.
SPANS: Mapping[str, tuple[timedelta, timedelta]] = {
    "hour": (timedelta(hours=1), timedelta(minutes=1)),
    "day": (timedelta(hours=24), timedelta(minutes=15)),
    "week": (timedelta(days=7), timedelta(hours=1)),
    "month": (timedelta(days=30), timedelta(hours=6)),
}
RATES = ("read_units", "write_units", "query_units", "refused_units")


class InstanceListView(ConsoleView):
    actions = {"GET": "tenant.read"}
    template = "console/instances.html"
    part = "console/instances_part.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page({"rows": instance_rows(self.actor)})


class InstanceCreateView(ConsoleView):
    actions = {"GET": "instances.create", "POST": "instances.create"}
    template = "console/instance_new.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        known = {key: request.GET[key] for key in ("engine", "plan") if key in request.GET}
        return self.page({"form": InstanceForm(initial={"plan": "lite", **known})})

    def post(self, request: HttpRequest) -> HttpResponse:
        form = InstanceForm(request.POST)
        answer = self.submit(form, "POST", "instances")
        if answer is None:
            return self.page({"form": form}, status=422)
        return self.done("instance", answer.data["instance"])


class InstancePriceView(ConsoleView):
    """What the form of a new instance would cost: asked of the API as a dry run."""

    actions = {"POST": "instances.create"}
    template = "console/price_part.html"

    def post(self, request: HttpRequest) -> HttpResponse:
        wanted = {
            "engine": request.POST.get("engine", ""),
            "plan": request.POST.get("plan", ""),
            "blocks": request.POST.get("blocks") or "1",
            # The price does not hang on the name, which may not be written yet.
            "name": f"price-{uuid.uuid4().hex[:12]}",
        }
        try:
            answer = self.change("POST", "instances", wanted, query=DRY_RUN)
        except RefusedError as error:
            return self.page({"refusal": error})
        return self.page({"price": answer.data})


class ConnectView(InstanceView):
    actions = {"GET": "instances.read"}
    template = "console/instance.html"

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        may_connect = self.actor.may("credentials.read") or self._may_here("credentials.read")
        if not may_connect:
            return self.page()
        live = credential_list(instance=self.instance).filter(revoked_at=None)
        live = live.exclude(created_by__startswith=MADE_BY)
        known = list(live.order_by("created_at").values_list("username", flat=True))
        wanted = request.GET.get("user", "")
        username = wanted if wanted in known else next(iter(known), "")
        options = {"username": username} if username else {}
        connection = connection_of(instance=self.instance, **options)
        return self.page(
            {
                "connection": connection,
                "usernames": known,
                "username": username,
                "snippets": snippets_of(self.instance.engine, connection),
            }
        )

    def _may_here(self, action: str) -> bool:
        target = self.actor.target(engine=self.instance.engine, instance=self.instance.handle)
        return self.actor.may(action, target)


class StateView(InstanceView):
    """The badge beside an instance's name."""

    actions = {"GET": "instances.read"}
    template = "console/instance_state.html"

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        return self.page()


class MetricsView(InstanceView):
    actions = {"GET": "usage.read"}
    template = "console/instance_metrics.html"
    part = "console/gauges_part.html"

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        span = request.GET.get("span", "hour")
        context = {"gauges": gauges_of(self.instance), "spans": list(SPANS), "span": span}
        return self.page(context)


class SeriesView(InstanceView):
    """The figures of the charts: columns, oldest first, units and bytes a second."""

    actions = {"GET": "usage.read"}

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        back, step = SPANS.get(request.GET.get("span", ""), SPANS["hour"])
        now = timezone.now()
        points = usage_series(instance_id=self.instance.pk, start=now - back, stop=now, step=step)
        figures = {int(point.at.timestamp()): point for point in points}
        seconds = int(step.total_seconds())
        first = int((now - back).timestamp()) // seconds * seconds
        times = list(range(first, int(now.timestamp()) + 1, seconds))

        def per_second(name: str) -> list[float]:
            return [
                round(figures[at].figures[name] / seconds, 3) if at in figures else 0
                for at in times
            ]

        held = {
            name: [getattr(figures[at], name) if at in figures else None for at in times]
            for name in ("storage_bytes", "memory_bytes")
        }
        return self.json({"at": times, **{name: per_second(name) for name in FIGURES}, **held})


class SettingsView(InstanceView):
    """Plan, access, tags, and the danger zone; `what` names the form that was sent."""

    actions = {"GET": "instances.update", "POST": "instances.update"}
    template = "console/instance_settings.html"
    forms = {"plan": PlanForm, "access": AccessForm, "tags": TagsForm}

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        return self.page(self._forms())

    def post(self, request: HttpRequest, instance: str) -> HttpResponse:
        what = request.POST.get("what", "")
        if what not in self.forms:
            return self.page(self._forms(), status=422)
        form = self.forms[what](request.POST)
        if self.submit(form, "PATCH", "instance", instance=instance) is None:
            return self.page({**self._forms(), f"{what}_form": form}, status=422)
        return self.back("instance-settings", "Saved. It is in force within a second.")

    def _forms(self) -> dict[str, Any]:
        row = self.instance
        initial: dict[str, dict[str, Any]] = {
            "plan": {"plan": row.plan.name, "blocks": row.blocks},
            "access": {
                "allowlist": "\n".join(row.allowlist),
                "deletion_protected": row.deletion_protected,
            },
            "tags": {"tags": "\n".join(f"{name}={value}" for name, value in row.tags.items())},
        }
        return {f"{name}_form": form(initial=initial[name]) for name, form in self.forms.items()}


class PlanPriceView(InstanceView):
    """What another plan or other blocks would cost."""

    actions = {"POST": "instances.update"}
    template = "console/price_part.html"

    def post(self, request: HttpRequest, instance: str) -> HttpResponse:
        wanted = {
            "plan": request.POST.get("plan", ""),
            "blocks": request.POST.get("blocks") or "1",
        }
        try:
            answer = self.change("PATCH", "instance", wanted, query=DRY_RUN, instance=instance)
        except RefusedError as error:
            return self.page({"refusal": error})
        return self.page({"price": answer.data, "is_change": True})


class InstanceVerbView(InstanceView):
    """A button of an instance: one call of the API, then the page that shows what became of it."""

    method = "POST"
    call = ""
    notice = ""
    to = "instance-operations"

    def post(self, request: HttpRequest, instance: str) -> HttpResponse:
        self.change(self.method, self.call, instance=instance)
        return self.back(self.to, self.notice)


class SuspendView(InstanceVerbView):
    actions = {"POST": "instances.suspend"}
    call = "instance-suspend"


class ResumeView(InstanceVerbView):
    actions = {"POST": "instances.suspend"}
    call = "instance-resume"


class UndeleteView(InstanceVerbView):
    actions = {"POST": "instances.delete"}
    call = "instance-undelete"


class DeleteView(InstanceVerbView):
    actions = {"POST": "instances.delete"}
    method = "DELETE"
    call = "instance"

    def post(self, request: HttpRequest, instance: str) -> HttpResponse:
        if request.POST.get("confirm") != instance:
            address = reverse(
                "console:instance-settings", args=[self.actor.tenant.handle, instance]
            )
            return self.page({"detail": f"Type {instance} to confirm.", "address": address,
                              "title": "Nothing was deleted", "icon": "info"},
                             status=422, template="console/refused.html")  # fmt: skip
        return super().post(request, instance)

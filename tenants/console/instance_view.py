"""The base of an instance's pages: finds it, says what the actor may do with it, lists its tabs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from engines import registry
from engines.kit.iam import Target
from tenants.accounts.actors import Actor
from tenants.accounts.permissions import ACTIONS
from tenants.console.explorer.access import role_of
from tenants.console.navigation import Link
from tenants.console.page_view import ConsoleView
from tenants.console.selectors import operation_running, state_of
from tenants.instances.cells import has_schema
from tenants.instances.models import Instance
from tenants.instances.selectors import instance_get


@dataclass(frozen=True, slots=True)
class Tab:
    """A page of an instance, of all engines or those named; some need a role inside of it."""

    label: str
    page: str
    action: str
    engines: frozenset[str] = frozenset()
    has_data: bool = False


# Add a row with your page; the order is that of the tabs.
TABS: tuple[Tab, ...] = (
    Tab("Connect", "instance", "instances.read"),
    Tab("Metrics", "instance-metrics", "usage.read"),
    Tab(
        "Data",
        "instance-data",
        "instances.read",
        frozenset({"inmemory", "keyvalue", "relational"}),
        True,
    ),
    Tab("Credentials", "instance-credentials", "credentials.read"),
    Tab("Backups", "instance-backups", "backups.read"),
    Tab("Operations", "instance-operations", "operations.read"),
    Tab("Settings", "instance-settings", "instances.update"),
)


class InstanceView(ConsoleView):
    """A page of one instance: `self.instance` is there before the method runs."""

    instance: Instance

    def before(self, request: HttpRequest, **kwargs: Any) -> None:
        self.instance = instance_get(tenant=self.actor.tenant, handle=kwargs["instance"])

    def page(self, context: Any = None, *, status: int = 200, template: str = "") -> HttpResponse:
        if not hasattr(self, "instance"):
            return super().page(context, status=status, template=template)
        rights = rights_on(self.actor, self.instance)
        shared = {
            "instance": self.instance,
            "state": state_of(self.instance),
            "engine": registry.load(self.instance.engine),
            "has_server": not has_schema(self.instance.engine),
            "rights": rights,
            "tabs": self._tabs(rights),
            "running": operation_running(self.instance) if "operations.read" in rights else None,
        }
        return super().page({**shared, **(context or {})}, status=status, template=template)

    def back(self, page: str, notice: str) -> HttpResponse:
        """Go to a page of this instance after a change."""
        return self.done(page, self.instance.handle, notice=notice)

    def _tabs(self, rights: frozenset[str]) -> list[Link]:
        match = self.request.resolver_match
        here = (match.url_name or "") if match else ""
        places = [self.actor.tenant.handle, self.instance.handle]
        return [
            Link(
                label=tab.label,
                address=reverse(f"console:{tab.page}", args=places),
                is_current=here == tab.page
                or (tab.page != "instance" and here.startswith(tab.page)),
            )
            for tab in TABS
            if tab.action in rights
            and (not tab.engines or self.instance.engine in tab.engines)
            and (not tab.has_data or role_of(self.actor, self.instance) is not None)
        ]


def target_of(actor: Actor, instance: Instance) -> Target:
    """Return an instance as what a decision is about."""
    return actor.target(engine=instance.engine, instance=instance.handle)


def rights_on(actor: Actor, instance: Instance) -> frozenset[str]:
    """Return the control plane's actions that the actor may do on an instance."""
    target = target_of(actor, instance)
    return frozenset(action for action in ACTIONS if actor.may(action, target))

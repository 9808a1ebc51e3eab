"""The hook of the data explorer: engine -> Explorer, and the page that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse

from engines.kit.records import Role
from tenants.audit.services import Asked
from tenants.console.explorer.access import Access, access_of, role_of
from tenants.console.explorer.inmemory import KeyExplorer
from tenants.console.explorer.keyvalue import ItemExplorer
from tenants.console.explorer.relational import SqlExplorer
from tenants.console.explorer.view import Explorer
from tenants.console.instance_view import InstanceView
from tenants.core.errors import ForbiddenError, NotFoundError
from tenants.core.middleware import request_id_of
from tenants.instances.models import InstanceStatus

# A new engine's explorer is one row.
EXPLORERS: Mapping[str, type[Explorer]] = {
    "inmemory": KeyExplorer,
    "keyvalue": ItemExplorer,
    "relational": SqlExplorer,
}


class DataView(InstanceView):
    """`instances/<handle>/data`: what the engine's explorer answers."""

    actions = {"GET": "instances.read", "POST": "instances.read"}
    role: Role

    def before(self, request: HttpRequest, **kwargs: Any) -> None:
        super().before(request, **kwargs)
        if self.instance.engine not in EXPLORERS:
            raise NotFoundError("this engine has no data explorer yet")
        role = role_of(self.actor, self.instance)
        if role is None:
            raise ForbiddenError("your role does not reach the data of this instance")
        self.role = role

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        if self.instance.status != InstanceStatus.ACTIVE:
            return self.page(template="console/data_closed.html")
        return EXPLORERS[self.instance.engine](self).get(request)

    def post(self, request: HttpRequest, instance: str) -> HttpResponse:
        return EXPLORERS[self.instance.engine](self).post(request)

    def access(self, wanted: Role) -> Access:
        """Return a way in with the role `wanted`, or the person's own if that is weaker."""
        asked = Asked(
            address=str(self.request.META.get("REMOTE_ADDR", "")),
            credential_type="user",
            request_id=request_id_of(self.request),
        )
        return access_of(actor=self.actor, instance=self.instance, wanted=wanted, asked=asked)

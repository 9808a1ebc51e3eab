"""Pages: the credentials of an instance. A secret is in one answer, once; it is never stored."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from tenants.console.explorer.access import MADE_BY
from tenants.console.forms import CredentialForm, RotateForm
from tenants.console.instance_view import InstanceView
from tenants.console.snippets import snippets_of
from tenants.iam.models import ServiceId
from tenants.iam.selectors import service_id_list
from tenants.instances.models import Credential, Instance
from tenants.instances.selectors import connection_of, credential_get, credential_list


class CredentialsView(InstanceView):
    actions = {"GET": "credentials.read", "POST": "credentials.create"}
    template = "console/instance_credentials.html"

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        return self.page(self._list(CredentialForm(self._services())))

    def post(self, request: HttpRequest, instance: str) -> HttpResponse:
        form = CredentialForm(self._services(), request.POST)
        data: dict[str, Any] = {}
        if form.is_valid():
            names = form.fields.keys() & {"label", "role", "cidrs", "service_id"}
            data = {name: form.cleaned_data[name] for name in names}
            if days := form.cleaned_data["days"]:
                data["expires_at"] = timezone.now() + timedelta(days=int(days))
        answer = self.submit(form, "POST", "credentials", data, instance=instance)
        if answer is None:
            return self.page({**self._list(form), "is_open": True}, status=422)
        return self.shown_once(answer.data)

    def shown_once(self, made: Any) -> HttpResponse:
        """Answer the page that shows a new secret; a reload asks the browser to send again."""
        connection = connection_of(
            instance=self.instance, username=made["username"], password=made["password"]
        )
        context = {
            "made": made,
            "connection": connection,
            "snippets": snippets_of(self.instance.engine, connection),
        }
        return self.page(context, template="console/secret_once.html")

    def _services(self) -> list[ServiceId]:
        if not self.actor.may("service_ids.read"):
            return []
        return list(service_id_list(tenant=self.actor.tenant).order_by("name", "id"))

    def _list(self, form: CredentialForm) -> dict[str, Any]:
        rows, pager = self.paged(_listed(self.instance))
        return {"credentials": rows, "pager": pager, "form": form, "now": timezone.now()}


class CredentialRotateView(CredentialsView):
    actions = {"GET": "credentials.rotate", "POST": "credentials.rotate"}
    template = "console/credential_rotate.html"

    def get(self, request: HttpRequest, instance: str, **kwargs: Any) -> HttpResponse:
        return self._page(RotateForm(), kwargs["credential_id"])

    def post(self, request: HttpRequest, instance: str, **kwargs: Any) -> HttpResponse:
        form = RotateForm(request.POST)
        answer = self.submit(form, "POST", "credential-rotate", instance=instance, **kwargs)
        if answer is None:
            return self._page(form, kwargs["credential_id"], status=422)
        return self.shown_once(answer.data)

    def _page(self, form: RotateForm, credential_id: UUID, status: int = 200) -> HttpResponse:
        found = credential_get(instance=self.instance, credential_id=credential_id)
        return self.page({"credential": found, "form": form}, status=status)


class CredentialRevokeView(InstanceView):
    actions = {"POST": "credentials.revoke"}

    def post(self, request: HttpRequest, instance: str, credential_id: UUID) -> HttpResponse:
        self.change("DELETE", "credential", instance=instance, credential_id=credential_id)
        return self.back("instance-credentials", "Revoked. It stops working within a second.")


def _listed(instance: Instance) -> QuerySet[Credential]:
    """Return the credentials without those that the data explorer had for a quarter of an hour."""
    return credential_list(instance=instance).exclude(
        created_by__startswith=MADE_BY, revoked_at__isnull=False
    )

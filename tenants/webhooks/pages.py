"""Pages: a tenant's webhooks, one with its log; its secret is shown once, on the answer itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse

from tenants.console.page_view import ConsoleView
from tenants.core.errors import NotFoundError
from tenants.webhooks import selectors
from tenants.webhooks.event_types import CHOICES


class WebhookForm(forms.Form):
    url = forms.CharField(
        label="Address",
        max_length=500,
        help_text="Public, with https. Redirects are not followed.",
        widget=forms.URLInput(attrs={"spellcheck": "false", "placeholder": "https://"}),
    )
    description = forms.CharField(max_length=300, required=False)
    event_types = forms.MultipleChoiceField(
        label="Events",
        choices=CHOICES,
        required=False,
        help_text="None chosen: all, those to come too.",
        widget=forms.SelectMultiple(attrs={"size": 8}),
    )


class WebhooksView(ConsoleView):
    """The list; POST makes one and shows its secret."""

    actions = {"GET": "webhooks.read", "POST": "webhooks.manage"}
    template = "webhooks/webhooks.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._answer(WebhookForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = WebhookForm(request.POST)
        made = self.submit(form, "POST", "webhooks")
        if made is None:
            return self._answer(form, 422)
        context = {"webhook_id": made.data["id"], "secret": made.data["secret"]}
        return self.page(context, template="webhooks/secret.html")

    def _answer(self, form: WebhookForm, status: int = 200) -> HttpResponse:
        rows, pager = self.paged(selectors.endpoint_list(tenant=self.actor.tenant))
        return self.page({"rows": rows, "pager": pager, "form": form}, status=status)


class WebhookView(ConsoleView):
    """One webhook with its log; POST tests, switches, rotates, changes or deletes it."""

    actions = {"GET": "webhooks.read", "POST": "webhooks.manage"}
    template = "webhooks/webhook.html"

    def get(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        return self._answer(webhook_id)

    def post(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        wish = request.POST.get("wish", "")
        if wish == "change":
            form = WebhookForm(request.POST)
            if self.submit(form, "PATCH", "webhook", webhook_id=webhook_id) is None:
                return self._answer(webhook_id, form, 422)
            return self.done("webhook", webhook_id, notice="The webhook is changed.")
        if wish == "rotate":
            made = self.change("POST", "webhook-rotate", {}, webhook_id=webhook_id)
            context = {"webhook_id": webhook_id, "secret": made.data["secret"], "is_new": True}
            return self.page(context, template="webhooks/secret.html")
        if wish == "delete":
            self.change("DELETE", "webhook", webhook_id=webhook_id)
            return self.done("webhooks", notice="The webhook is deleted, and its log.")
        return self._switch(wish, webhook_id)

    def _switch(self, wish: str, webhook_id: UUID) -> HttpResponse:
        if wish == "test":
            self.change("POST", "webhook-test", webhook_id=webhook_id)
            notice = "A test event is on its way."
        elif wish in ("enable", "disable"):
            enabled = {"is_enabled": wish == "enable"}
            self.change("PATCH", "webhook", enabled, webhook_id=webhook_id)
            notice = f"The webhook is {wish}d."
        else:
            raise NotFoundError("there is no such change")
        return self.done("webhook", webhook_id, notice=notice)

    def _answer(
        self, webhook_id: UUID, form: WebhookForm | None = None, status: int = 200
    ) -> HttpResponse:
        webhook = selectors.endpoint_get(tenant=self.actor.tenant, endpoint_id=webhook_id)
        rows, pager = self.paged(selectors.delivery_list(endpoint=webhook))
        values: dict[str, Any] = {
            "url": webhook.url,
            "description": webhook.description,
            "event_types": webhook.event_types,
        }
        context = {
            "webhook": webhook,
            "rows": rows,
            "pager": pager,
            "form": form or WebhookForm(initial=values),
        }
        return self.page(context, status=status)


class DeliveryView(ConsoleView):
    """One delivery; POST sends it again."""

    actions = {"POST": "webhooks.manage"}

    def post(self, request: HttpRequest, webhook_id: UUID, delivery_id: UUID) -> HttpResponse:
        self.change("POST", "webhook-redeliver", webhook_id=webhook_id, delivery_id=delivery_id)
        return self.done("webhook", webhook_id, notice="The event is sent again.")

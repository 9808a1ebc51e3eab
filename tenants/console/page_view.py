"""The pattern of every page below `/t/<tenant>/`.

As at the REST API: what is not the caller's does not exist for it (404); what its role lacks is
refused (403), and both look designed. A page reads through selectors and changes through the API's
addresses (`api_calls`). CONTRIBUTING.md shows how to add one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.db.models import Model, QuerySet
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views import View
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from tenants.accounts.actors import Actor
from tenants.accounts.models import User
from tenants.api.service_api import actor_of, demand
from tenants.console.api_calls import Answer, RefusedError, api_call
from tenants.console.navigation import account_links, navigation_links
from tenants.core.errors import NotFoundError, ServiceError
from tenants.core.middleware import request_id_of
from tenants.core.pagination import NewestFirst

_Row = TypeVar("_Row", bound=Model)

# Of refusals that are pages of their own: title, icon. Others say what went wrong, no more.
TITLES: Mapping[int, tuple[str, str]] = {
    402: ("The quota or the account stops this", "bill"),
    403: ("Your role does not allow this", "lock"),
    404: ("There is nothing here", "search"),
    423: ("Another operation is running", "operations"),
    429: ("Too many requests", "alert"),
}


class ConsoleView(View):
    """A page of a tenant. `actions` says what each method demands of a role."""

    actions: Mapping[str, str] = {}
    template = ""
    # What HTMX gets instead of the whole page, where the page has such a part.
    part = ""
    actor: Actor
    http_method_names = ["get", "head", "post"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Sign-in, tenant, right; then the method, and what it refuses."""
        if not request.user.is_authenticated:
            return self._sign_in(request)
        try:
            self.actor = actor_of(_asked(request), kwargs.pop("tenant"))
            method = "GET" if request.method == "HEAD" else str(request.method)
            if hasattr(self, method.lower()):
                demand(self.actor, self.actions[method], kwargs.get("instance", ""))
            self.before(request, **kwargs)
            answer = super().dispatch(request, *args, **kwargs)
            assert isinstance(answer, HttpResponse)
        except ServiceError as error:
            answer = self.refused(error)
        # A page of a tenant is nobody else's, and a button "back" must not show it after sign-out.
        answer.headers.setdefault("Cache-Control", "no-store")
        answer.headers["Vary"] = "Cookie, HX-Request"
        return answer

    def before(self, request: HttpRequest, **kwargs: Any) -> None:
        """Find what all methods of a page need; what is not there is a NotFoundError."""

    @property
    def is_part(self) -> bool:
        """Whether HTMX asks for a part of a page."""
        return (
            self.request.headers.get("HX-Request") == "true"
            and "HX-History-Restore-Request" not in self.request.headers
        )

    def page(
        self, context: Mapping[str, Any] | None = None, *, status: int = 200, template: str = ""
    ) -> HttpResponse:
        """Answer the page, or its part if HTMX asks and there is one."""
        name = template or (self.part if self.is_part and self.part else self.template)
        return render(self.request, name, {**self._shell(), **(context or {})}, status=status)

    def json(self, data: Any) -> JsonResponse:
        """Answer data, for charts and the palette."""
        return JsonResponse(data)

    def change(
        self,
        method: str,
        name: str,
        data: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Answer:
        """Call the API's address `name` of this tenant; RefusedError, if not handled, is shown."""
        kwargs.setdefault("tenant", self.actor.tenant.handle)
        return api_call(self.request, method, name, data, **kwargs)

    def submit(
        self,
        form: BaseForm,
        method: str,
        name: str,
        data: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Answer | None:
        """Call as `change` does with a form's data, or `data`; None: the form says what is wrong.

        Answer the form again then, with status 422.
        """
        if not form.is_valid():
            return None
        try:
            return self.change(method, name, form.cleaned_data if data is None else data, **kwargs)
        except RefusedError as error:
            if error.status in (403, 404):
                raise
            form_refuse(form, error)
            return None

    def done(self, page: str, *args: Any, notice: str = "") -> HttpResponse:
        """Go to the page `page` of this tenant after a change, and say `notice` there."""
        if notice:
            messages.success(self.request, notice)
        address = reverse(f"console:{page}", args=[self.actor.tenant.handle, *args])
        if self.is_part:
            return HttpResponse(status=204, headers={"HX-Redirect": address})
        return redirect(address)

    def toast(self, answer: HttpResponse, text: str, level: str = "success") -> HttpResponse:
        """Have `answer` to HTMX say something in a corner."""
        answer.headers["HX-Trigger"] = json.dumps({"toast": {"text": text, "level": level}})
        return answer

    def paged(
        self, rows: QuerySet[_Row], *, limit: int = 50, ordering: str = "-id"
    ) -> tuple[list[_Row], dict[str, str]]:
        """Return one page of `rows`, newest first, and `pager` for `components/pager.html`."""
        paginator = NewestFirst()
        paginator.ordering = ordering
        paginator.page_size = limit
        try:
            found = paginator.paginate_queryset(rows, Request(self.request), view=None)
        except NotFound as error:
            raise NotFoundError("there is no such page of this list") from error
        links = {"older": paginator.get_next_link(), "newer": paginator.get_previous_link()}
        pager = {name: _local(link) for name, link in links.items()}
        if pager["newer"]:
            kept = self.request.GET.copy()
            kept.pop("cursor", None)
            pager["newer"] = f"?{kept.urlencode()}"
        return list(found or []), pager

    def refused(self, error: ServiceError) -> HttpResponse:
        """Answer a refusal: a toast for a part, else a page that says what and why."""
        if self.is_part:
            answer = HttpResponse(status=error.status, headers={"HX-Reswap": "none"})
            return self.toast(answer, error.message, "error")
        title, icon = TITLES.get(error.status, ("That did not work", "alert"))
        context = {
            "title": title,
            "icon": icon,
            "detail": error.message,
            "fields": error.fields,
            "request_id": request_id_of(self.request),
        }
        if not hasattr(self, "actor"):
            return render(self.request, "console/problem.html", context, status=error.status)
        return self.page(context, status=error.status, template="console/refused.html")

    def _shell(self) -> dict[str, Any]:
        match = self.request.resolver_match
        page = match.url_name if match is not None else ""
        user = self.request.user
        assert isinstance(user, User)
        return {
            "actor": self.actor,
            "tenant": self.actor.tenant,
            "memberships": user.memberships.select_related("tenant").order_by("tenant__handle"),
            "navigation": navigation_links(self.actor, page or ""),
            "account_links": account_links(),
        }

    def _sign_in(self, request: HttpRequest) -> HttpResponse:
        if request.headers.get("HX-Request") == "true":
            return HttpResponse(status=204, headers={"HX-Redirect": reverse("console:home")})
        return redirect_to_login(request.get_full_path())


def form_refuse(form: BaseForm, error: ServiceError) -> None:
    """Have the form say what was refused, at the fields that it has."""
    for name, texts in error.fields.items():
        for text in texts if isinstance(texts, list) else [texts]:
            form.add_error(name if name in form.fields else None, str(text))
    if not error.fields:
        form.add_error(None, error.message)


def _asked(request: HttpRequest) -> Request:
    """Return the page's request as the API's rules about actors want it: a person's session."""
    asked = Request(request)
    asked.user = request.user
    asked.auth = None
    return asked


def _local(link: str | None) -> str:
    return f"?{link.partition('?')[2]}" if link else ""

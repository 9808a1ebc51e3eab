"""Pages of a person's own account: profile, sessions; and the way in for who has no tenant."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache

from tenants.accounts import selectors, services, sessions
from tenants.accounts.adapters import address_of
from tenants.accounts.entrance import mail_directory
from tenants.accounts.forms import ProfileForm, TenantForm
from tenants.accounts.models import User
from tenants.accounts.second_factors import has_second_factor
from tenants.accounts.sign_up import may_start_tenant
from tenants.core.errors import ServiceError
from tenants.core.middleware import request_id_of


@method_decorator([login_required, never_cache], name="dispatch")
class AccountView(View):
    """A page of the account of who is signed in."""

    http_method_names = ["get", "head", "post"]
    template = ""

    @property
    def person(self) -> User:
        assert isinstance(self.request.user, User)
        return self.request.user

    def page(self, context: dict[str, Any], status: int = 200) -> HttpResponse:
        return render(self.request, self.template, context, status=status)


class ProfileView(AccountView):
    template = "account/profile.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._page(ProfileForm(instance=self.person))

    def post(self, request: HttpRequest) -> HttpResponse:
        form = ProfileForm(request.POST, instance=self.person)
        if not form.is_valid():
            return self._page(form, status=422)
        services.user_rename(user=self.person, name=form.cleaned_data["name"])
        messages.success(request, "Your name is saved.")
        return redirect("account_profile")

    def _page(self, form: ProfileForm, status: int = 200) -> HttpResponse:
        context = {
            "form": form,
            "addresses": EmailAddress.objects.filter(user=self.person).order_by("-primary"),
            "has_second_factor": has_second_factor(self.person),
            "has_password": self.person.has_usable_password(),
            "memberships": self.person.memberships.select_related("tenant").order_by(
                "tenant__handle"
            ),
            "mail_directory": mail_directory(),
        }
        return self.page(context, status)


class SessionsView(AccountView):
    template = "account/sessions.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        found = selectors.session_list(user=self.person)
        return self.page({"sessions": found, "session_key": request.session.session_key})

    def post(self, request: HttpRequest) -> HttpResponse:
        asked = {"address": address_of(request), "request_id": request_id_of(request)}
        chosen = request.POST.get("session", "")
        if chosen.isascii() and chosen.isdigit() and len(chosen) < 10:
            try:
                sessions.session_revoke(user=self.person, session_id=int(chosen), **asked)
                messages.success(request, "The session is signed out.")
            except ServiceError as error:
                messages.error(request, error.message)
        else:
            keep = request.session.session_key or ""
            count = sessions.sessions_revoke_others(user=self.person, keep=keep, **asked)
            messages.success(request, f"Signed out elsewhere: {count}.")
        return redirect("account_sessions")


class HomeView(AccountView):
    """Go to the person's first tenant; without one, make one or be told how to get in."""

    template = "console/no_tenant.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        mine = self.person.memberships.select_related("tenant").order_by("tenant__handle")
        first = mine.first()
        if first is not None:
            return redirect("console:overview", first.tenant.handle)
        form = TenantForm() if may_start_tenant(user=self.person) else None
        return self.page({"form": form})

    def post(self, request: HttpRequest) -> HttpResponse:
        if not may_start_tenant(user=self.person):
            return self.page({"form": None}, 403)
        form = TenantForm(request.POST)
        if form.is_valid():
            try:
                handle = form.cleaned_data["organisation"]
                tenant = services.tenant_start(user=self.person, handle=handle)
                return redirect("console:overview", tenant.handle)
            except ServiceError as error:
                form.add_error("organisation", error.message)
        return self.page({"form": form}, 422)

"""Pages of who is not signed in yet: password, second factor, provider, sign-up, invitation.

They are allauth's, with our bounds: attempts are counted by `sign_ins.py`, and one too many is a
429 that says when again and tells nothing about the account.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from allauth.account.internal.flows.login import perform_password_login
from allauth.account.models import Login
from allauth.account.views import LoginView, ReauthenticateView, SignupView
from allauth.mfa.base.views import AuthenticateView
from allauth.mfa.base.views import ReauthenticateView as SecondReauthenticateView
from allauth.socialaccount.adapter import get_adapter as provider_adapter
from allauth.socialaccount.providers.openid_connect.views import login as provider_login
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache

from tenants.accounts import invitations, sign_ins
from tenants.accounts.adapters import address_of
from tenants.accounts.forms import AcceptForm
from tenants.accounts.models import Invitation, User
from tenants.accounts.sign_up import sign_up_is_open
from tenants.core.errors import ServiceError, TooManyError
from tenants.core.middleware import request_id_of


class CountedMixin:
    """A form whose attempts are counted before they are looked at."""

    request: HttpRequest
    template_name: str

    def count(self) -> None:
        """Count an attempt, where allauth's adapter does not."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            self.count()
            answer: HttpResponse = super().post(request, *args, **kwargs)  # type: ignore[misc]
        except TooManyError as refusal:
            # Whether the attempt was right must not show: no form, no other word.
            context = {"refusal": refusal.message}
            answer = render(request, "account/too_many.html", context, status=refusal.status)
            answer["Retry-After"] = str(refusal.retry_after_s)
        return answer


class SignInView(CountedMixin, LoginView):
    template_name = "console/sign_in.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add what else one can sign in with."""
        return {
            **super().get_context_data(**kwargs),
            "providers": provider_adapter().list_providers(self.request),
            "sign_up_is_open": sign_up_is_open(),
        }


class SignUpView(SignupView):
    template_name = "account/sign_up.html"

    def form_valid(self, form: Any) -> Any:
        try:
            return super().form_valid(form)
        except ServiceError as error:
            form.add_error(None, error.message)
            return self.form_invalid(form)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Say where mails are, while nobody has said how to send them."""
        context = super().get_context_data(**kwargs)
        return {**context, "mail_directory": mail_directory()}


class SecondFactorView(CountedMixin, AuthenticateView):
    """A code or a passkey after the password; counted apart from it."""

    def count(self) -> None:
        sign_ins.sign_in_count(email=self._counted, address=address_of(self.request))

    def form_valid(self, form: Any) -> Any:
        if not _is_fresh(form, self.stage.login.user):
            return self.form_invalid(form)
        sign_ins.attempts_forget(email=self._counted, address=address_of(self.request))
        return super().form_valid(form)

    def form_invalid(self, form: Any) -> Any:
        sign_ins.sign_in_failed(
            email=self.stage.login.user.email,
            address=address_of(self.request),
            request_id=request_id_of(self.request),
        )
        return super().form_invalid(form)

    @property
    def _counted(self) -> str:
        return f"second factor {self.stage.login.user.email}"


class PasswordAgainView(CountedMixin, ReauthenticateView):
    pass


class SecondFactorAgainView(CountedMixin, SecondReauthenticateView):
    def count(self) -> None:
        user = self.request.user
        assert isinstance(user, User)
        counted = f"second factor {user.email}"
        sign_ins.sign_in_count(email=counted, address=address_of(self.request))

    def form_valid(self, form: Any) -> Any:
        user = self.request.user
        assert isinstance(user, User)
        if not _is_fresh(form, user):
            return self.form_invalid(form)
        counted = f"second factor {user.email}"
        sign_ins.attempts_forget(email=counted, address=address_of(self.request))
        return super().form_valid(form)


def provider_sign_in(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Send a person to a provider: by a page, as the CSP lets forms lead nowhere but here."""
    answer: HttpResponse = provider_login(request, provider_id)
    if answer.status_code != 302:
        return answer
    page = render(request, "account/leaving.html", {"address": answer["Location"]})
    page["Referrer-Policy"] = "no-referrer"
    return page


@method_decorator(never_cache, name="dispatch")
class InvitationView(View):
    """What a mailed link opens: accept as who is signed in, sign in first, or make an account."""

    template_name = "account/invitation.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        self.token = str(kwargs["token"])
        try:
            self.invitation = invitations.invitation_find(
                invitation_id=kwargs["invitation_id"], token=self.token
            )
            answer = super().dispatch(request, *args, **kwargs)
        except ServiceError as error:
            context = {"refusal": error.message}
            answer = render(request, self.template_name, context, status=error.status)
        # Django would log the path of a refusal, and the path is the secret.
        answer._has_been_logged = True  # type: ignore[attr-defined]
        return answer

    def get(self, request: HttpRequest, invitation_id: UUID, token: str) -> HttpResponse:
        return self._page(AcceptForm(email=self.invitation.email))

    def post(self, request: HttpRequest, invitation_id: UUID, token: str) -> HttpResponse:
        asked = {"request_id": request_id_of(request), "address": address_of(request)}
        tenant = self.invitation.tenant.handle
        if isinstance(request.user, User):
            invitations.invitation_accept(
                invitation=self.invitation, user=request.user, token=self.token, **asked
            )
            return redirect("console:overview", tenant)
        form = AcceptForm(request.POST, email=self.invitation.email)
        if not form.is_valid():
            return self._page(form, status=422)
        user = invitations.invitation_accept_as_new(
            invitation=self.invitation, token=self.token, **form.cleaned_data, **asked
        )
        messages.success(request, f"You are a member of {tenant} now.")
        login = Login(user=user, redirect_url=f"/t/{tenant}/", email=user.email)
        answer: HttpResponse = perform_password_login(
            request, {"email": user.email, "password": form.cleaned_data["password"]}, login
        )
        return answer

    def _page(self, form: AcceptForm, status: int = 200) -> HttpResponse:
        context = {
            "invitation": self.invitation,
            "form": form,
            "is_known": _is_known(self.invitation),
            "is_theirs": getattr(self.request.user, "email", "") == self.invitation.email,
        }
        return render(self.request, self.template_name, context, status=status)


def mail_directory() -> str:
    """Return where mails are written instead of sent; "" where they are sent."""
    return str(settings.MAIL_DIRECTORY) if "filebased" in settings.EMAIL_BACKEND else ""


def _is_fresh(form: Any, user: User) -> bool:
    """Take the code of a form; a passkey's answer is no code, and fresh by its challenge."""
    code = form.cleaned_data.get("code")
    if code is None or sign_ins.code_claim(user=user, code=code):
        return True
    form.add_error("code", "This code was used already.")
    return False


def _is_known(invitation: Invitation) -> bool:
    return User.objects.filter(email=invitation.email).exists()

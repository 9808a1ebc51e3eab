"""Pages without a tenant: sign-in, the choice of a password after an invitation, the way in."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, PasswordResetConfirmView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.views.decorators.http import require_safe

from tenants.accounts import sign_ins
from tenants.accounts.models import User
from tenants.core.errors import TooManyError
from tenants.core.middleware import request_id_of


class SignInView(LoginView):
    template_name = "console/sign_in.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            sign_ins.sign_in_count(email=self._email(), address=self._address())
        except TooManyError as refusal:
            self._note_failure(refusal.status)
            # The form is not read: whether the password is right must not show.
            context = {"refusal": refusal.message, "next": self.get_redirect_url()}
            answer = render(request, self.template_name, context, status=refusal.status)
            answer["Retry-After"] = str(refusal.retry_after_s)
            return answer
        return super().post(request, *args, **kwargs)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        assert isinstance(user, User)
        sign_ins.sign_in_succeeded(
            user=user, address=self._address(), request_id=request_id_of(self.request)
        )
        return super().form_valid(form)

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        self._note_failure(401)
        return super().form_invalid(form)

    def _note_failure(self, reason_code: int) -> None:
        sign_ins.sign_in_failed(
            email=self._email(),
            address=self._address(),
            request_id=request_id_of(self.request),
            reason_code=reason_code,
        )

    def _email(self) -> str:
        return self.request.POST.get("username", "").replace("\0", "")

    def _address(self) -> str:
        return str(self.request.META.get("REMOTE_ADDR", ""))


class InvitationView(PasswordResetConfirmView):
    """One link, one use: choosing a password ends the link."""

    template_name = "console/invitation.html"
    success_url = reverse_lazy("console:sign-in")


@login_required
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Go to the person's first tenant; say so if there is none."""
    assert isinstance(request.user, User)
    first = request.user.memberships.select_related("tenant").order_by("tenant__handle").first()
    if first is None:
        return render(request, "console/no_tenant.html")
    return redirect("console:overview", first.tenant.handle)

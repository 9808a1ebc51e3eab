"""Pages: sign-in, the choice of a password after an invitation, the list of instances. Thin."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView, PasswordResetConfirmView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse_lazy
from django.views.decorators.http import require_safe

from tenants.accounts.models import User
from tenants.console.selectors import dashboard_tenants


class SignInView(LoginView):
    template_name = "console/sign_in.html"
    redirect_authenticated_user = True


class InvitationView(PasswordResetConfirmView):
    """One link, one use: choosing a password ends the link."""

    template_name = "console/invitation.html"
    success_url = reverse_lazy("console:sign-in")


@login_required
@require_safe
def dashboard(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    return render(request, "console/dashboard.html", {"tenants": dashboard_tenants(request.user)})

"""Pages of a tenant's people: members, invitations, ownership; and the tenant's settings."""

from __future__ import annotations

from uuid import UUID

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from tenants.accounts import selectors
from tenants.accounts.models import MemberRole
from tenants.console.page_view import ConsoleView
from tenants.core.errors import NotFoundError


class InviteForm(forms.Form):
    email = forms.EmailField(label="E-mail address")
    role = forms.ChoiceField(choices=MemberRole.choices, initial=MemberRole.MEMBER)


class TenantSettingsForm(forms.Form):
    name = forms.CharField(max_length=120)
    requires_second_factor = forms.BooleanField(
        required=False,
        label="Members need a second factor",
        help_text="Who has neither an authenticator app nor a passkey is refused until they do.",
    )


class MembersView(ConsoleView):
    """Members and open invitations; POST invites."""

    actions = {"GET": "members.read", "POST": "members.manage"}
    template = "accounts/members.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._answer(InviteForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = InviteForm(request.POST)
        made = self.submit(form, "POST", "invitations")
        if made is None:
            return self._answer(form, 422)
        return self.done("members", notice=f"{made.data['email']} is invited.")

    def _answer(self, form: InviteForm, status: int = 200) -> HttpResponse:
        tenant = self.actor.tenant
        rows, pager = self.paged(selectors.member_list(tenant=tenant))
        invited = selectors.invitation_list(tenant=tenant).order_by("-id")
        factors = selectors.second_factor_holders(user_ids=[row.user_id for row in rows])
        context = {
            "rows": rows,
            "pager": pager,
            "form": form,
            "invitations": invited if self.actor.may("members.manage") else [],
            "holders": factors,
            "roles": MemberRole.choices,
            "me": self.actor.member_id,
        }
        return self.page(context, status=status)


class MemberView(ConsoleView):
    """One member; POST changes the role, hands ownership over, or removes."""

    actions = {"POST": "members.manage"}

    def post(self, request: HttpRequest, member_id: UUID) -> HttpResponse:
        wish = request.POST.get("wish")
        if wish == "role":
            role = {"role": request.POST.get("role", "")}
            self.change("PATCH", "member", role, member_id=member_id)
            return self.done("members", notice="The role is changed.")
        if wish == "transfer":
            self.change("POST", "tenant-transfer", {"member": str(member_id)})
            return self.done("members", notice="The tenant has another owner; you administer it.")
        if wish == "remove":
            self.change("DELETE", "member", member_id=member_id)
            return self.done("members", notice="The member is removed.")
        raise NotFoundError("there is no such change")


class InvitedView(ConsoleView):
    """One invitation; POST sends it again or revokes it."""

    actions = {"POST": "members.manage"}

    def post(self, request: HttpRequest, invitation_id: UUID) -> HttpResponse:
        if request.POST.get("wish") == "resend":
            self.change("POST", "invitation-resend", invitation_id=invitation_id)
            return self.done("members", notice="A new link is on its way; the old one ended.")
        self.change("DELETE", "invitation", invitation_id=invitation_id)
        return self.done("members", notice="The invitation is revoked.")


class LeaveView(ConsoleView):
    actions = {"POST": "tenant.read"}

    def post(self, request: HttpRequest) -> HttpResponse:
        self.change("POST", "tenant-leave")
        messages.success(request, f"You left {self.actor.tenant.handle}.")
        return redirect("console:home")


class SettingsView(ConsoleView):
    """The tenant's name, and what it demands of its members."""

    actions = {"GET": "tenant.update", "POST": "tenant.update"}
    template = "accounts/settings.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        tenant = self.actor.tenant
        values = {"name": tenant.name, "requires_second_factor": tenant.requires_second_factor}
        return self.page({"form": TenantSettingsForm(initial=values)})

    def post(self, request: HttpRequest) -> HttpResponse:
        form = TenantSettingsForm(request.POST)
        if self.submit(form, "PATCH", "tenant") is None:
            return self.page({"form": form}, status=422)
        return self.done("tenant-settings", notice="The settings are saved.")

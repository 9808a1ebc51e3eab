"""Pages: service ids, API keys, policies, the question "may X do Y on Z", and one's own keys."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from tenants.accounts.permissions import CATALOGUE
from tenants.console.api_calls import RefusedError
from tenants.console.page_view import ConsoleView
from tenants.core.errors import ForbiddenError, NotFoundError
from tenants.iam import forms, selectors
from tenants.iam.checks import kind_of
from tenants.iam.models import ApiKey

SUBJECTS_MAX = 500


class ServiceIdsView(ConsoleView):
    actions = {"GET": "service_ids.read", "POST": "service_ids.manage"}
    template = "iam/service_ids.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._answer(forms.ServiceIdForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = forms.ServiceIdForm(request.POST)
        made = self.submit(form, "POST", "service-ids")
        if made is None:
            return self._answer(form, 422)
        notice = "The service id is made. It may do nothing until it has a policy."
        return self.done("iam-service-id", made.data["id"], notice=notice)

    def _answer(self, form: forms.ServiceIdForm, status: int = 200) -> HttpResponse:
        rows, pager = self.paged(selectors.service_id_overview(tenant=self.actor.tenant))
        return self.page({"rows": rows, "pager": pager, "form": form}, status=status)


class ServiceIdView(ConsoleView):
    """One service id with its policies, keys and credentials; POST changes or deletes it."""

    actions = {"GET": "service_ids.read", "POST": "service_ids.manage"}
    template = "iam/service_id.html"

    def get(self, request: HttpRequest, service_id: UUID) -> HttpResponse:
        tenant = self.actor.tenant
        service = selectors.service_id_get(tenant=tenant, service_id=service_id)
        policies = selectors.policy_list(tenant=tenant).filter(service=service)
        keys = selectors.api_key_list(tenant=tenant).filter(service=service)
        context = {
            "service": service,
            "policies": policies.order_by("id"),
            "keys": keys.filter(revoked_at=None).order_by("id"),
            "credentials": selectors.service_id_credentials(service=service),
            "subject": f"service_id:{service.pk}",
        }
        return self.page(context)

    def post(self, request: HttpRequest, service_id: UUID) -> HttpResponse:
        wish = request.POST.get("wish")
        if wish == "delete":
            self.change("DELETE", "service-id", service_id=service_id)
            return self.done("iam", notice="The service id is deleted, and all that it had.")
        if wish not in ("enable", "disable"):
            raise NotFoundError("there is no such change")
        enabled = {"is_enabled": wish == "enable"}
        self.change("PATCH", "service-id", enabled, service_id=service_id)
        notice = f"The service id is {wish}d."
        return self.done("iam-service-id", service_id, notice=notice)


class KeysView(ConsoleView):
    """All keys of the tenant; POST makes one of the tenant itself."""

    actions = {"GET": "api_keys.read", "POST": "api_keys.manage"}
    template = "iam/keys.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._answer(forms.TenantKeyForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = forms.TenantKeyForm(request.POST)
        answer = _key_made(self, form, "api-keys", {})
        return answer or self._answer(form, 422)

    def _answer(self, form: forms.TenantKeyForm, status: int = 200) -> HttpResponse:
        rows, pager = self.paged(selectors.api_key_list(tenant=self.actor.tenant))
        return self.page({"rows": rows, "pager": pager, "form": form}, status=status)


class ServiceKeyView(ConsoleView):
    """Makes a key of a service id."""

    actions = {"GET": "api_keys.manage", "POST": "api_keys.manage"}
    template = "iam/key_form.html"

    def get(self, request: HttpRequest, service_id: UUID) -> HttpResponse:
        return self._answer(forms.KeyForm(), service_id)

    def post(self, request: HttpRequest, service_id: UUID) -> HttpResponse:
        form = forms.KeyForm(request.POST)
        answer = _key_made(self, form, "api-keys", {"service_id": str(service_id)})
        return answer or self._answer(form, service_id, 422)

    def _answer(self, form: forms.KeyForm, service_id: UUID, status: int = 200) -> HttpResponse:
        tenant = self.actor.tenant
        service = selectors.service_id_get(tenant=tenant, service_id=service_id)
        return self.page({"form": form, "service": service}, status=status)


class KeyView(ConsoleView):
    """One key; POST rerolls, disables, enables or revokes it."""

    actions = {"GET": "api_keys.read", "POST": "api_keys.manage"}
    template = "iam/key.html"
    addresses = {"reroll": "api-key-reroll", "key": "api-key"}
    back = "iam-keys"

    def find(self, key_id: UUID) -> ApiKey:
        """Return the key that is meant."""
        return selectors.api_key_get(tenant=self.actor.tenant, key_id=key_id)

    def get(self, request: HttpRequest, key_id: UUID) -> HttpResponse:
        return self._answer(self.find(key_id), forms.RerollForm())

    def post(self, request: HttpRequest, key_id: UUID) -> HttpResponse:
        key = self.find(key_id)
        wish = request.POST.get("wish")
        if wish == "reroll":
            form = forms.RerollForm(request.POST)
            made = self.submit(form, "POST", self.addresses["reroll"], key_id=key_id)
            if made is None:
                return self._answer(key, form, 422)
            return _shown_once(self, made.data, self.back)
        if wish == "revoke":
            self.change("DELETE", self.addresses["key"], key_id=key_id)
            return self.done(self.back, notice="The key is revoked, with every token it got.")
        if wish not in ("enable", "disable"):
            raise NotFoundError("there is no such change")
        enabled = {"is_enabled": wish == "enable"}
        self.change("PATCH", self.addresses["key"], enabled, key_id=key_id)
        return self.done(self.back, notice=f"The key is {wish}d.")

    def _answer(self, key: ApiKey, form: forms.RerollForm, status: int = 200) -> HttpResponse:
        policies = selectors.policy_list(tenant=self.actor.tenant).filter(api_key=key)
        may_change = key.revoked_at is None and self.actor.may(self.actions["POST"])
        context = {
            "key": key,
            "secrets": key.secrets.order_by("-issued_at"),
            "form": form,
            "policies": policies.order_by("id"),
            "subject": f"api_key:{key.pk}",
            "back": self.back,
            "is_own": self.back == "my-keys",
            "may_change": may_change,
        }
        return self.page(context, status=status)


class OwnKeysView(ConsoleView):
    """One's own keys in a tenant."""

    actions = {"GET": "own_keys.manage", "POST": "own_keys.manage"}
    template = "iam/own_keys.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._answer(forms.KeyForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = forms.KeyForm(request.POST)
        return _key_made(self, form, "my-keys", {}, "my-keys") or self._answer(form, 422)

    def _answer(self, form: forms.KeyForm, status: int = 200) -> HttpResponse:
        keys = selectors.api_key_list(tenant=self.actor.tenant)
        rows, pager = self.paged(keys.filter(membership=_member_id(self)))
        return self.page({"rows": rows, "pager": pager, "form": form}, status=status)


class OwnKeyView(KeyView):
    actions = {"GET": "own_keys.manage", "POST": "own_keys.manage"}
    addresses = {"reroll": "my-key-reroll", "key": "my-key"}
    back = "my-keys"

    def find(self, key_id: UUID) -> ApiKey:
        return selectors.api_key_get(
            tenant=self.actor.tenant, key_id=key_id, member_id=_member_id(self)
        )


class PoliciesView(ConsoleView):
    actions = {"GET": "policies.read"}
    template = "iam/policies.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        rows, pager = self.paged(selectors.policy_list(tenant=self.actor.tenant))
        return self.page({"rows": rows, "pager": pager})


class PolicyFormView(ConsoleView):
    """Makes a policy of the subject that the address names."""

    actions = {"GET": "policies.manage", "POST": "policies.manage"}
    template = "iam/policy_form.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._answer(forms.PolicyForm(), request.GET.get("subject", ""))

    def post(self, request: HttpRequest) -> HttpResponse:
        form = forms.PolicyForm(request.POST)
        subject = request.POST.get("subject", "")
        kind, _, subject_id = subject.partition(":")
        if form.is_valid():
            body = {**form.body(), "subject": {"type": kind, "id": subject_id}}
            if self.submit(form, "POST", "policies", body) is not None:
                notice = "The policy holds from now on, inside instances too."
                if kind == "service_id":
                    return self.done("iam-service-id", subject_id, notice=notice)
                return self.done("iam-policies", notice=notice)
        return self._answer(form, subject, 422)

    def _answer(self, form: forms.PolicyForm, subject: str, status: int = 200) -> HttpResponse:
        context = {
            "form": form,
            "subject": subject,
            "subjects": selectors.subject_choices(tenant=self.actor.tenant, limit=SUBJECTS_MAX),
        }
        return self.page(context, status=status)


class PolicyView(ConsoleView):
    """Takes a policy away."""

    actions = {"POST": "policies.manage"}

    def post(self, request: HttpRequest, policy_id: UUID) -> HttpResponse:
        policy = selectors.policy_get(tenant=self.actor.tenant, policy_id=policy_id)
        self.change("DELETE", "policy", policy_id=policy_id)
        notice = "The policy is gone, inside instances too."
        if policy.service_id is not None:
            return self.done("iam-service-id", policy.service_id, notice=notice)
        return self.done("iam-policies", notice=notice)


class CheckView(ConsoleView):
    """May X do Y on Z; and what each role may."""

    actions = {"GET": "policies.read"}
    template = "iam/check.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        subjects = selectors.subject_choices(tenant=self.actor.tenant, limit=SUBJECTS_MAX)
        form = forms.CheckForm(subjects, request.GET or None)
        context: dict[str, Any] = {
            "form": form,
            "roles": [
                {"name": role, "kind": kind_of(role), "actions": sorted(actions)}
                for role, actions in CATALOGUE.items()
            ],
        }
        if form.is_bound and form.is_valid():
            try:
                answer = self.change("GET", "iam-check", query=form.query()).data
                context["answer"] = {**answer, "text": _in_words(self, answer)}
            except RefusedError as error:
                form.add_error(None, error.message)
        return self.page(context)


def _in_words(view: ConsoleView, answer: dict[str, Any]) -> str:
    if not answer["is_allowed"]:
        return "No. No policy says so."
    source = answer["policy"]
    if source.startswith("role:"):
        return f"Yes, by the role {source.removeprefix('role:')}."
    policy = selectors.policy_get(tenant=view.actor.tenant, policy_id=UUID(source))
    given = ", ".join([*policy.roles, *policy.actions])
    return f"Yes, by a policy of {policy.created_by} ({given})."


def _key_made(
    view: ConsoleView, form: forms.KeyForm, address: str, more: dict[str, Any], back: str = ""
) -> HttpResponse | None:
    """Make a key and answer the page that shows it once; None if the form says what is wrong."""
    if not form.is_valid():
        return None
    headers = {"Idempotency-Key": form.cleaned_data["idempotency"]}
    made = view.submit(form, "POST", address, {**form.body(), **more}, headers=headers)
    return None if made is None else _shown_once(view, made.data, back or "iam-keys")


def _shown_once(view: ConsoleView, key: dict[str, Any], back: str) -> HttpResponse:
    return view.page({"key": key, "back": back}, template="iam/key_made.html")


def _member_id(view: ConsoleView) -> UUID:
    if view.actor.member_id is None:
        raise ForbiddenError("only a member has keys of their own")
    return view.actor.member_id

"""The forms of the IAM pages; `body()` is what the API is asked with. The API validates."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django import forms
from django.utils import timezone

from engines.kit.iam import RESOURCE_KINDS, Operator, PlatformRole, ServiceRole
from engines.kit.iam.vocabulary import ENGINES
from tenants.accounts.models import MemberRole
from tenants.accounts.permissions import ALL_ACTIONS

DAYS = [("", "for ever"), ("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("365", "a year")]
GRACES = [
    ("86400", "a day"),
    ("604800", "7 days"),
    ("3600", "an hour"),
    ("0", "not at all: it ends now"),
]
ROLES = [(role.value, role.value) for role in (*PlatformRole, *ServiceRole)]
KINDS = sorted({kind for kinds in RESOURCE_KINDS.values() for kind in kinds})


class ServiceIdForm(forms.Form):
    name = forms.CharField(max_length=80, help_text="What runs with it: a program or a job.")
    description = forms.CharField(max_length=300, required=False)


class KeyForm(forms.Form):
    """A key of a service id or of one's own."""

    name = forms.CharField(max_length=80)
    environment = forms.CharField(
        max_length=32, required=False, help_text="A word for where it is used, such as prod."
    )
    days = forms.ChoiceField(choices=DAYS, required=False, label="Works")
    networks = forms.CharField(
        required=False,
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Networks that it works from, one a line (192.0.2.0/24). Empty: from anywhere.",
    )
    # A form that is sent twice makes one key.
    idempotency = forms.CharField(widget=forms.HiddenInput, initial=lambda: uuid4().hex)

    def body(self) -> dict[str, Any]:
        """Return what the API is asked with."""
        data = self.cleaned_data
        return {
            "name": data["name"],
            "environment": data["environment"],
            "expires_at": _midnight_after(int(data["days"])) if data["days"] else None,
            "cidrs": data["networks"].split(),
        }


class TenantKeyForm(KeyForm):
    """A key of the tenant, with a role."""

    role = forms.ChoiceField(
        choices=[*MemberRole.choices, ("", "none: policies alone")],
        required=False,
        initial=MemberRole.READ_ONLY.value,
    )

    def body(self) -> dict[str, Any]:
        return {**super().body(), "role": self.cleaned_data["role"] or None}


class RerollForm(forms.Form):
    grace_s = forms.TypedChoiceField(
        choices=GRACES, coerce=int, label="How long the old secret still works"
    )


class PolicyForm(forms.Form):
    """Roles or actions, and where."""

    roles = forms.MultipleChoiceField(
        choices=ROLES, required=False, widget=forms.CheckboxSelectMultiple
    )
    actions = forms.CharField(
        required=False,
        max_length=8000,
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
        label="Single actions",
        help_text="One a line, such as instances.suspend or weftkit.relational.data.read.",
    )
    engine = forms.ChoiceField(
        choices=[("", "every engine"), *((name, name) for name in sorted(ENGINES))], required=False
    )
    instance = forms.CharField(
        required=False,
        max_length=40,
        help_text="Its name; * stands for any text, ? for one character. Empty: every instance.",
    )
    resource_type = forms.ChoiceField(
        choices=[("", "the whole of it"), *((kind, kind) for kind in KINDS)],
        required=False,
        label="Part of the instance",
    )
    resource = forms.CharField(
        required=False, max_length=255, label="Name of the part", help_text="With * and ?."
    )
    description = forms.CharField(max_length=300, required=False)

    def body(self) -> dict[str, Any]:
        """Return what the API is asked with, but for the subject."""
        data = self.cleaned_data
        names = ("engine", "instance", "resource_type", "resource")
        return {
            "roles": data["roles"],
            "actions": data["actions"].split(),
            "scope": {name: _match(data[name]) for name in names if data[name]},
            "description": data["description"],
        }


class CheckForm(forms.Form):
    """May X do Y on Z."""

    subject = forms.ChoiceField(label="Who", required=False)
    action = forms.ChoiceField(
        label="What", choices=[(action, action) for action in sorted(ALL_ACTIONS)]
    )
    instance = forms.CharField(
        label="On which instance", required=False, max_length=40, help_text="Empty: the tenant."
    )

    def __init__(self, subjects: list[tuple[str, str]], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["subject"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "I myself"), *subjects]

    def query(self) -> dict[str, str]:
        """Return what the API is asked with."""
        data = self.cleaned_data
        asked = {name: data[name] for name in ("action", "instance") if data[name]}
        if data["subject"]:
            kind, _, subject = data["subject"].partition(":")
            asked |= {"subject_type": kind, "subject": subject}
        return asked


def _midnight_after(days: int) -> datetime:
    """Return a whole day's end, so that a form sent twice asks for the same."""
    end = timezone.now() + timedelta(days=days + 1)
    return end.replace(hour=0, minute=0, second=0, microsecond=0)


def _match(value: str) -> dict[str, str]:
    is_pattern = "*" in value or "?" in value
    return {
        "operator": (Operator.MATCHES if is_pattern else Operator.EQUALS).value,
        "value": value,
    }

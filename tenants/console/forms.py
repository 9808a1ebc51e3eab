"""Forms of the console's own pages. What is allowed is decided by the API; these only read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms

from tenants.iam.models import ServiceId
from tenants.instances.models import BLOCKS_MAX, CredentialRole
from tenants.instances.selectors import engine_list
from tenants.usage.selectors import plan_list

LINES = forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "class": "mono"})
# Grace of a rotation in seconds -> what it is called.
GRACES = [("0", "None: the old secret stops at once"), ("3600", "An hour"), ("86400", "A day"),
          ("604800", "Seven days")]  # fmt: skip
EXPIRIES = [("", "Never"), ("1", "In a day"), ("7", "In seven days"), ("90", "In ninety days")]


class InstanceForm(forms.Form):
    """Engine and plan are cards; the rest are fields."""

    engine = forms.ChoiceField(widget=forms.RadioSelect)
    plan = forms.ChoiceField(widget=forms.RadioSelect)
    blocks = forms.IntegerField(
        min_value=1, max_value=BLOCKS_MAX, initial=1, label="Blocks",
        help_text="Each block adds the plan's units again.",
    )  # fmt: skip
    name = forms.SlugField(
        max_length=32, label="Name", help_text="Lower-case letters, digits and hyphens.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )  # fmt: skip
    deletion_protected = forms.BooleanField(
        required=False, initial=True, label="Protect against deletion"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.engines = engine_list()
        self.plans = list(plan_list())
        self.fields["engine"].choices = [(spec.name, spec.title) for spec in self.engines]  # type: ignore[attr-defined]
        self.fields["plan"].choices = [(plan.name, plan.title) for plan in self.plans]  # type: ignore[attr-defined]


class CredentialForm(forms.Form):
    """Of a person or program, or of one of `services`, whose policies it then follows."""

    service_id = forms.ChoiceField(
        required=False, label="Service id",
        help_text="With one, its policies say what it may do here, and the role is the most of it.",
    )  # fmt: skip
    label = forms.CharField(
        max_length=80, required=False, help_text="Which program or person uses it."
    )
    role = forms.ChoiceField(
        choices=[(role.value, role.label) for role in CredentialRole],
        initial=CredentialRole.WRITE,
        help_text="Read: no changes. Write: data. Admin: data and structure.",
    )
    days = forms.ChoiceField(choices=EXPIRIES, required=False, label="Expires")
    cidrs = forms.CharField(
        required=False, widget=LINES, label="Allowed networks",
        help_text="One network a line, such as 192.0.2.0/24. Empty: from everywhere.",
    )  # fmt: skip

    def __init__(self, services: Iterable[ServiceId], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(str(service.pk), service.name) for service in services]
        self.fields["service_id"].choices = [("", "None"), *choices]  # type: ignore[attr-defined]
        if not choices:
            del self.fields["service_id"]

    def clean_service_id(self) -> str | None:
        return self.cleaned_data["service_id"] or None

    def clean_cidrs(self) -> list[str]:
        return str(self.cleaned_data["cidrs"]).split()


class RotateForm(forms.Form):
    grace_s = forms.ChoiceField(
        choices=GRACES, initial="86400", label="The old secret lives on for"
    )

    def clean_grace_s(self) -> int:
        return int(self.cleaned_data["grace_s"])


class PlanForm(forms.Form):
    plan = forms.ChoiceField(label="Plan")
    blocks = forms.IntegerField(min_value=1, max_value=BLOCKS_MAX, label="Blocks")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["plan"].choices = [(plan.name, plan.title) for plan in plan_list()]  # type: ignore[attr-defined]


class AccessForm(forms.Form):
    allowlist = forms.CharField(
        required=False, widget=LINES, label="Networks that may connect",
        help_text="One network a line. Empty: every network.",
    )  # fmt: skip
    deletion_protected = forms.BooleanField(required=False, label="Protect against deletion")

    def clean_allowlist(self) -> list[str]:
        return str(self.cleaned_data["allowlist"]).split()


class TagsForm(forms.Form):
    tags = forms.CharField(
        required=False, widget=LINES, label="Tags",
        help_text="One name=value a line, for cost reports and budgets.",
    )  # fmt: skip

    def clean_tags(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in str(self.cleaned_data["tags"]).splitlines():
            if not line.strip():
                continue
            name, sign, value = line.partition("=")
            if not sign or not name.strip():
                raise forms.ValidationError(f"“{line}” is not name=value.")
            found[name.strip()] = value.strip()
        return found

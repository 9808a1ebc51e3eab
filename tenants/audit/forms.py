"""The forms of the audit pages. The API validates; these only say what there is to choose."""

from __future__ import annotations

from typing import Any

from django import forms

from tenants.audit.cadf import OUTCOMES
from tenants.audit.models import DrainKind

ANY = ("", "any")
SEVERITIES = ("normal", "warning", "critical")
KINDS = [
    (DrainKind.WEBHOOK.value, "Webhook: signed batches over HTTPS"),
    (DrainKind.S3.value, "S3 bucket: gzipped JSON Lines"),
    (DrainKind.FOLDER.value, "Folder of this installation"),
]
# What each kind needs beside a name.
FIELDS = {
    DrainKind.WEBHOOK: ("url",),
    DrainKind.S3: (
        "bucket", "prefix", "region", "endpoint_url", "access_key_id", "secret_access_key",
    ),
    DrainKind.FOLDER: (),
}  # fmt: skip


class SearchForm(forms.Form):
    """What to look for; its names are the API's."""

    since = forms.DateTimeField(
        required=False, label="From (UTC)", widget=forms.DateTimeInput({"type": "datetime-local"})
    )
    until = forms.DateTimeField(
        required=False, label="Until (UTC)", widget=forms.DateTimeInput({"type": "datetime-local"})
    )
    actor = forms.CharField(required=False, max_length=300, help_text="user:…, key:…, client:…")
    action = forms.CharField(required=False, max_length=100, help_text="weftkit.instance.*")
    target = forms.CharField(required=False, max_length=300, help_text="instances/…*")
    request_id = forms.CharField(
        required=False, max_length=300, label="Request id", help_text="X-Request-ID"
    )
    outcome = forms.ChoiceField(choices=[ANY, *((o, o) for o in OUTCOMES)], required=False)
    severity = forms.ChoiceField(choices=[ANY, *((s, s) for s in SEVERITIES)], required=False)

    def wanted(self) -> dict[str, Any]:
        """Return what was filled in."""
        return {name: value for name, value in self.cleaned_data.items() if value}


class DrainForm(forms.Form):
    name = forms.CharField(max_length=80)
    kind = forms.ChoiceField(choices=KINDS)
    url = forms.CharField(required=False, max_length=500, label="URL", help_text="Webhook.")
    bucket = forms.CharField(required=False, max_length=63, help_text="S3, as the fields below.")
    # Django's forms have a `prefix` of their own.
    object_prefix = forms.CharField(required=False, max_length=200, label="Prefix")
    region = forms.CharField(required=False, max_length=40)
    endpoint_url = forms.CharField(
        required=False, max_length=500, label="Endpoint", help_text="If it is not AWS's."
    )
    access_key_id = forms.CharField(required=False, max_length=128, label="Access key id")
    secret_access_key = forms.CharField(
        required=False,
        max_length=200,
        label="Secret access key",
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Kept sealed and never shown again.",
    )
    from_beginning = forms.BooleanField(required=False, label="Deliver what is kept already, too")

    def body(self) -> dict[str, Any]:
        """Return what the API is asked with: what the kind needs, as far as it was filled in."""
        data = self.cleaned_data
        fields = FIELDS[DrainKind(data["kind"])]
        given = {**data, "prefix": data["object_prefix"]}
        wanted = {name: given[name] for name in fields if given[name]}
        return {**wanted, **{name: data[name] for name in ("name", "kind", "from_beginning")}}

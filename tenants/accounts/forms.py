"""Forms of people: signing in, signing up with a tenant, a name, an accepted invitation."""

from __future__ import annotations

from typing import Any

from allauth.account.forms import LoginForm, SignupForm
from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest

from tenants.accounts.models import Tenant, User, validate_tenant_handle
from tenants.accounts.services import tenant_start
from tenants.accounts.sign_up import sign_up_is_open, sign_up_lock
from tenants.core.errors import ServiceError

HANDLE_HELP = "3 to 30 lower-case letters and digits. It is part of your databases' names."
CLOSED = "Sign-up is closed here. Ask for an invitation."


def tenant_field() -> forms.CharField:
    """Return the field that names a new tenant."""
    return forms.CharField(
        label="Organisation",
        max_length=30,
        help_text=HANDLE_HELP,
        validators=[validate_tenant_handle],
        widget=forms.TextInput(attrs={"autocomplete": "organization", "spellcheck": "false"}),
    )


def demand_free(handle: str) -> str:
    """Return `handle`; refuse one that a tenant has."""
    if Tenant.objects.filter(handle=handle).exists():
        raise ValidationError("This name is taken.")
    return handle


class SignInForm(LoginForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["login"].label = "E-mail address"
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)
        # Beside the label the console's page has its own link.
        self.fields["password"].help_text = ""
        self.fields.pop("remember", None)


class SignUpForm(SignupForm):
    """A person and their first tenant, made together or not at all."""

    name = forms.CharField(
        max_length=120, required=False, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["organisation"] = tenant_field()
        self.fields["email"].label = "E-mail address"
        self.fields["password1"].help_text = "At least 12 characters."
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)
        self.order_fields(["email", "name", "organisation", "password1"])

    def clean_organisation(self) -> str:
        return demand_free(self.cleaned_data["organisation"])

    @transaction.atomic
    def save(self, request: HttpRequest) -> User:
        sign_up_lock()
        if not sign_up_is_open():
            raise ServiceError(CLOSED, code="sign_up_closed")
        user: User = super().save(request)
        tenant_start(user=user, handle=self.cleaned_data["organisation"])
        return user


class TenantForm(forms.Form):
    """The first tenant of a person who came without one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["organisation"] = tenant_field()

    def clean_organisation(self) -> str:
        return demand_free(self.cleaned_data["organisation"])


class ProfileForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["name"]
        widgets = {"name": forms.TextInput(attrs={"autocomplete": "name"})}


class AcceptForm(forms.Form):
    """Who accepts an invitation and has no account yet."""

    name = forms.CharField(
        max_length=120, required=False, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    password = forms.CharField(
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="At least 12 characters.",
    )

    def __init__(self, *args: Any, email: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.email = email

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(password, User(email=self.email))
        return password

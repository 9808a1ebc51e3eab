"""What allauth asks of us: who may sign up, how attempts are counted, how secrets are kept.

Sign-ins keep the promises of `sign_ins.py`: an attempt counts before the password is looked at, and
each end leaves its event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from tenants.accounts import sign_ins
from tenants.accounts.models import User
from tenants.accounts.sign_up import sign_up_is_open
from tenants.core.errors import TooManyError
from tenants.core.middleware import request_id_of
from tenants.core.sealing import seal, unseal

log = structlog.get_logger(__name__)
ISSUER = "WeftKit"
SEALED_FOR = "second factor"
NAME_CHARACTERS_MAX = 120

# allauth's notifications -> what the trail of each of the person's tenants says.
EVENTS: Mapping[str, str] = {
    "account/email/email_changed": "weftkit.email-address.update",
    "account/email/email_deleted": "weftkit.email-address.remove",
    "account/email/password_changed": "weftkit.password.update",
    "account/email/password_reset": "weftkit.password.reset",
    "account/email/password_set": "weftkit.password.set",
    "mfa/email/recovery_codes_generated": "weftkit.recovery-code.create",
    "mfa/email/totp_activated": "weftkit.second-factor.add",
    "mfa/email/totp_deactivated": "weftkit.second-factor.remove",
    "mfa/email/webauthn_added": "weftkit.second-factor.add",
    "mfa/email/webauthn_removed": "weftkit.second-factor.remove",
    "socialaccount/email/account_connected": "weftkit.provider.add",
    "socialaccount/email/account_disconnected": "weftkit.provider.remove",
}


def address_of(request: HttpRequest) -> str:
    """Return where a request comes from, as it is counted and written down."""
    return str(request.META.get("REMOTE_ADDR", ""))


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return sign_up_is_open()

    def get_client_ip(self, request: HttpRequest) -> str:
        return address_of(request) or "0.0.0.0"

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Count an attempt; TooManyError is answered by the pages (`accounts/entrance.py`)."""
        email = _email(credentials)
        try:
            sign_ins.sign_in_count(email=email, address=address_of(request))
        except TooManyError as refusal:
            _note_failure(request, email, refusal.status)
            raise

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        _note_failure(request, _email(credentials), 401)

    def post_login(self, request: HttpRequest, user: Any, **options: Any) -> HttpResponse:
        """Write the event once the last factor was given."""
        sign_ins.sign_in_succeeded(
            user=user, address=address_of(request), request_id=request_id_of(request)
        )
        answer: HttpResponse = super().post_login(request, user, **options)
        return answer

    def new_user(self, request: HttpRequest) -> User:
        return User()

    def save_user(self, request: HttpRequest, user: Any, form: Any, commit: bool = True) -> User:
        user.name = form.cleaned_data.get("name", "")[:NAME_CHARACTERS_MAX]
        saved: User = super().save_user(request, user, form, commit=commit)
        return saved

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send; a server that is away fails no page, and the person may ask again."""
        try:
            super().send_mail(template_prefix, email, context)
        except OSError as error:  # smtplib's errors are OSErrors too
            log.warning("a mail could not be sent", template=template_prefix, error=str(error))

    def send_notification_mail(
        self,
        template_prefix: str,
        user: Any,
        context: dict[str, Any] | None = None,
        email: str | None = None,
    ) -> None:
        """Tell the person by mail, and the auditors of their tenants."""
        if action := EVENTS.get(template_prefix):
            sign_ins.tell_tenants(
                user, action, address_of(self.request), request_id_of(self.request)
            )
        super().send_notification_mail(template_prefix, user, context, email)


class SecondFactorAdapter(DefaultMFAAdapter):
    def encrypt(self, text: str) -> str:
        return seal(text, purpose=SEALED_FOR)

    def decrypt(self, encrypted_text: str) -> str:
        return unseal(encrypted_text, purpose=SEALED_FOR)

    def get_totp_issuer(self) -> str:
        return ISSUER

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        host = context.request.get_host().rpartition(":")[0] or context.request.get_host()
        return {"id": host, "name": ISSUER}


class ProviderAdapter(DefaultSocialAccountAdapter):
    """People who come from an OpenID provider."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return settings.OIDC_SIGN_UP or sign_up_is_open()

    def populate_user(self, request: HttpRequest, sociallogin: SocialLogin, data: Any) -> User:
        user: User = super().populate_user(request, sociallogin, data)
        user.email = user.email.strip().lower()
        parts = (data.get("first_name"), data.get("last_name"))
        name = data.get("name") or " ".join(part for part in parts if part)
        user.name = name[:NAME_CHARACTERS_MAX]
        return user


def _email(credentials: dict[str, Any]) -> str:
    return str(credentials.get("email", "")).replace("\0", "")


def _note_failure(request: HttpRequest, email: str, reason_code: int) -> None:
    sign_ins.sign_in_failed(
        email=email,
        address=address_of(request),
        request_id=request_id_of(request),
        reason_code=reason_code,
    )

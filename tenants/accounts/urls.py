"""The addresses of people: entrance and account, under the names that allauth looks for."""

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.recovery_codes import views as recovery
from allauth.mfa.totp import views as totp
from allauth.mfa.webauthn import views as webauthn
from allauth.socialaccount import views as social
from allauth.socialaccount.providers.openid_connect.views import callback as provider_callback
from django.urls import path, re_path
from django.views.decorators.cache import never_cache

from tenants.accounts import account_pages, entrance

FACTORS = "account/second-factors"

urlpatterns = [
    path("sign-in", entrance.SignInView.as_view(), name="account_login"),
    path("sign-out", account.logout, name="account_logout"),
    path("sign-up", entrance.SignUpView.as_view(), name="account_signup"),
    path("sign-in/second-factor", entrance.SecondFactorView.as_view(), name="mfa_authenticate"),
    path("sign-in/passkey", webauthn.login_webauthn, name="mfa_login_webauthn"),
    path("sign-in/inactive", account.account_inactive, name="account_inactive"),
    path("sign-in/email", account.email_verification_sent, name="account_email_verification_sent"),
    re_path(
        r"^sign-in/email/(?P<key>[-:\w]+)$", account.confirm_email, name="account_confirm_email"
    ),
    path("password/reset", account.password_reset, name="account_reset_password"),
    path("password/reset/sent", account.password_reset_done, name="account_reset_password_done"),
    path(
        "password/reset/done",
        account.password_reset_from_key_done,
        name="account_reset_password_from_key_done",
    ),
    re_path(
        r"^password/reset/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)$",
        account.password_reset_from_key,
        name="account_reset_password_from_key",
    ),
    # Providers
    path("sign-in/with/<str:provider_id>", entrance.provider_sign_in, name="openid_connect_login"),
    path(
        "sign-in/with/<str:provider_id>/callback",
        provider_callback,
        name="openid_connect_callback",
    ),
    path("sign-in/cancelled", social.login_cancelled, name="socialaccount_login_cancelled"),
    path("sign-in/failed", social.login_error, name="socialaccount_login_error"),
    path("sign-up/complete", social.signup, name="socialaccount_signup"),
    # The account of who is signed in
    path("account", account_pages.ProfileView.as_view(), name="account_profile"),
    path("account/sessions", account_pages.SessionsView.as_view(), name="account_sessions"),
    path("account/email", account.email, name="account_email"),
    path("account/password", account.password_change, name="account_change_password"),
    path("account/password/set", account.password_set, name="account_set_password"),
    path("account/providers", social.connections, name="socialaccount_connections"),
    path("account/confirm", entrance.PasswordAgainView.as_view(), name="account_reauthenticate"),
    path(
        "account/confirm/code", entrance.SecondFactorAgainView.as_view(), name="mfa_reauthenticate"
    ),
    path(
        "account/confirm/passkey",
        webauthn.reauthenticate_webauthn,
        name="mfa_reauthenticate_webauthn",
    ),
    path(FACTORS, mfa.index, name="mfa_index"),
    path(f"{FACTORS}/app", totp.activate_totp, name="mfa_activate_totp"),
    path(f"{FACTORS}/app/remove", totp.deactivate_totp, name="mfa_deactivate_totp"),
    path(f"{FACTORS}/codes", recovery.view_recovery_codes, name="mfa_view_recovery_codes"),
    path(
        f"{FACTORS}/codes/new",
        recovery.generate_recovery_codes,
        name="mfa_generate_recovery_codes",
    ),
    path(f"{FACTORS}/passkeys", webauthn.list_webauthn, name="mfa_list_webauthn"),
    path(f"{FACTORS}/passkeys/new", webauthn.add_webauthn, name="mfa_add_webauthn"),
    path(f"{FACTORS}/passkeys/<int:pk>", webauthn.edit_webauthn, name="mfa_edit_webauthn"),
    path(
        f"{FACTORS}/passkeys/<int:pk>/remove",
        webauthn.remove_webauthn,
        name="mfa_remove_webauthn",
    ),
]

# Secrets, codes and what is about one person: no cache keeps them, nor shows them after sign-out.
for pattern in urlpatterns:
    pattern.callback = never_cache(pattern.callback)

"""An operator's installation: outside PostgreSQL and Redis, TLS, nothing assumed.

Run `manage.py collectstatic` into STATIC_ROOT before the web server starts.
"""

from weftkit_site.settings import environment as env
from weftkit_site.settings.base import *  # noqa: F403
from weftkit_site.settings.base import STORAGES as SHARED_STORAGES

env.required(
    "WEFTKIT_HOME",
    "WEFTKIT_SECRETS_DIR",
    "WEFTKIT_DATABASE_URL",
    "WEFTKIT_REDIS_URL",
    "WEFTKIT_PUBLIC_HOST",
)

ALLOWED_HOSTS = [env.text("WEFTKIT_PUBLIC_HOST"), *env.words("WEFTKIT_ALLOWED_HOSTS")]
CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in ALLOWED_HOSTS]
SECURE_SSL_REDIRECT = True
# The orchestrator asks for health on the plain port inside the network.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
# Whether to ask for a place in the browsers' lists is for who owns the domain.
SILENCED_SYSTEM_CHECKS = ["security.W021"]
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
# Behind a proxy daphne needs --proxy-headers too: else API keys' networks and the bound on sign-ins
# see the proxy's address instead of the client's.
# Only behind a proxy that sets (and never passes on) this header.
if env.text("WEFTKIT_TLS_PROXY_HEADER"):
    SECURE_PROXY_SSL_HEADER = (env.text("WEFTKIT_TLS_PROXY_HEADER"), "https")
# Strangers sign up only where the operator wants them.
SIGN_UP = env.one_of("WEFTKIT_SIGN_UP", ("closed", "open", "first"))
STORAGES = {
    **SHARED_STORAGES,
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

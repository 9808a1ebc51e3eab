"""The embedded default (`make up`): one machine, no build step for static files."""

from weftkit_site.settings.base import *  # noqa: F403
from weftkit_site.settings.base import PUBLIC_HOST, TLS_CERT

ALLOWED_HOSTS = [PUBLIC_HOST, "localhost", "127.0.0.1", "[::1]"]
# Nothing is collected: the files are served from where they are.
STATIC_ROOT = None
WHITENOISE_USE_FINDERS = True
SESSION_COOKIE_SECURE = bool(TLS_CERT)
CSRF_COOKIE_SECURE = bool(TLS_CERT)

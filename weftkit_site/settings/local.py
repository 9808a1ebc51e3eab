"""The embedded default (`make up`): one machine; the supervisor collects the static files."""

from weftkit_site.settings.base import *  # noqa: F403
from weftkit_site.settings.base import PUBLIC_HOST, TLS_CERT
from weftkit_site.settings.base import STORAGES as SHARED_STORAGES

ALLOWED_HOSTS = [PUBLIC_HOST, "localhost", "127.0.0.1", "[::1]"]
# A file's name has its digest in it, so browsers keep it for ever.
STORAGES = {
    **SHARED_STORAGES,
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
SESSION_COOKIE_SECURE = bool(TLS_CERT)
CSRF_COOKIE_SECURE = bool(TLS_CERT)

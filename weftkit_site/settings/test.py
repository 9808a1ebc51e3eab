"""The tests: fixed secrets, cheap password hashes, an in-memory broker.

The database is the throw-away server of `tests/conftest.py`; `tests/tenants/conftest.py` points
here to it. Operations are run by the tests themselves, as a worker would run them.
"""

from weftkit_site.settings.base import *  # noqa: F403

SECRET_KEY = "test-only-" + "0" * 54
PEPPERS = {1: bytes(range(32))}
PEPPER_ID = 1
MASTER_KEY = bytes(range(64, 96))
CELLS = ["local"]
BACKUP_KEYS = {1: bytes(range(32, 64))}
ALLOWED_HOSTS = ["testserver", "localhost"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CELERY_BROKER_URL = "memory://"
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
STATIC_ROOT = None
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = True
# Everybody asks from one address here.
API_QUOTAS = {"caller": (100_000, 60), "tenant": (100_000, 60), "address": (100_000, 60)}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
SIGN_UP = "open"
# As where mail is sent.
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = True

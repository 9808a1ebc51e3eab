"""The settings of the live daphne: those of the tests, with rates that a machine may ask at."""

from weftkit_site.settings.test import *  # noqa: F403

ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
API_QUOTAS = dict.fromkeys(("caller", "tenant", "address"), (1_000_000, 60))

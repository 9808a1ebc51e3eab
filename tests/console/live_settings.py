"""The settings of the live daphne: those of the tests, with Channels over the throw-away Redis."""

from weftkit_site.settings.base import CHANNEL_LAYERS as REAL_CHANNEL_LAYERS
from weftkit_site.settings.test import *  # noqa: F403

ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
CHANNEL_LAYERS = REAL_CHANNEL_LAYERS

"""The Celery application: `celery -A weftkit_site worker`, `celery -A weftkit_site beat`.

What it runs is in `tenants/*/tasks.py`; how it runs is in the settings that begin with `CELERY_`.
"""

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "weftkit_site.settings.local")

app = Celery("weftkit")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def keep_our_logging(**_: Any) -> None:
    """Stop Celery from replacing the handlers of `settings.LOGGING` by its own."""

"""The Django project: settings, URLs, ASGI, Celery. Wiring only; see `tenants`."""

from weftkit_site.celery import app as celery_app

__all__ = ["celery_app"]

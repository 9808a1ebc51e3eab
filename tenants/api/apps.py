"""The app `api`: idempotency keys."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "tenants.api"

"""The app `console`: pages; no tables."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "tenants.console"

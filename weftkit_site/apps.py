"""Registers the system checks of `weftkit_site/checks.py`."""

from importlib import import_module

from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "weftkit_site"

    def ready(self) -> None:
        import_module("weftkit_site.checks")

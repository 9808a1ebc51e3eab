"""The app `core`: no tables of its own."""

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "tenants.core"

"""The app `usage`: plans and usage."""

from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "tenants.usage"

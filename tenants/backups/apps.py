"""The app `backups`."""

from django.apps import AppConfig


class BackupsConfig(AppConfig):
    name = "tenants.backups"

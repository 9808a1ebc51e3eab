"""The app `iam`: API keys."""

from django.apps import AppConfig


class IamConfig(AppConfig):
    name = "tenants.iam"

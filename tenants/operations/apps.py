"""The app `operations`: operations and their steps."""

from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "tenants.operations"

"""The app `instances`: instances and credentials."""

from django.apps import AppConfig


class InstancesConfig(AppConfig):
    name = "tenants.instances"

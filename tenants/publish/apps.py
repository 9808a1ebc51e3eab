"""The app `publish`: the tables that the data plane reads."""

from django.apps import AppConfig


class PublishConfig(AppConfig):
    name = "tenants.publish"

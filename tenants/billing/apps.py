"""The app `billing`: no tables yet."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "tenants.billing"

"""The app `billing`: prices, invoices, budgets, quotas and their notices."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "tenants.billing"

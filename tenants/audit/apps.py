"""The app `audit`: append-only events."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "tenants.audit"

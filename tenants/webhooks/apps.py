"""The app `webhooks`: endpoints, outbox, deliveries."""

from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "tenants.webhooks"

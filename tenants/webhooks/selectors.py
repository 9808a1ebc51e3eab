"""Reads: a tenant's endpoints, and the log of their deliveries."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from tenants.accounts.models import Tenant
from tenants.core.errors import NotFoundError
from tenants.webhooks.models import WebhookDelivery, WebhookEndpoint


def endpoint_list(*, tenant: Tenant) -> QuerySet[WebhookEndpoint]:
    """Return the endpoints of `tenant`."""
    return WebhookEndpoint.objects.filter(tenant=tenant)


def endpoint_get(*, tenant: Tenant, endpoint_id: UUID) -> WebhookEndpoint:
    """Return one endpoint of `tenant`."""
    found = endpoint_list(tenant=tenant).filter(pk=endpoint_id).first()
    if found is None:
        raise NotFoundError("there is no such webhook")
    return found


def delivery_list(*, endpoint: WebhookEndpoint) -> QuerySet[WebhookDelivery]:
    """Return the deliveries to an endpoint, with events and attempts."""
    rows = WebhookDelivery.objects.filter(endpoint=endpoint)
    return rows.select_related("event").prefetch_related("tries")


def delivery_get(*, endpoint: WebhookEndpoint, delivery_id: UUID) -> WebhookDelivery:
    """Return one delivery to an endpoint."""
    found = delivery_list(endpoint=endpoint).filter(pk=delivery_id).first()
    if found is None:
        raise NotFoundError("there is no such delivery")
    return found

"""Endpoint, the event that waits to be told, its delivery to one endpoint, and each attempt."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.core.models import BaseModel


class WebhookEndpoint(BaseModel):
    """Where a tenant wants to be told. No `event_types` means all, those to come too.

    Secrets are sealed (`core/sealing`). While `old_secret_ends_at` is ahead, messages carry the
    signature of the old secret as well.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=500)
    description = models.CharField(max_length=300, blank=True)
    event_types = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    secret_sealed = models.TextField()
    old_secret_sealed = models.TextField(blank=True)
    old_secret_ends_at = models.DateTimeField(null=True, blank=True)
    is_enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=300, blank=True)
    # Since when every attempt failed; empty while the last one worked.
    failing_since = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=300)

    def __str__(self) -> str:
        return self.url


class WebhookEvent(BaseModel):
    """What happened, written in the transaction in which it happened: the outbox."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    type = models.CharField(max_length=60)
    data = models.JSONField()

    @property
    def message_id(self) -> str:
        """The header `webhook-id`: the same in every attempt, so that receivers can tell."""
        return f"msg_{self.pk.hex}"


class DeliveryState(models.TextChoices):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookDelivery(BaseModel):
    """One event on its way to one endpoint; `due_at` is also the lease of who tries it now."""

    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries"
    )
    event = models.ForeignKey(WebhookEvent, on_delete=models.CASCADE, related_name="deliveries")
    state = models.CharField(
        max_length=10, choices=DeliveryState.choices, default=DeliveryState.PENDING
    )
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint", "event"], name="webhook_delivery_is_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=DeliveryState.values),
                name="webhook_delivery_state_is_known",
            ),
        ]
        indexes = [
            models.Index(
                fields=["endpoint", "due_at"],
                condition=models.Q(state="pending"),
                name="webhook_delivery_waits",
            )
        ]


class WebhookAttempt(BaseModel):
    """One request and what came back; `status` is None where no answer came (`error` says why)."""

    delivery = models.ForeignKey(WebhookDelivery, on_delete=models.CASCADE, related_name="tries")
    status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=300, blank=True)
    duration_ms = models.PositiveIntegerField()
    response_excerpt = models.CharField(max_length=1000, blank=True)

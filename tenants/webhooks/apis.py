"""REST: webhooks of a tenant, their secrets, the log of their deliveries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import ServiceApi, TenantApi
from tenants.webhooks import selectors, services
from tenants.webhooks.event_types import CHOICES, TYPES
from tenants.webhooks.models import (
    DeliveryState,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)


class EventTypeOutput(serializers.Serializer[Any]):
    name = serializers.CharField()
    title = serializers.CharField()
    fields_always = serializers.ListField(
        child=serializers.CharField(), source="fields", help_text="what its data always has"
    )


class WebhookOutput(serializers.ModelSerializer[WebhookEndpoint]):
    event_types = serializers.ListField(
        child=serializers.CharField(), help_text="none: all, those to come too"
    )

    class Meta:
        model = WebhookEndpoint
        fields = [
            "id", "url", "description", "event_types", "is_enabled", "disabled_reason",
            "failing_since", "old_secret_ends_at", "created_by", "created_at",
        ]  # fmt: skip


class WebhookCreated(WebhookOutput):
    secret = serializers.CharField(allow_null=True, help_text="shown once; it signs the messages")

    class Meta(WebhookOutput.Meta):
        fields = [*WebhookOutput.Meta.fields, "secret"]


class WebhookInput(serializers.Serializer[WebhookEndpoint]):
    url = serializers.CharField(max_length=500)
    description = serializers.CharField(max_length=300, allow_blank=True, default="")
    event_types = serializers.ListField(
        child=serializers.ChoiceField(CHOICES), default=list, max_length=len(CHOICES)
    )


class WebhookChange(serializers.Serializer[WebhookEndpoint]):
    url = serializers.CharField(max_length=500, required=False)
    description = serializers.CharField(max_length=300, allow_blank=True, required=False)
    event_types = serializers.ListField(
        child=serializers.ChoiceField(CHOICES), required=False, max_length=len(CHOICES)
    )
    is_enabled = serializers.BooleanField(required=False)


class WebhookRotate(serializers.Serializer[WebhookEndpoint]):
    grace_s = serializers.IntegerField(
        min_value=0,
        max_value=int(services.OLD_SECRET_GRACE_MAX.total_seconds()),
        default=int(services.OLD_SECRET_GRACE.total_seconds()),
        help_text="How long messages are signed with the old secret too; default: a day.",
    )


class AttemptOutput(serializers.ModelSerializer[WebhookAttempt]):
    class Meta:
        model = WebhookAttempt
        fields = ["created_at", "status", "error", "duration_ms", "response_excerpt"]


class DeliveryOutput(serializers.ModelSerializer[WebhookDelivery]):
    event_id = serializers.CharField(source="event.message_id")
    event_type = serializers.CharField(source="event.type")
    payload = serializers.JSONField(source="event.data")
    state = serializers.ChoiceField(DeliveryState.choices)
    next_attempt_at = serializers.SerializerMethodField()
    log = AttemptOutput(source="tries", many=True)

    class Meta:
        model = WebhookDelivery
        fields = [
            "id", "event_id", "event_type", "payload", "state", "attempts", "next_attempt_at",
            "ended_at", "created_at", "log",
        ]  # fmt: skip

    def get_next_attempt_at(self, delivery: WebhookDelivery) -> str | None:
        """When it is tried again, at the earliest; null once it has ended."""
        waits = delivery.state == DeliveryState.PENDING
        return delivery.due_at.isoformat().replace("+00:00", "Z") if waits else None


class WebhookEventTypesApi(ServiceApi):
    pagination_class = None  # type: ignore[assignment]

    @extend_schema(operation_id="webhook_event_types", responses=EventTypeOutput(many=True))
    def get(self, request: Request) -> Response:
        """List the types of events that webhooks tell of."""
        return Response(EventTypeOutput(TYPES, many=True).data)


class WebhookListApi(TenantApi):
    actions = {"GET": "webhooks.read", "POST": "webhooks.manage"}

    @extend_schema(operation_id="webhook_list", responses=WebhookOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the webhooks of a tenant."""
        return self.page(selectors.endpoint_list(tenant=self.actor.tenant), WebhookOutput)

    @extend_schema(
        operation_id="webhook_create",
        request=WebhookInput,
        responses={201: WebhookCreated},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Make a webhook. Its secret is shown here once."""
        data = self.validated(WebhookInput)
        endpoint, secret = services.endpoint_create(
            tenant=self.actor.tenant, actor=self.actor.name, **data
        )
        return Response({**WebhookOutput(endpoint).data, "secret": secret}, status=201)


class WebhookDetailApi(TenantApi):
    actions = {"GET": "webhooks.read", "PATCH": "webhooks.manage", "DELETE": "webhooks.manage"}

    @extend_schema(operation_id="webhook_get", responses=WebhookOutput)
    def get(self, request: Request, tenant: str, webhook_id: UUID) -> Response:
        """Get one webhook."""
        return Response(WebhookOutput(_find(self, webhook_id)).data)

    @extend_schema(operation_id="webhook_change", request=WebhookChange, responses=WebhookOutput)
    def patch(self, request: Request, tenant: str, webhook_id: UUID) -> Response:
        """Change a webhook; switching it off gives up what waits for it."""
        changes = self.validated(WebhookChange)
        endpoint = services.endpoint_change(endpoint=_find(self, webhook_id), changes=changes)
        return Response(WebhookOutput(endpoint).data)

    @extend_schema(operation_id="webhook_delete", responses={204: None})
    def delete(self, request: Request, tenant: str, webhook_id: UUID) -> Response:
        """Delete a webhook and its log."""
        services.endpoint_delete(endpoint=_find(self, webhook_id))
        return Response(status=204)


class WebhookRotateApi(TenantApi):
    actions = {"POST": "webhooks.manage"}

    @extend_schema(
        operation_id="webhook_rotate",
        request=WebhookRotate,
        responses={200: WebhookCreated},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, webhook_id: UUID) -> Response:
        """Make a new secret, shown here once; both sign until the old one's grace is over."""
        grace = timedelta(seconds=self.validated(WebhookRotate)["grace_s"])
        endpoint, secret = services.secret_rotate(endpoint=_find(self, webhook_id), grace=grace)
        return Response({**WebhookOutput(endpoint).data, "secret": secret})


class WebhookTestApi(TenantApi):
    actions = {"POST": "webhooks.manage"}

    @extend_schema(
        operation_id="webhook_test",
        request=None,
        responses={202: DeliveryOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, webhook_id: UUID) -> Response:
        """Send a test event."""
        delivery = services.endpoint_test(endpoint=_find(self, webhook_id))
        return Response(DeliveryOutput(delivery).data, status=202)


class DeliveryListApi(TenantApi):
    actions = {"GET": "webhooks.read"}

    @extend_schema(operation_id="webhook_delivery_list", responses=DeliveryOutput(many=True))
    def get(self, request: Request, tenant: str, webhook_id: UUID) -> Response:
        """List what was sent and what came back, newest first; kept for a month."""
        rows = selectors.delivery_list(endpoint=_find(self, webhook_id))
        return self.page(rows, DeliveryOutput)


class DeliveryDetailApi(TenantApi):
    actions = {"GET": "webhooks.read"}

    @extend_schema(operation_id="webhook_delivery_get", responses=DeliveryOutput)
    def get(self, request: Request, tenant: str, webhook_id: UUID, delivery_id: UUID) -> Response:
        """Get one delivery."""
        return Response(DeliveryOutput(_delivery(self, webhook_id, delivery_id)).data)


class DeliveryRedeliverApi(TenantApi):
    actions = {"POST": "webhooks.manage"}

    @extend_schema(
        operation_id="webhook_redeliver",
        request=None,
        responses={202: DeliveryOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, webhook_id: UUID, delivery_id: UUID) -> Response:
        """Send an event again, under its old id."""
        delivery = _delivery(self, webhook_id, delivery_id)
        delivery = services.delivery_redeliver(delivery=delivery)
        return Response(DeliveryOutput(delivery).data, status=202)


def _find(api: TenantApi, webhook_id: UUID) -> WebhookEndpoint:
    return selectors.endpoint_get(tenant=api.actor.tenant, endpoint_id=webhook_id)


def _delivery(api: TenantApi, webhook_id: UUID, delivery_id: UUID) -> WebhookDelivery:
    return selectors.delivery_get(endpoint=_find(api, webhook_id), delivery_id=delivery_id)

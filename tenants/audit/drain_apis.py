"""REST: drains, which deliver a tenant's events elsewhere as they come.

GET|POST .../audit/drains                a drain's secret is shown once, when it is made
GET|PATCH|DELETE .../audit/drains/<id>   `is_enabled` pauses and resumes
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import TenantApi
from tenants.audit import drains, selectors
from tenants.audit.models import AuditDrain, DrainKind


class DrainOutput(serializers.ModelSerializer[AuditDrain]):
    kind = serializers.ChoiceField(DrainKind.choices)
    config = serializers.DictField(help_text="Without secrets.")
    delivered_to = serializers.IntegerField(
        source="cursor", help_text="All places of the chain up to this one are delivered."
    )
    behind = serializers.IntegerField(help_text="Events that wait to be delivered.")
    lag_s = serializers.SerializerMethodField(help_text="How long the oldest of them has waited.")
    next_attempt_at = serializers.DateTimeField(source="due_at")

    class Meta:
        model = AuditDrain
        fields = [
            "id", "name", "kind", "config", "is_enabled", "disabled_reason", "delivered_to",
            "behind", "lag_s", "failures", "last_error", "next_attempt_at", "delivered_at",
            "created_at", "created_by",
        ]  # fmt: skip

    def get_lag_s(self, drain: AuditDrain) -> int:
        since: datetime | None = getattr(drain, "waiting_since", None)
        return max(0, int((timezone.now() - since).total_seconds())) if since else 0


class DrainCreated(DrainOutput):
    secret = serializers.CharField(
        allow_blank=True, help_text="What a webhook's messages are signed with; shown only here."
    )

    class Meta(DrainOutput.Meta):
        fields = [*DrainOutput.Meta.fields, "secret"]


class DrainInput(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    kind = serializers.ChoiceField(DrainKind.choices)
    url = serializers.CharField(required=False, max_length=500, help_text="Of a webhook.")
    bucket = serializers.CharField(required=False, max_length=63)
    prefix = serializers.CharField(required=False, max_length=200, allow_blank=True)
    region = serializers.CharField(required=False, max_length=40, allow_blank=True)
    endpoint_url = serializers.CharField(
        required=False, max_length=500, allow_blank=True, help_text="If it is not AWS's."
    )
    access_key_id = serializers.CharField(required=False, max_length=128)
    secret_access_key = serializers.CharField(
        required=False, max_length=200, write_only=True, help_text="Kept sealed, never shown."
    )
    from_beginning = serializers.BooleanField(
        default=False, help_text="Deliver what is kept already, too."
    )


class DrainChange(serializers.Serializer[Any]):
    name = serializers.CharField(required=False, max_length=80)
    is_enabled = serializers.BooleanField(required=False)


class DrainListApi(TenantApi):
    actions = {"GET": "audit.read", "POST": "audit.manage"}

    @extend_schema(operation_id="audit_drain_list", responses=DrainOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the drains, each with how far it is behind."""
        return self.page(selectors.drain_list(tenant=self.actor.tenant), DrainOutput)

    @extend_schema(
        operation_id="audit_drain_create",
        request=DrainInput,
        responses={201: DrainCreated},
        parameters=[IDEMPOTENT],
        examples=[
            OpenApiExample(
                "A webhook",
                {"name": "siem", "kind": "webhook", "url": "https://siem.example.org/weftkit"},
                request_only=True,
            ),
            OpenApiExample(
                "A bucket",
                {
                    "name": "archive",
                    "kind": "s3",
                    "bucket": "acme-audit",
                    "prefix": "weftkit",
                    "region": "eu-central-1",
                    "access_key_id": "AKIAEXAMPLE",
                    "secret_access_key": "...",
                },
                request_only=True,
            ),
        ],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Make a drain: a webhook, a bucket, or a folder of this installation."""
        config = self.validated(DrainInput)
        drain, secret = drains.drain_create(
            actor=self.actor,
            name=config.pop("name"),
            kind=DrainKind(config.pop("kind")),
            secret=config.pop("secret_access_key", ""),
            is_from_beginning=config.pop("from_beginning"),
            config=config,
        )
        found = selectors.drain_get(tenant=self.actor.tenant, drain_id=drain.pk)
        return Response({**DrainOutput(found).data, "secret": secret}, status=201)


class DrainDetailApi(TenantApi):
    actions = {"GET": "audit.read", "PATCH": "audit.manage", "DELETE": "audit.manage"}

    @extend_schema(operation_id="audit_drain_get", responses=DrainOutput)
    def get(self, request: Request, tenant: str, drain_id: UUID) -> Response:
        """Get one drain."""
        return self._answer(drain_id)

    @extend_schema(operation_id="audit_drain_update", request=DrainChange, responses=DrainOutput)
    def patch(self, request: Request, tenant: str, drain_id: UUID) -> Response:
        """Rename, pause or resume; a resumed drain goes on where it was."""
        drain = selectors.drain_get(tenant=self.actor.tenant, drain_id=drain_id)
        drains.drain_change(drain=drain, **self.validated(DrainChange))
        return self._answer(drain_id)

    @extend_schema(operation_id="audit_drain_delete", responses={204: None})
    def delete(self, request: Request, tenant: str, drain_id: UUID) -> Response:
        """Delete a drain; what it delivered stays where it is."""
        drains.drain_delete(drain=selectors.drain_get(tenant=self.actor.tenant, drain_id=drain_id))
        return Response(status=204)

    def _answer(self, drain_id: UUID) -> Response:
        drain = selectors.drain_get(tenant=self.actor.tenant, drain_id=drain_id)
        return Response(DrainOutput(drain).data)

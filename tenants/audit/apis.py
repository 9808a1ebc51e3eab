"""REST: the events of a tenant."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.service_api import TenantApi
from tenants.audit import selectors
from tenants.audit.models import AuditEvent
from tenants.core.pagination import NewestFirst


class NewestEventFirst(NewestFirst):
    ordering = "-event_id"


class AuditEventOutput(serializers.ModelSerializer[AuditEvent]):
    id = serializers.UUIDField(source="event_id")
    at = serializers.DateTimeField(source="received_at")
    action = serializers.CharField(source="body.action")
    initiator = serializers.CharField(source="body.initiator")
    address = serializers.CharField(source="body.address")
    target = serializers.CharField(source="body.target")
    outcome = serializers.ChoiceField(["success", "failure"], source="body.outcome")
    reason_code = serializers.IntegerField(source="body.reason_code")
    request_id = serializers.CharField(source="body.request_id")

    class Meta:
        model = AuditEvent
        fields = [
            "id", "at", "action", "initiator", "address", "target", "outcome", "reason_code",
            "request_id",
        ]  # fmt: skip


class AuditListApi(TenantApi):
    actions = {"GET": "audit.read"}
    pagination_class = NewestEventFirst

    @extend_schema(operation_id="audit_list", responses=AuditEventOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List what was done, or tried, in a tenant; newest first."""
        return self.page(selectors.audit_list(tenant=self.actor.tenant), AuditEventOutput)

"""REST: the events of a tenant."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.service_api import TenantApi
from tenants.audit import selectors
from tenants.audit.actions import Severity
from tenants.audit.cadf import OUTCOMES
from tenants.audit.models import AuditEvent
from tenants.core.pagination import NewestFirst


class NewestEventFirst(NewestFirst):
    ordering = "-event_id"


class AuditEventOutput(serializers.ModelSerializer[AuditEvent]):
    id = serializers.UUIDField(source="event_id")
    at = serializers.DateTimeField(source="occurred_at")
    address = serializers.CharField(source="body.initiator.host.address")
    outcome = serializers.ChoiceField(OUTCOMES)
    severity = serializers.ChoiceField([severity.value for severity in Severity])
    message = serializers.CharField(source="body.message")
    reason_code = serializers.IntegerField(source="body.reason.reasonCode")
    request_id = serializers.CharField(source="correlation_id")
    is_data_event = serializers.BooleanField(source="is_data")

    class Meta:
        model = AuditEvent
        fields = [
            "id", "at", "action", "severity", "message", "initiator", "address", "target",
            "outcome", "reason_code", "request_id", "is_data_event",
        ]  # fmt: skip


class AuditListApi(TenantApi):
    actions = {"GET": "audit.read"}
    pagination_class = NewestEventFirst

    @extend_schema(operation_id="audit_list", responses=AuditEventOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List what was done, or tried, in a tenant; newest first."""
        return self.page(selectors.audit_list(tenant=self.actor.tenant), AuditEventOutput)

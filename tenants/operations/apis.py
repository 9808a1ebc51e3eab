"""REST: operations, and what can be done about them."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT, PAGE
from tenants.api.service_api import TenantApi
from tenants.instances.selectors import instances_allowed
from tenants.operations import selectors, services
from tenants.operations.kinds import KINDS
from tenants.operations.models import Operation, OperationState, OperationStep, StepState


class StepOutput(serializers.ModelSerializer[OperationStep]):
    state = serializers.ChoiceField(StepState.choices)

    class Meta:
        model = OperationStep
        fields = ["name", "title", "state", "started_at", "finished_at"]


class OperationOutput(serializers.ModelSerializer[Operation]):
    instance = serializers.CharField(source="instance.handle")  # type: ignore[assignment]
    state = serializers.ChoiceField(OperationState.choices)
    steps = StepOutput(many=True)
    bytes_done = serializers.SerializerMethodField(
        help_text="Of an export or import: what the host has read or written."
    )
    bytes_total = serializers.SerializerMethodField(help_text="0 while it is not known.")

    class Meta:
        model = Operation
        fields = [
            "id", "kind", "instance", "state", "progress_done", "progress_total", "bytes_done",
            "bytes_total", "steps", "attempt", "error_code", "error_message", "actor",
            "idempotency_key", "created_at", "started_at", "heartbeat_at",
            "deadline_at", "finished_at",
        ]  # fmt: skip

    def get_bytes_done(self, operation: Operation) -> int | None:
        return getattr(operation, "bytes_done", None)

    def get_bytes_total(self, operation: Operation) -> int | None:
        return getattr(operation, "bytes_total", None)


class OperationFilter(serializers.Serializer[Operation]):
    instance = serializers.CharField(required=False)  # type: ignore[assignment]
    kind = serializers.ChoiceField(sorted(KINDS), required=False)
    state = serializers.ChoiceField(OperationState.choices, required=False)
    since = serializers.DateTimeField(required=False, help_text="Begun then or later.")
    until = serializers.DateTimeField(required=False, help_text="Begun before then.")


def accepted(operation: Operation) -> Response:
    """Return the answer of everything that starts an operation, with the address to follow it."""
    address = reverse("api:operation", args=[operation.tenant.handle, operation.pk])
    return Response(OperationOutput(operation).data, status=202, headers={"Location": address})


class OperationListApi(TenantApi):
    actions = {"GET": "operations.read"}
    is_narrowed = True

    @extend_schema(
        operation_id="operation_list",
        parameters=[OperationFilter, *PAGE],
        responses=OperationOutput(many=True),
    )
    def get(self, request: Request, tenant: str) -> Response:
        """List the tenant's operations: of one instance, kind, state or time if you say so."""
        wanted = self.query(OperationFilter)
        rows = selectors.operation_search(tenant=self.actor.tenant, **wanted)
        if not self.actor.may("operations.read"):
            allowed = instances_allowed(actor=self.actor, action="operations.read")
            rows = rows.filter(instance__in=allowed.values("pk"))
        return self.page(rows, OperationOutput)


class OperationDetailApi(TenantApi):
    actions = {"GET": "operations.read"}

    @extend_schema(operation_id="operation_get", responses=OperationOutput)
    def get(self, request: Request, tenant: str, operation_id: UUID) -> Response:
        """Get one operation with its steps."""
        operation = selectors.operation_get(tenant=self.actor.tenant, operation_id=operation_id)
        return Response(OperationOutput(operation).data)


class _OperationVerbApi(TenantApi):
    """POST to an operation: one service, then the operation as it now is."""

    service: Callable[..., Operation]

    def answer(self, operation_id: UUID) -> Response:
        tenant = self.actor.tenant
        operation = selectors.operation_get(tenant=tenant, operation_id=operation_id)
        self.service(operation=operation)
        return accepted(selectors.operation_get(tenant=tenant, operation_id=operation_id))


class OperationCancelApi(_OperationVerbApi):
    actions = {"POST": "operations.manage"}
    service = staticmethod(services.operation_cancel)

    @extend_schema(
        operation_id="operation_cancel",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, operation_id: UUID) -> Response:
        """Cancel: what was done is undone."""
        return self.answer(operation_id)


class OperationRetryApi(_OperationVerbApi):
    actions = {"POST": "operations.manage"}
    service = staticmethod(services.operation_retry)

    @extend_schema(
        operation_id="operation_retry",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, operation_id: UUID) -> Response:
        """Retry a failed operation from its failed step."""
        return self.answer(operation_id)


class OperationResetApi(_OperationVerbApi):
    actions = {"POST": "operations.reset"}
    service = staticmethod(services.operation_reset)

    @extend_schema(
        operation_id="operation_reset",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, operation_id: UUID) -> Response:
        """End a stuck operation as failed, now, whatever its worker does."""
        return self.answer(operation_id)

"""REST: API keys."""

from __future__ import annotations

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.accounts.models import MemberRole
from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import TenantApi
from tenants.iam import selectors, services
from tenants.iam.models import ApiKey


class ApiKeyOutput(serializers.ModelSerializer[ApiKey]):
    role = serializers.ChoiceField(MemberRole.choices)
    cidrs = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = ApiKey
        fields = [
            "id", "name", "key_id", "role", "cidrs", "expires_at", "last_used_at", "revoked_at",
            "created_by", "created_at",
        ]  # fmt: skip


class ApiKeyCreated(ApiKeyOutput):
    token = serializers.CharField(allow_null=True)

    class Meta(ApiKeyOutput.Meta):
        fields = [*ApiKeyOutput.Meta.fields, "token"]


class ApiKeyInput(serializers.Serializer[ApiKey]):
    name = serializers.CharField(max_length=80)
    role = serializers.ChoiceField(MemberRole.choices)
    expires_at = serializers.DateTimeField(allow_null=True, default=None)
    cidrs = serializers.ListField(child=serializers.CharField(max_length=43), default=list)


class ApiKeyListApi(TenantApi):
    actions = {"GET": "api_keys.read", "POST": "api_keys.manage"}

    @extend_schema(operation_id="api_key_list", responses=ApiKeyOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the API keys of a tenant."""
        return self.page(selectors.api_key_list(tenant=self.actor.tenant), ApiKeyOutput)

    @extend_schema(
        operation_id="api_key_create",
        request=ApiKeyInput,
        responses={201: ApiKeyCreated},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Mint an API key. Its token is shown here once."""
        data = self.validated(ApiKeyInput)
        made = services.api_key_create(
            actor=self.actor,
            name=data["name"],
            role=MemberRole(data["role"]),
            expires_at=data["expires_at"],
            cidrs=data["cidrs"],
        )
        return Response({**ApiKeyOutput(made.api_key).data, "token": made.token}, status=201)


class ApiKeyDetailApi(TenantApi):
    actions = {"DELETE": "api_keys.manage"}

    @extend_schema(operation_id="api_key_revoke", responses={204: None})
    def delete(self, request: Request, tenant: str, key_id: UUID) -> Response:
        """Revoke an API key at once."""
        api_key = selectors.api_key_get(tenant=self.actor.tenant, key_id=key_id)
        services.api_key_revoke(api_key=api_key)
        return Response(status=204)

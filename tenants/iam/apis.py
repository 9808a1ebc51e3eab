"""REST: API keys, of the tenant and its service ids, and each member's own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.accounts.models import MemberRole
from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import TenantApi
from tenants.api.strict import StrictSerializer
from tenants.core.errors import ForbiddenError
from tenants.iam import selectors, services
from tenants.iam.models import ApiKey, ApiKeySecret


class ApiKeySecretOutput(serializers.ModelSerializer[ApiKeySecret]):
    class Meta:
        model = ApiKeySecret
        fields = ["issued_at", "expires_at"]


class ApiKeyOutput(serializers.ModelSerializer[ApiKey]):
    role = serializers.ChoiceField(
        MemberRole.choices, allow_null=True, help_text="null: the owner's rights, or policies alone"
    )
    service_id = serializers.UUIDField(allow_null=True)
    member = serializers.EmailField(source="membership.user.email", allow_null=True, default=None)
    cidrs = serializers.ListField(child=serializers.CharField())
    secrets = ApiKeySecretOutput(many=True)

    class Meta:
        model = ApiKey
        fields = [
            "id", "name", "key_id", "role", "service_id", "member", "environment", "is_enabled",
            "cidrs", "secrets", "expires_at", "last_used_at", "revoked_at", "created_by",
            "created_at",
        ]  # fmt: skip

    def to_representation(self, instance: ApiKey) -> dict[str, Any]:
        """Return the key's fields; a key without a role of its own has none."""
        body = super().to_representation(instance)
        return {**body, "role": body["role"] or None}


class ApiKeyCreated(ApiKeyOutput):
    token = serializers.CharField(allow_null=True)

    class Meta(ApiKeyOutput.Meta):
        fields = [*ApiKeyOutput.Meta.fields, "token"]


class OwnKeyInput(StrictSerializer):
    name = serializers.CharField(max_length=80)
    expires_at = serializers.DateTimeField(allow_null=True, default=None)
    cidrs = serializers.ListField(child=serializers.CharField(max_length=43), default=list)
    environment = serializers.CharField(max_length=32, allow_blank=True, default="")


class ApiKeyInput(OwnKeyInput):
    role = serializers.ChoiceField(
        MemberRole.choices,
        allow_null=True,
        default=None,
        help_text="of a key of the tenant; without one it has the policies that it is given",
    )
    service_id = serializers.UUIDField(allow_null=True, default=None)


class ApiKeyChange(StrictSerializer):
    name = serializers.CharField(max_length=80, required=False)
    is_enabled = serializers.BooleanField(required=False)
    expires_at = serializers.DateTimeField(allow_null=True, required=False)
    cidrs = serializers.ListField(child=serializers.CharField(max_length=43), required=False)
    environment = serializers.CharField(max_length=32, allow_blank=True, required=False)


class RerollInput(StrictSerializer):
    grace_s = serializers.IntegerField(
        min_value=0,
        max_value=int(services.GRACE_MAX.total_seconds()),
        required=False,
        help_text="How long the old secret lives on; default: a day.",
    )


def _shown_once(made: services.NewApiKey) -> dict[str, Any]:
    return {**ApiKeyOutput(made.api_key).data, "token": made.token}


class ApiKeyListApi(TenantApi):
    actions = {"GET": "api_keys.read", "POST": "api_keys.manage"}

    @extend_schema(operation_id="api_key_list", responses=ApiKeyOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the API keys of a tenant, its service ids and its members."""
        return self.page(selectors.api_key_list(tenant=self.actor.tenant), ApiKeyOutput)

    @extend_schema(
        operation_id="api_key_create",
        request=ApiKeyInput,
        responses={201: ApiKeyCreated},
        parameters=[IDEMPOTENT],
        examples=[
            OpenApiExample(
                "From the office, for a pipeline",
                {
                    "name": "deploy",
                    "role": "member",
                    "environment": "prod",
                    "cidrs": ["192.0.2.0/24"],
                },
                request_only=True,
            )
        ],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Mint an API key of the tenant or of a service id. Its token is shown here once."""
        data = self.validated(ApiKeyInput)
        role, service_id = data.pop("role"), data.pop("service_id")
        service = None
        if service_id is not None:
            service = selectors.service_id_get(tenant=self.actor.tenant, service_id=service_id)
        made = services.api_key_create(
            actor=self.actor, role=MemberRole(role) if role else None, service=service, **data
        )
        return Response(_shown_once(made), status=201)


class KeyDetailApi(TenantApi):
    """What is done to one key, whoever's it is: of the tenant's, or of the caller's own."""

    is_own = False

    def patch(self, request: Request, tenant: str, key_id: UUID) -> Response:
        changes = self.validated(ApiKeyChange)
        api_key = services.api_key_change(api_key=_find(self, key_id), changes=changes)
        return Response(ApiKeyOutput(api_key).data)

    def delete(self, request: Request, tenant: str, key_id: UUID) -> Response:
        services.api_key_revoke(api_key=_find(self, key_id))
        return Response(status=204)


class KeyRerollApi(TenantApi):
    """A new secret for one key."""

    is_own = False

    @idempotent
    def post(self, request: Request, tenant: str, key_id: UUID) -> Response:
        data = self.validated(RerollInput)
        grace = timedelta(seconds=data["grace_s"]) if "grace_s" in data else None
        made = services.api_key_reroll(actor=self.actor, api_key=_find(self, key_id), grace=grace)
        return Response(_shown_once(made))


REROLL: dict[str, Any] = {
    "request": RerollInput,
    "responses": {200: ApiKeyCreated},
    "parameters": [IDEMPOTENT],
}


@extend_schema_view(
    patch=extend_schema(
        operation_id="api_key_change",
        request=ApiKeyChange,
        responses=ApiKeyOutput,
        description="Rename a key, disable or enable it, change where from and how long it works.",
    ),
    delete=extend_schema(
        operation_id="api_key_revoke",
        responses={204: None},
        description="Revoke an API key, and every token exchanged for it, at once.",
    ),
)
class ApiKeyDetailApi(KeyDetailApi):
    actions = {"GET": "api_keys.read", "PATCH": "api_keys.manage", "DELETE": "api_keys.manage"}

    @extend_schema(operation_id="api_key_get", responses=ApiKeyOutput)
    def get(self, request: Request, tenant: str, key_id: UUID) -> Response:
        """Get one API key."""
        return Response(ApiKeyOutput(_find(self, key_id)).data)


@extend_schema_view(
    post=extend_schema(
        operation_id="api_key_reroll",
        description="Issue a new secret, shown here once; the old one lives on for its grace.",
        **REROLL,
    )
)
class ApiKeyRerollApi(KeyRerollApi):
    actions = {"POST": "api_keys.manage"}


class OwnKeyListApi(TenantApi):
    actions = {"GET": "own_keys.manage", "POST": "own_keys.manage"}

    @extend_schema(operation_id="own_key_list", responses=ApiKeyOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List your own API keys in a tenant; they may do what you may."""
        keys = selectors.api_key_list(tenant=self.actor.tenant)
        return self.page(keys.filter(membership=_member_id(self)), ApiKeyOutput)

    @extend_schema(
        operation_id="own_key_create",
        request=OwnKeyInput,
        responses={201: ApiKeyCreated},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Mint an API key of your own. Its token is shown here once."""
        data = self.validated(OwnKeyInput)
        made = services.api_key_create(actor=self.actor, is_own=True, **data)
        return Response(_shown_once(made), status=201)


@extend_schema_view(
    patch=extend_schema(
        operation_id="own_key_change",
        request=ApiKeyChange,
        responses=ApiKeyOutput,
        description="Rename a key of your own, disable or enable it, change where from it works.",
    ),
    delete=extend_schema(
        operation_id="own_key_revoke",
        responses={204: None},
        description="Revoke a key of your own at once.",
    ),
)
class OwnKeyDetailApi(KeyDetailApi):
    actions = {"PATCH": "own_keys.manage", "DELETE": "own_keys.manage"}
    is_own = True


@extend_schema_view(
    post=extend_schema(
        operation_id="own_key_reroll",
        description="Issue a new secret of a key of your own; the old one lives on for its grace.",
        **REROLL,
    )
)
class OwnKeyRerollApi(KeyRerollApi):
    actions = {"POST": "own_keys.manage"}
    is_own = True


def _find(api: KeyDetailApi | KeyRerollApi, key_id: UUID) -> ApiKey:
    owner = _member_id(api) if api.is_own else None
    return selectors.api_key_get(tenant=api.actor.tenant, key_id=key_id, member_id=owner)


def _member_id(api: TenantApi) -> UUID:
    if api.actor.member_id is None:
        raise ForbiddenError("only a member has keys of their own")
    return api.actor.member_id

"""REST: the credentials of an instance."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from engines.kit import auth
from engines.kit.records import Role
from tenants.api.idempotency import idempotency_key, idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import TenantApi
from tenants.instances import credentials, selectors
from tenants.instances.models import Credential, CredentialRole, CredentialSecret, Instance
from tenants.operations.apis import OperationOutput


class SecretOutput(serializers.ModelSerializer[CredentialSecret]):
    class Meta:
        model = CredentialSecret
        fields = ["issued_at", "expires_at", "scram_iterations"]


class CredentialOutput(serializers.ModelSerializer[Credential]):
    role = serializers.ChoiceField(CredentialRole.choices)
    cidrs = serializers.ListField(child=serializers.CharField())
    secrets = SecretOutput(many=True)

    class Meta:
        model = Credential
        fields = [
            "id", "key_id", "username", "label", "role", "is_enabled", "is_configured", "cidrs",
            "secrets", "expires_at", "last_used_at", "revoked_at", "created_by", "created_at",
        ]  # fmt: skip


class CredentialCreated(CredentialOutput):
    """With what is shown once."""

    password = serializers.CharField(allow_null=True)
    uri = serializers.CharField(allow_null=True)

    class Meta(CredentialOutput.Meta):
        fields = [*CredentialOutput.Meta.fields, "password", "uri"]


class CredentialRotated(CredentialCreated):
    operation = OperationOutput()

    class Meta(CredentialCreated.Meta):
        fields = [*CredentialCreated.Meta.fields, "operation"]


class CredentialInput(serializers.Serializer[Credential]):
    role = serializers.ChoiceField(CredentialRole.choices)
    label = serializers.CharField(  # type: ignore[assignment]
        max_length=80, allow_blank=True, default=""
    )
    expires_at = serializers.DateTimeField(allow_null=True, default=None)
    cidrs = serializers.ListField(child=serializers.CharField(max_length=43), default=list)
    scram_iterations = serializers.IntegerField(
        min_value=1,
        max_value=auth.SCRAM_ITERATIONS_MAX,
        default=auth.SCRAM_ITERATIONS,
        help_text="PBKDF2 rounds of each sign-in, for the client. Fewer than 4096 suit clients"
        " that connect for every request; some drivers (pgjdbc, MongoDB's) refuse them.",
    )


class RotateInput(serializers.Serializer[Credential]):
    grace_s = serializers.IntegerField(
        min_value=0,
        max_value=int(credentials.GRACE_MAX.total_seconds()),
        required=False,
        help_text="How long the old secret lives on; default: a day.",
    )


class CredentialListApi(TenantApi):
    actions = {"GET": "credentials.read", "POST": "credentials.create"}

    @extend_schema(operation_id="credential_list", responses=CredentialOutput(many=True))
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """List an instance's credentials."""
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        return self.page(selectors.credential_list(instance=found), CredentialOutput)

    @extend_schema(
        operation_id="credential_create",
        request=CredentialInput,
        responses={201: CredentialCreated},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Make a credential. Its password is shown here once."""
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        data = self.validated(CredentialInput)
        made = credentials.credential_create(
            instance=found, actor=self.actor.name, **{**data, "role": Role(data["role"])}
        )
        return Response(_shown_once(found, made), status=201)


class CredentialDetailApi(TenantApi):
    actions = {"GET": "credentials.read", "DELETE": "credentials.revoke"}

    @extend_schema(operation_id="credential_get", responses=CredentialOutput)
    def get(self, request: Request, tenant: str, instance: str, credential_id: UUID) -> Response:
        """Get one credential."""
        return Response(CredentialOutput(_find(self, instance, credential_id)).data)

    @extend_schema(operation_id="credential_revoke", responses={204: None})
    def delete(self, request: Request, tenant: str, instance: str, credential_id: UUID) -> Response:
        """Revoke a credential: it stops working within a second."""
        credential = _find(self, instance, credential_id)
        credentials.credential_revoke(credential=credential)
        return Response(status=204)


class CredentialRotateApi(TenantApi):
    actions = {"POST": "credentials.rotate"}

    @extend_schema(
        operation_id="credential_rotate",
        request=RotateInput,
        responses={202: CredentialRotated},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str, credential_id: UUID) -> Response:
        """Issue a new password, shown here once; the old one lives on for its grace."""
        credential = _find(self, instance, credential_id)
        data = self.validated(RotateInput)
        grace = timedelta(seconds=data["grace_s"]) if "grace_s" in data else None
        made = credentials.credential_rotate(
            credential=credential,
            actor=self.actor.name,
            grace=grace,
            idempotency_key=idempotency_key(request),
        )
        operation = OperationOutput(made.operation).data
        body = {**_shown_once(credential.instance, made), "operation": operation}
        return Response(body, status=202)


def _find(api: TenantApi, handle: str, credential_id: UUID) -> Credential:
    instance = selectors.instance_get(tenant=api.actor.tenant, handle=handle)
    return selectors.credential_get(instance=instance, credential_id=credential_id)


def _shown_once(instance: Instance, made: credentials.NewSecret) -> dict[str, Any]:
    reach = selectors.connection_of(
        instance=instance, username=made.credential.username, password=made.password
    )
    return {**CredentialOutput(made.credential).data, "password": made.password, "uri": reach.uri}

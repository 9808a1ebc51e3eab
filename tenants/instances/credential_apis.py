"""REST: the credentials of an instance."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from engines.kit import auth
from engines.kit.iam import Target, data_action
from engines.kit.records import Role
from tenants.api.idempotency import idempotency_key, idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import TenantApi
from tenants.api.strict import StrictSerializer
from tenants.core.errors import invalid_field
from tenants.iam.selectors import credential_grants, credential_role, service_id_get
from tenants.instances import credentials, selectors
from tenants.instances.models import Credential, CredentialRole, CredentialSecret, Instance
from tenants.operations.apis import OperationOutput


class SecretOutput(serializers.ModelSerializer[CredentialSecret]):
    class Meta:
        model = CredentialSecret
        fields = ["issued_at", "expires_at", "scram_iterations"]


class GrantOutput(serializers.Serializer[Any]):
    """What one policy of its service id gives a credential, in the instance or in parts of it."""

    roles = serializers.ListField(child=serializers.CharField())
    actions = serializers.ListField(child=serializers.CharField())
    resource_type = serializers.CharField(source="kind", help_text='"": the whole instance.')
    resource = serializers.CharField(source="name", help_text='"": all of the type.')
    is_pattern = serializers.BooleanField(help_text="Whether `*` and `?` in it are wildcards.")


class CredentialOutput(serializers.ModelSerializer[Credential]):
    role = serializers.ChoiceField(CredentialRole.choices)
    cidrs = serializers.ListField(child=serializers.CharField())
    effective_role = serializers.SerializerMethodField()
    service_id = serializers.UUIDField(source="ownership.service_id", allow_null=True, default=None)
    grants = serializers.SerializerMethodField()
    secrets = SecretOutput(many=True)

    class Meta:
        model = Credential
        fields = [
            "id", "key_id", "username", "label", "role", "effective_role", "grants", "service_id",
            "is_enabled", "is_configured", "cidrs", "secrets", "expires_at", "last_used_at",
            "revoked_at", "created_by", "created_at",
        ]  # fmt: skip

    @extend_schema_field(serializers.ChoiceField(CredentialRole.choices, allow_null=True))
    def get_effective_role(self, credential: Credential) -> str | None:
        """Return what it may do now: a service id's policies may give less than `role`, or none."""
        role = credential_role(credential=credential, target=_target(credential))
        return role.value if role else None

    @extend_schema_field(GrantOutput(many=True, allow_null=True))
    def get_grants(self, credential: Credential) -> Any:
        """Return what a service id's policies give, where policies can name parts of an instance.

        `role` bounds them, as it bounds `effective_role`, which is of the whole instance.
        """
        grants = credential_grants(credential=credential, target=_target(credential))
        return None if grants is None else GrantOutput(grants, many=True).data


def _target(credential: Credential) -> Target:
    instance = credential.instance
    return Target(str(instance.tenant_id), instance.engine, instance.handle)


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


class CredentialInput(StrictSerializer):
    role = serializers.ChoiceField(
        CredentialRole.choices,
        required=False,
        help_text="The most that it may do. A service id's credential may do what its policies"
        " give, as they change; it can be left out there.",
    )
    service_id = serializers.UUIDField(allow_null=True, default=None)
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
        service_id, role = data.pop("service_id"), data.pop("role", None)
        service = None
        if service_id is not None:
            service = service_id_get(tenant=self.actor.tenant, service_id=service_id)
        elif role is None:
            raise invalid_field("role", "a credential without a service id has a role")
        role = Role(role or Role.ADMIN)
        _demand_role(self, found, role)
        made = credentials.credential_create(
            instance=found, actor=self.actor.name, role=role, service=service, **data
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
        _demand_role(self, credential.instance, Role(credential.role))
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


def _demand_role(api: TenantApi, instance: Instance, role: Role) -> None:
    """Refuse who may not do inside the instance what the password would let them do."""
    target = api.actor.target(engine=instance.engine, instance=instance.handle)
    api.actor.demand(data_action(role, instance.engine), target)


def _shown_once(instance: Instance, made: credentials.NewSecret) -> dict[str, Any]:
    reach = selectors.connection_of(
        instance=instance, username=made.credential.username, password=made.password
    )
    return {**CredentialOutput(made.credential).data, "password": made.password, "uri": reach.uri}

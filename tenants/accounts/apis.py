"""REST: tenants and members."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.accounts import selectors, services
from tenants.accounts.models import MemberRole, Membership, Tenant, User
from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import ServiceApi, TenantApi
from tenants.iam.models import ApiKey


class TenantOutput(serializers.ModelSerializer[Tenant]):
    class Meta:
        model = Tenant
        fields = ["id", "handle", "name", "created_at"]


class MemberOutput(serializers.ModelSerializer[Membership]):
    email = serializers.EmailField(source="user.email")
    role = serializers.ChoiceField(MemberRole.choices)

    class Meta:
        model = Membership
        fields = ["id", "email", "role", "created_at"]


class MemberCreated(MemberOutput):
    invitation_url = serializers.CharField(allow_null=True)

    class Meta(MemberOutput.Meta):
        fields = [*MemberOutput.Meta.fields, "invitation_url"]


class MemberInput(serializers.Serializer[Membership]):
    email = serializers.EmailField()
    role = serializers.ChoiceField(MemberRole.choices)


class MemberChange(serializers.Serializer[Membership]):
    role = serializers.ChoiceField(MemberRole.choices)


class TenantListApi(ServiceApi):
    @extend_schema(operation_id="tenant_list", responses=TenantOutput(many=True))
    def get(self, request: Request) -> Response:
        """List the tenants that you are a member of, or that your key belongs to."""
        if isinstance(request.auth, ApiKey):
            return self.page(Tenant.objects.filter(pk=request.auth.tenant_id), TenantOutput)
        assert isinstance(request.user, User)
        return self.page(selectors.tenant_list(user=request.user), TenantOutput)


class TenantDetailApi(TenantApi):
    actions = {"GET": "tenant.read"}

    @extend_schema(operation_id="tenant_get", responses=TenantOutput)
    def get(self, request: Request, tenant: str) -> Response:
        """Get one tenant."""
        return Response(TenantOutput(self.actor.tenant).data)


class MemberListApi(TenantApi):
    actions = {"GET": "members.read", "POST": "members.manage"}

    @extend_schema(operation_id="member_list", responses=MemberOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the members of a tenant."""
        return self.page(selectors.member_list(tenant=self.actor.tenant), MemberOutput)

    @extend_schema(
        operation_id="member_add",
        request=MemberInput,
        responses={201: MemberCreated},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Add a person. Who has no password yet gets an address to choose one, shown here once."""
        data = self.validated(MemberInput)
        member = services.member_add(
            actor=self.actor, email=data["email"], role=MemberRole(data["role"])
        )
        body = {**MemberOutput(member).data, "invitation_url": _invitation_url(member)}
        return Response(body, status=201)


class MemberDetailApi(TenantApi):
    actions = {"PATCH": "members.manage", "DELETE": "members.manage"}

    @extend_schema(operation_id="member_change", request=MemberChange, responses=MemberOutput)
    def patch(self, request: Request, tenant: str, member_id: UUID) -> Response:
        """Give a member another role."""
        member = selectors.member_get(tenant=self.actor.tenant, member_id=member_id)
        role = MemberRole(self.validated(MemberChange)["role"])
        member = services.member_change(actor=self.actor, membership=member, role=role)
        return Response(MemberOutput(member).data)

    @extend_schema(operation_id="member_remove", responses={204: None})
    def delete(self, request: Request, tenant: str, member_id: UUID) -> Response:
        """Take a person out of the tenant."""
        member = selectors.member_get(tenant=self.actor.tenant, member_id=member_id)
        services.member_remove(actor=self.actor, membership=member)
        return Response(status=204)


def _invitation_url(member: Membership) -> str | None:
    parts = services.invitation_path_parts(membership=member)
    if parts is None:
        return None
    return f"{settings.CONSOLE_URL}{reverse('console:invitation', args=parts)}"

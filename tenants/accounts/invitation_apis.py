"""REST: invitations into a tenant."""

from __future__ import annotations

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.accounts import invitations, selectors
from tenants.accounts.models import Invitation, MemberRole
from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import TenantApi


class InvitationOutput(serializers.ModelSerializer[Invitation]):
    role = serializers.ChoiceField(MemberRole.choices)
    state = serializers.ChoiceField(["open", "expired", "accepted", "revoked"])

    class Meta:
        model = Invitation
        fields = [
            "id", "email", "role", "state", "invited_by", "expires_at", "mailed_at", "created_at",
        ]  # fmt: skip


class InvitationInput(serializers.Serializer[Invitation]):
    email = serializers.EmailField()
    role = serializers.ChoiceField(MemberRole.choices)


class InvitationListApi(TenantApi):
    actions = {"GET": "members.manage", "POST": "members.manage"}

    @extend_schema(operation_id="invitation_list", responses=InvitationOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the invitations that were not accepted yet."""
        return self.page(selectors.invitation_list(tenant=self.actor.tenant), InvitationOutput)

    @extend_schema(
        operation_id="invitation_create",
        request=InvitationInput,
        responses={201: InvitationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Invite a person. The link is in the mail alone; it works once, within a week."""
        data = self.validated(InvitationInput)
        made = invitations.invitation_create(
            actor=self.actor, email=data["email"], role=MemberRole(data["role"])
        )
        return Response(InvitationOutput(made).data, status=201)


class InvitationDetailApi(TenantApi):
    actions = {"GET": "members.manage", "DELETE": "members.manage"}

    @extend_schema(operation_id="invitation_get", responses=InvitationOutput)
    def get(self, request: Request, tenant: str, invitation_id: UUID) -> Response:
        """Get one invitation."""
        return Response(InvitationOutput(_find(self, invitation_id)).data)

    @extend_schema(operation_id="invitation_revoke", responses={204: None})
    def delete(self, request: Request, tenant: str, invitation_id: UUID) -> Response:
        """Revoke an invitation: its link opens nothing any more."""
        invitations.invitation_revoke(actor=self.actor, invitation=_find(self, invitation_id))
        return Response(status=204)


class InvitationResendApi(TenantApi):
    actions = {"POST": "members.manage"}

    @extend_schema(
        operation_id="invitation_resend",
        request=None,
        responses=InvitationOutput,
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, invitation_id: UUID) -> Response:
        """Mail a new link; the old one ends."""
        found = _find(self, invitation_id)
        found = invitations.invitation_resend(actor=self.actor, invitation=found)
        return Response(InvitationOutput(found).data)


def _find(api: TenantApi, invitation_id: UUID) -> Invitation:
    return selectors.invitation_get(tenant=api.actor.tenant, invitation_id=invitation_id)

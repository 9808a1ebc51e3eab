"""REST: tenants, members, ownership; a person's own sessions."""

from __future__ import annotations

from uuid import UUID

from allauth.usersessions.models import UserSession
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.accounts import selectors, services, sessions
from tenants.accounts.models import MemberRole, Membership, Tenant, User
from tenants.api.idempotency import OnceApi, idempotent, idempotent_once
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import ServiceApi, TenantApi
from tenants.core.errors import ForbiddenError
from tenants.core.middleware import request_id_of
from tenants.iam.models import ApiKey


class TenantOutput(serializers.ModelSerializer[Tenant]):
    class Meta:
        model = Tenant
        fields = ["id", "handle", "name", "requires_second_factor", "created_at"]


class MemberOutput(serializers.ModelSerializer[Membership]):
    email = serializers.EmailField(source="user.email")
    role = serializers.ChoiceField(MemberRole.choices)

    class Meta:
        model = Membership
        fields = ["id", "email", "role", "created_at"]


class TenantChange(serializers.Serializer[Tenant]):
    name = serializers.CharField(max_length=120, required=False)
    requires_second_factor = serializers.BooleanField(
        required=False, help_text="Members without a second factor are refused until they have one."
    )


class TransferInput(serializers.Serializer[Membership]):
    member = serializers.UUIDField(help_text="the member who owns the tenant from now on")


class SessionOutput(serializers.ModelSerializer[UserSession]):
    address = serializers.CharField(source="ip")
    agent = serializers.CharField(source="user_agent")
    is_current = serializers.SerializerMethodField()

    class Meta:
        model = UserSession
        fields = ["id", "address", "agent", "created_at", "is_current"]

    def get_is_current(self, session: UserSession) -> bool:
        """Whether the request came with this session."""
        return bool(session.session_key == self.context.get("session_key"))


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
    actions = {"GET": "tenant.read", "PATCH": "tenant.update"}

    @extend_schema(operation_id="tenant_get", responses=TenantOutput)
    def get(self, request: Request, tenant: str) -> Response:
        """Get one tenant."""
        return Response(TenantOutput(self.actor.tenant).data)

    @extend_schema(operation_id="tenant_change", request=TenantChange, responses=TenantOutput)
    def patch(self, request: Request, tenant: str) -> Response:
        """Rename a tenant, or demand a second factor of its members."""
        changes = self.validated(TenantChange)
        return Response(
            TenantOutput(services.tenant_change(actor=self.actor, changes=changes)).data
        )


class TenantLeaveApi(OnceApi):
    actions = {"POST": "tenant.read"}

    @extend_schema(
        operation_id="tenant_leave", request=None, responses={204: None}, parameters=[IDEMPOTENT]
    )
    @idempotent_once
    def post(self, request: Request, tenant: str) -> Response:
        """Leave a tenant. Its last owner cannot."""
        services.member_leave(actor=self.actor)
        return Response(status=204)


class TenantTransferApi(OnceApi):
    actions = {"POST": "owners.manage"}

    @extend_schema(
        operation_id="tenant_transfer",
        request=TransferInput,
        responses={200: MemberOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent_once
    def post(self, request: Request, tenant: str) -> Response:
        """Give ownership to another member; you stay as an administrator."""
        member_id = self.validated(TransferInput)["member"]
        member = selectors.member_get(tenant=self.actor.tenant, member_id=member_id)
        member = services.ownership_transfer(actor=self.actor, membership=member)
        return Response(MemberOutput(member).data)


class MemberListApi(TenantApi):
    actions = {"GET": "members.read"}

    @extend_schema(operation_id="member_list", responses=MemberOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the members of a tenant."""
        return self.page(selectors.member_list(tenant=self.actor.tenant), MemberOutput)


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


class SessionListApi(ServiceApi):
    pagination_class = None  # type: ignore[assignment]

    @extend_schema(operation_id="session_list", responses=SessionOutput(many=True))
    def get(self, request: Request) -> Response:
        """List where you are signed in, newest first. For people: a key has no sessions."""
        sessions = selectors.session_list(user=_person(request))
        context = {"session_key": request.session.session_key}
        return Response(SessionOutput(sessions, many=True, context=context).data)


class SessionDetailApi(ServiceApi):
    @extend_schema(operation_id="session_revoke", responses={204: None})
    def delete(self, request: Request, session_id: int) -> Response:
        """Sign out one of your sessions."""
        sessions.session_revoke(user=_person(request), session_id=session_id, **_asked(request))
        return Response(status=204)


class SessionOthersApi(ServiceApi):
    @extend_schema(
        operation_id="session_revoke_others",
        request=None,
        responses={204: None},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Sign out all of your sessions but this one."""
        key = request.session.session_key or ""
        sessions.sessions_revoke_others(user=_person(request), keep=key, **_asked(request))
        return Response(status=204)


def _person(request: Request) -> User:
    if request.auth is not None or not isinstance(request.user, User):
        raise ForbiddenError("only a signed-in person has sessions")
    return request.user


def _asked(request: Request) -> dict[str, str]:
    return {
        "address": str(request.META.get("REMOTE_ADDR", "")),
        "request_id": request_id_of(request),
    }

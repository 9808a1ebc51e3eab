"""REST, without a tenant: where everything is, and who asks."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.accounts.models import MemberRole, Membership, User
from tenants.accounts.selectors import membership_list
from tenants.api.service_api import ServiceApi
from tenants.iam.models import ApiKey

# What a script starts from; everything else is below `tenants`.
STARTS = ("docs", "engines", "me", "plans", "roles", "schema", "tenants")


class IndexOutput(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.CharField()
    links = serializers.DictField(child=serializers.CharField())


class MyTenantOutput(serializers.Serializer[Any]):
    handle = serializers.CharField()
    name = serializers.CharField()
    role = serializers.ChoiceField(
        ["", *MemberRole.values], help_text="Empty: policies alone say what the key may do."
    )


class MyKeyOutput(serializers.ModelSerializer[ApiKey]):
    service_id = serializers.UUIDField(
        allow_null=True, help_text="The service id that the key belongs to, if to one."
    )

    class Meta:
        model = ApiKey
        fields = ["id", "key_id", "name", "environment", "expires_at", "service_id"]


class MeOutput(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["user", "api_key"])
    email = serializers.EmailField(
        allow_null=True, help_text="Of the person who is signed in or whose key it is."
    )
    key = MyKeyOutput(allow_null=True)
    tenants = MyTenantOutput(many=True)


class IndexApi(ServiceApi):
    authentication_classes = []
    permission_classes = []

    @extend_schema(operation_id="index", responses=IndexOutput, auth=[])
    def get(self, request: Request) -> Response:
        """Say where to start: the documentation, the document, the catalogues, your tenants."""
        links = {name: reverse(f"api:{name}") for name in STARTS}
        body = {"name": "WeftKit admin API", "version": "1", "links": links}
        return Response(IndexOutput(body).data)


class MeApi(ServiceApi):
    @extend_schema(
        operation_id="me",
        responses=MeOutput,
        examples=[
            OpenApiExample(
                "a person",
                {
                    "kind": "user",
                    "email": "alice@example.org",
                    "key": None,
                    "tenants": [{"handle": "acme", "name": "Acme", "role": "owner"}],
                },
            )
        ],
    )
    def get(self, request: Request) -> Response:
        """Say who you are to this API: the person or the key, its tenants and its role in each."""
        if isinstance(request.auth, ApiKey):
            return Response(MeOutput(_key(request.auth)).data)
        assert isinstance(request.user, User)
        memberships = membership_list(user=request.user)
        body = {
            "kind": "user",
            "email": request.user.email,
            "key": None,
            "tenants": [_tenant(membership) for membership in memberships],
        }
        return Response(MeOutput(body).data)


def _key(key: ApiKey) -> dict[str, Any]:
    member = key.membership
    role = member.role if member is not None else key.role
    tenant = {"handle": key.tenant.handle, "name": key.tenant.name, "role": role}
    email = member.user.email if member is not None else None
    return {"kind": "api_key", "email": email, "key": key, "tenants": [tenant]}


def _tenant(membership: Membership) -> dict[str, Any]:
    tenant = membership.tenant
    return {"handle": tenant.handle, "name": tenant.name, "role": membership.role}

"""REST: service ids, policies, the catalogue of roles, and the question "may X do Y on Z"."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from engines.kit.iam import Operator
from tenants.accounts.permissions import CATALOGUE
from tenants.accounts.selectors import member_get
from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import ServiceApi, TenantApi
from tenants.api.strict import StrictSerializer
from tenants.iam import checks, policies, selectors, service_ids
from tenants.iam.models import AccessPolicy, ServiceId

EXAMPLE_ID = "01a210ea-aea3-7cb9-a6fe-53ab9371d6a1"
SUBJECTS = [("service_id", "service id"), ("member", "member"), ("api_key", "API key")]


class ServiceIdOutput(serializers.ModelSerializer[ServiceId]):
    iam_id = serializers.CharField()

    class Meta:
        model = ServiceId
        fields = ["id", "iam_id", "name", "description", "is_enabled", "created_by", "created_at"]


class ServiceIdInput(StrictSerializer):
    name = serializers.CharField(max_length=80)
    description = serializers.CharField(max_length=300, allow_blank=True, default="")


class ServiceIdChange(StrictSerializer):
    name = serializers.CharField(max_length=80, required=False)
    description = serializers.CharField(max_length=300, allow_blank=True, required=False)
    is_enabled = serializers.BooleanField(required=False)


class MatchField(StrictSerializer):
    """How one attribute is compared."""

    value = serializers.CharField(max_length=policies.VALUE_CHARACTERS_MAX)
    operator = serializers.ChoiceField(
        [operator.value for operator in Operator], default=Operator.EQUALS.value
    )


class ScopeField(StrictSerializer):
    """What a policy covers; an attribute that is absent means all."""

    engine = MatchField(required=False)
    instance = MatchField(required=False, help_text="its handle")
    resource_type = MatchField(required=False, help_text="database, collection, table or bucket")
    resource = MatchField(required=False)


class SubjectField(StrictSerializer):
    """Whose policy it is."""

    type = serializers.ChoiceField(SUBJECTS)
    id = serializers.UUIDField()


class PolicyOutput(serializers.Serializer[AccessPolicy]):
    id = serializers.UUIDField()
    subject = serializers.SerializerMethodField()
    roles = serializers.ListField(child=serializers.CharField())
    actions = serializers.ListField(child=serializers.CharField())
    scope = ScopeField()
    description = serializers.CharField()
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()

    @extend_schema_field(SubjectField)
    def get_subject(self, policy: AccessPolicy) -> dict[str, Any]:
        """Return whose it is."""
        owners = {
            "service_id": policy.service_id,
            "member": policy.membership_id,
            "api_key": policy.api_key_id,
        }
        return next({"type": name, "id": str(pk)} for name, pk in owners.items() if pk)


class PolicyChange(StrictSerializer):
    roles = serializers.ListField(child=serializers.CharField(max_length=32), required=False)
    actions = serializers.ListField(child=serializers.CharField(max_length=80), required=False)
    scope = ScopeField(required=False)
    description = serializers.CharField(max_length=300, allow_blank=True, required=False)


class PolicyInput(PolicyChange):
    subject = SubjectField()
    roles = serializers.ListField(child=serializers.CharField(max_length=32), default=list)
    actions = serializers.ListField(child=serializers.CharField(max_length=80), default=list)
    scope = ScopeField(default=dict)
    description = serializers.CharField(max_length=300, allow_blank=True, default="")


class PolicyFilter(serializers.Serializer[Any]):
    subject = serializers.UUIDField(required=False, help_text="the id of a subject")


class CheckInput(serializers.Serializer[Any]):
    action = serializers.CharField(max_length=80)
    instance = serializers.CharField(max_length=40, default="")
    resource_type = serializers.CharField(max_length=32, default="")
    resource = serializers.CharField(max_length=policies.VALUE_CHARACTERS_MAX, default="")
    subject_type = serializers.ChoiceField(
        SUBJECTS, required=False, help_text="whom it is about; without one: you"
    )
    subject = serializers.UUIDField(required=False)


class CheckOutput(serializers.Serializer[Any]):
    is_allowed = serializers.BooleanField()
    policy = serializers.CharField(
        allow_null=True, help_text="the policy that allows it, or role:<name>"
    )


class RoleOutput(serializers.Serializer[Any]):
    name = serializers.CharField()
    kind = serializers.ChoiceField(["platform", "service", "member"])
    actions = serializers.ListField(child=serializers.CharField())


class RoleListOutput(serializers.Serializer[Any]):
    items = RoleOutput(many=True)


class ServiceIdListApi(TenantApi):
    actions = {"GET": "service_ids.read", "POST": "service_ids.manage"}

    @extend_schema(operation_id="service_id_list", responses=ServiceIdOutput(many=True))
    def get(self, request: Request, tenant: str) -> Response:
        """List the service ids of a tenant."""
        return self.page(selectors.service_id_list(tenant=self.actor.tenant), ServiceIdOutput)

    @extend_schema(
        operation_id="service_id_create",
        request=ServiceIdInput,
        responses={201: ServiceIdOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Make a service id, which may do nothing until it has policies."""
        service = service_ids.service_id_create(actor=self.actor, **self.validated(ServiceIdInput))
        return Response(ServiceIdOutput(service).data, status=201)


class ServiceIdDetailApi(TenantApi):
    actions = {
        "GET": "service_ids.read",
        "PATCH": "service_ids.manage",
        "DELETE": "service_ids.manage",
    }

    @extend_schema(operation_id="service_id_get", responses=ServiceIdOutput)
    def get(self, request: Request, tenant: str, service_id: UUID) -> Response:
        """Get one service id."""
        return Response(ServiceIdOutput(self._find(service_id)).data)

    @extend_schema(
        operation_id="service_id_change", request=ServiceIdChange, responses=ServiceIdOutput
    )
    def patch(self, request: Request, tenant: str, service_id: UUID) -> Response:
        """Rename a service id, disable or enable it."""
        service = service_ids.service_id_change(
            service=self._find(service_id), changes=self.validated(ServiceIdChange)
        )
        return Response(ServiceIdOutput(service).data)

    @extend_schema(operation_id="service_id_delete", responses={204: None})
    def delete(self, request: Request, tenant: str, service_id: UUID) -> Response:
        """End a service id with its keys, policies and credentials, at once and for good."""
        service_ids.service_id_delete(service=self._find(service_id))
        return Response(status=204)

    def _find(self, service_id: UUID) -> ServiceId:
        return selectors.service_id_get(tenant=self.actor.tenant, service_id=service_id)


class PolicyListApi(TenantApi):
    actions = {"GET": "policies.read", "POST": "policies.manage"}

    @extend_schema(
        operation_id="policy_list", parameters=[PolicyFilter], responses=PolicyOutput(many=True)
    )
    def get(self, request: Request, tenant: str) -> Response:
        """List the policies of a tenant, or of one subject."""
        found = selectors.policy_list(tenant=self.actor.tenant)
        subject = self.query(PolicyFilter).get("subject")
        if subject is not None:
            found = selectors.policies_about(policies=found, subject_id=subject)
        return self.page(found, PolicyOutput)

    @extend_schema(
        operation_id="policy_create",
        request=PolicyInput,
        responses={201: PolicyOutput},
        parameters=[IDEMPOTENT],
        examples=[
            OpenApiExample(
                "A program's instances",
                {
                    "subject": {"type": "service_id", "id": EXAMPLE_ID},
                    "roles": ["Viewer", "Writer"],
                    "scope": {
                        "engine": {"operator": "stringEquals", "value": "relational"},
                        "instance": {"operator": "stringMatches", "value": "acme-shop-*"},
                    },
                },
                request_only=True,
            )
        ],
    )
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Grant roles or actions to a subject, in a scope; no more than you hold."""
        data = self.validated(PolicyInput)
        subject = data.pop("subject")
        found = _subject(self, subject["type"], subject["id"])
        policy = policies.policy_create(actor=self.actor, subject=found, **data)
        return Response(PolicyOutput(policy).data, status=201)


class PolicyDetailApi(TenantApi):
    actions = {"GET": "policies.read", "PATCH": "policies.manage", "DELETE": "policies.manage"}

    @extend_schema(operation_id="policy_get", responses=PolicyOutput)
    def get(self, request: Request, tenant: str, policy_id: UUID) -> Response:
        """Get one policy."""
        return Response(PolicyOutput(self._find(policy_id)).data)

    @extend_schema(operation_id="policy_change", request=PolicyChange, responses=PolicyOutput)
    def patch(self, request: Request, tenant: str, policy_id: UUID) -> Response:
        """Change what a policy grants; it takes effect at once, inside instances too."""
        policy = policies.policy_change(
            actor=self.actor,
            policy=self._find(policy_id),
            changes=self.validated(PolicyChange),
        )
        return Response(PolicyOutput(policy).data)

    @extend_schema(operation_id="policy_delete", responses={204: None})
    def delete(self, request: Request, tenant: str, policy_id: UUID) -> Response:
        """Take a policy away; it takes effect at once, inside instances too."""
        policies.policy_delete(actor=self.actor, policy=self._find(policy_id))
        return Response(status=204)

    def _find(self, policy_id: UUID) -> AccessPolicy:
        return selectors.policy_get(tenant=self.actor.tenant, policy_id=policy_id)


class IamCheckApi(TenantApi):
    actions = {"GET": "tenant.read"}

    @extend_schema(operation_id="iam_check", parameters=[CheckInput], responses=CheckOutput)
    def get(self, request: Request, tenant: str) -> Response:
        """Say whether somebody may do something, on the tenant or on an instance, and why."""
        data = self.query(CheckInput)
        held = self.actor.policies
        if "subject_type" in data or "subject" in data:
            self.actor.demand("policies.read")
            held = checks.policies_held(_subject(self, *checks.subject_named(data)))
        decision = checks.check(tenant=self.actor.tenant, held=held, question=data)
        policy = decision.policy.policy_id if decision.policy else None
        return Response({"is_allowed": decision.is_allowed, "policy": policy})


class RoleListApi(ServiceApi):
    @extend_schema(operation_id="role_list", responses=RoleListOutput)
    def get(self, request: Request) -> Response:
        """List all roles with their actions: on the control plane and inside instances."""
        items = [
            {"name": role, "kind": checks.kind_of(role), "actions": sorted(actions)}
            for role, actions in CATALOGUE.items()
        ]
        return Response({"items": items})


def _subject(api: TenantApi, kind: str, subject_id: UUID) -> policies.Subject:
    tenant = api.actor.tenant
    if kind == "service_id":
        found = selectors.service_id_get(tenant=tenant, service_id=subject_id)
        return policies.Subject(service=found)
    if kind == "member":
        return policies.Subject(membership=member_get(tenant=tenant, member_id=subject_id))
    return policies.Subject(api_key=selectors.api_key_get(tenant=tenant, key_id=subject_id))

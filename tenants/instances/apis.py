"""REST: engines, instances, connection strings. Credentials are in `credential_apis.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from engines.kit.exchange import OBSERVED_STATES
from tenants.api.idempotency import idempotency_key, idempotent
from tenants.api.schema import IDEMPOTENT, PAGE
from tenants.api.service_api import ServiceApi, TenantApi
from tenants.billing.dry_run import DRY_RUN, EstimateOutput, can_dry_run, or_estimate
from tenants.instances import selectors, services
from tenants.instances.filters import InstanceFilter, instance_filter
from tenants.instances.models import BLOCKS_MAX, AuthMethod, Instance, InstanceStatus
from tenants.instances.tags import VALUE_CHARACTERS_MAX
from tenants.operations.apis import OperationOutput, accepted
from tenants.operations.models import Operation

NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$"


class TagsField(serializers.DictField):
    child = serializers.CharField(max_length=VALUE_CHARACTERS_MAX, allow_blank=True)


class EngineOutput(serializers.Serializer[Any]):
    name = serializers.CharField()
    title = serializers.CharField()
    product = serializers.CharField()
    port = serializers.IntegerField()


class EngineListOutput(serializers.Serializer[Any]):
    items = EngineOutput(many=True)


class InstanceOutput(serializers.ModelSerializer[Instance]):
    plan = serializers.CharField(source="plan.name")
    status = serializers.ChoiceField(InstanceStatus.choices)
    auth_method = serializers.ChoiceField(AuthMethod.choices)
    allowlist = serializers.ListField(child=serializers.CharField())
    tags = serializers.DictField(child=serializers.CharField())
    server_state = serializers.ChoiceField(
        ["", *OBSERVED_STATES],
        read_only=True,
        help_text="What its server does; hibernated: the next connection wakes it.",
    )

    class Meta:
        model = Instance
        fields = [
            "id", "handle", "engine", "plan", "blocks", "region", "status", "status_detail",
            "server_state", "allowlist", "deletion_protected", "auth_method", "is_default", "tags",
            "quarantined_at", "purge_after", "created_at", "created_by",
        ]  # fmt: skip


class InstanceInput(serializers.Serializer[Instance]):
    name = serializers.RegexField(
        NAME_PATTERN, max_length=32, help_text="The handle becomes <tenant>-<name>."
    )
    engine = serializers.CharField(max_length=32)
    plan = serializers.CharField(max_length=32)
    blocks = serializers.IntegerField(min_value=1, max_value=BLOCKS_MAX, default=1)
    region = serializers.CharField(max_length=40, allow_blank=True, default="")
    allowlist = serializers.ListField(child=serializers.CharField(max_length=43), default=list)
    deletion_protected = serializers.BooleanField(default=True)
    tags = TagsField(default=dict, help_text="Up to 20, for cost reports and budgets.")


class InstanceChange(serializers.Serializer[Instance]):
    plan = serializers.CharField(max_length=32, required=False)
    blocks = serializers.IntegerField(min_value=1, max_value=BLOCKS_MAX, required=False)
    allowlist = serializers.ListField(child=serializers.CharField(max_length=43), required=False)
    deletion_protected = serializers.BooleanField(required=False)
    tags = TagsField(required=False, help_text="All of them: what is not given is gone.")


class ConnectionOutput(serializers.Serializer[selectors.Connection]):
    host = serializers.CharField()
    port = serializers.IntegerField()
    username = serializers.CharField()
    uri = serializers.CharField(help_text="Works with and without TLS.")
    uri_tls = serializers.CharField(help_text="Insists on TLS; empty without certificates.")
    uri_pooled = serializers.CharField(
        help_text="Where clients share connections, a transaction each; empty if they cannot."
    )
    one_liner = serializers.CharField()
    ca = serializers.SerializerMethodField()

    def get_ca(self, connection: selectors.Connection) -> str:
        return str(settings.TLS_CA_PUBLIC)


class EngineListApi(ServiceApi):
    @extend_schema(operation_id="engine_list", responses=EngineListOutput)
    def get(self, request: Request) -> Response:
        """List the engines that are in service here."""
        items = [
            {
                "name": spec.name,
                "title": spec.title,
                "product": spec.product,
                "port": selectors.port_of(engine=spec.name),
            }
            for spec in selectors.engine_list()
        ]
        return Response(EngineListOutput({"items": items}).data)


class InstanceListApi(TenantApi):
    actions = {"GET": "instances.read", "POST": "instances.create"}
    is_narrowed = True

    @extend_schema(
        operation_id="instance_list",
        parameters=[InstanceFilter, *PAGE],
        responses=InstanceOutput(many=True),
    )
    def get(self, request: Request, tenant: str) -> Response:
        """List the instances that you may see, all or those that you describe."""
        rows = selectors.instances_allowed(actor=self.actor, action="instances.read")
        return self.page(instance_filter(rows, self.query(InstanceFilter)), InstanceOutput)

    @extend_schema(
        operation_id="instance_create",
        request=InstanceInput,
        responses={200: EstimateOutput, 202: OperationOutput},
        parameters=[IDEMPOTENT, DRY_RUN],
    )
    @can_dry_run
    @idempotent
    def post(self, request: Request, tenant: str) -> Response:
        """Make an instance; the operation provisions it."""
        operation = services.instance_create(
            tenant=self.actor.tenant,
            actor=self.actor.name,
            idempotency_key=idempotency_key(request),
            **self.validated(InstanceInput),
        )
        return accepted(operation)


class InstanceDetailApi(TenantApi):
    actions = {
        "GET": "instances.read",
        "PATCH": "instances.update",
        "DELETE": "instances.delete",
    }

    @extend_schema(operation_id="instance_get", responses=InstanceOutput)
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """Get one instance."""
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        return Response(InstanceOutput(found).data)

    @extend_schema(
        operation_id="instance_change",
        request=InstanceChange,
        responses=or_estimate(InstanceOutput),
        parameters=[DRY_RUN],
    )
    @can_dry_run
    def patch(self, request: Request, tenant: str, instance: str) -> Response:
        """Change plan, blocks, allowlist or deletion protection: in force within a second."""
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        services.instance_change(instance=found, **self.validated(InstanceChange))
        changed = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        return Response(InstanceOutput(changed).data)

    @extend_schema(
        operation_id="instance_delete", responses={202: OperationOutput}, parameters=[IDEMPOTENT]
    )
    @idempotent
    def delete(self, request: Request, tenant: str, instance: str) -> Response:
        """Put an instance into quarantine; it is purged at the end of the retention time."""
        return _start(self, instance, services.instance_delete)


class ScaleInput(serializers.Serializer[Instance]):
    plan = serializers.CharField(max_length=32, required=False)
    blocks = serializers.IntegerField(
        min_value=1, max_value=BLOCKS_MAX, required=False, help_text="With another plan: absent, 1."
    )


class InstanceScaleApi(TenantApi):
    actions = {"POST": "instances.update"}

    @extend_schema(
        operation_id="instance_scale",
        request=ScaleInput,
        responses={200: EstimateOutput, 202: OperationOutput},
        parameters=[IDEMPOTENT, DRY_RUN],
        examples=[OpenApiExample("Twice", {"plan": "standard", "blocks": 2}, request_only=True)],
    )
    @can_dry_run
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Change plan or blocks; the operation ends when the server has followed.

        Refused where what the instance holds does not fit. Cancelling goes back to the old plan.
        """
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        operation = services.instance_scale(
            instance=found,
            actor=self.actor.name,
            idempotency_key=idempotency_key(request),
            **self.validated(ScaleInput),
        )
        return accepted(operation)


class InstanceHibernateApi(TenantApi):
    actions = {"POST": "instances.suspend"}

    @extend_schema(
        operation_id="instance_hibernate",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Stop the server as soon as nobody is connected; the next connection wakes it."""
        return _start(self, instance, services.instance_hibernate)


class InstanceWakeApi(TenantApi):
    actions = {"POST": "instances.suspend"}

    @extend_schema(
        operation_id="instance_wake",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Start the server of an instance that sleeps, before its first client comes."""
        return _start(self, instance, services.instance_wake)


class InstanceSuspendApi(TenantApi):
    actions = {"POST": "instances.suspend"}

    @extend_schema(
        operation_id="instance_suspend",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Refuse clients and stop the server; data stays."""
        return _start(self, instance, services.instance_suspend)


class InstanceResumeApi(TenantApi):
    actions = {"POST": "instances.suspend"}

    @extend_schema(
        operation_id="instance_resume",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Bring a suspended instance back, or try a failed one again."""
        return _start(self, instance, services.instance_resume)


class InstanceUndeleteApi(TenantApi):
    actions = {"POST": "instances.delete"}

    @extend_schema(
        operation_id="instance_undelete",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Bring an instance back out of quarantine."""
        return _start(self, instance, services.instance_undelete)


class InstanceConnectionApi(TenantApi):
    actions = {"GET": "credentials.read"}

    @extend_schema(
        operation_id="instance_connection",
        parameters=[OpenApiParameter("username", str, description="A credential's user name.")],
        responses=ConnectionOutput,
    )
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """Get the connection strings, with a placeholder where the password goes."""
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        username = selectors.username_checked(
            instance=found, username=request.query_params.get("username", "")
        )
        connection = selectors.connection_of(instance=found, username=username)
        return Response(ConnectionOutput(connection).data)


def _start(api: TenantApi, handle: str, service: Callable[..., Operation]) -> Response:
    """Start what `service` starts on the instance of this handle, and answer 202."""
    found = selectors.instance_get(tenant=api.actor.tenant, handle=handle)
    operation = service(
        instance=found, actor=api.actor.name, idempotency_key=idempotency_key(api.request)
    )
    return accepted(operation)

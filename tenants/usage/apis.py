"""REST: plans, and usage."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.service_api import ServiceApi, TenantApi
from tenants.billing.dry_run import RateOutput
from tenants.billing.selectors import prices_by_plan
from tenants.core.errors import invalid_field
from tenants.instances.selectors import instance_get, instances_ever_allowed
from tenants.usage import selectors
from tenants.usage.models import Plan

HOURS_PERIOD_MAX = timedelta(days=93)
PERIOD_DEFAULT = timedelta(hours=24)


class PlanOutput(serializers.ModelSerializer[Plan]):
    prices = serializers.SerializerMethodField(help_text="Of the price list in force.")

    @extend_schema_field(RateOutput(many=True))
    def get_prices(self, plan: Plan) -> Any:
        return RateOutput(self.context["prices"].get(plan.name, []), many=True).data

    class Meta:
        model = Plan
        fields = [
            "name", "version", "title", "has_blocks", "has_own_server", "read_units", "write_units",
            "query_units", "storage_bytes", "storage_grace_s", "storage_grace_percent",
            "memory_bytes", "prices", "connections", "statement_timeout_ms",
            "eviction_policy", "hibernate_after_s",
        ]  # fmt: skip


class PeriodInput(serializers.Serializer[Any]):
    start = serializers.DateTimeField(required=False)
    stop = serializers.DateTimeField(required=False)


class FiguresOutput(serializers.Serializer[Any]):
    read_units = serializers.IntegerField()
    write_units = serializers.IntegerField()
    query_units = serializers.IntegerField()
    unlimited_units = serializers.IntegerField()
    refused_units = serializers.IntegerField()
    bytes_in = serializers.IntegerField()
    bytes_out = serializers.IntegerField()


class UsageOutput(serializers.Serializer[selectors.Usage]):
    instance = serializers.CharField()  # type: ignore[assignment]
    start = serializers.DateTimeField()
    stop = serializers.DateTimeField()
    figures = FiguresOutput()


class UsageListOutput(serializers.Serializer[Any]):
    items = UsageOutput(many=True)


class UsageHourOutput(FiguresOutput):
    hour = serializers.DateTimeField()


class UsageHourListOutput(serializers.Serializer[Any]):
    items = UsageHourOutput(many=True)


class SeriesInput(PeriodInput):
    step = serializers.IntegerField(
        min_value=60, max_value=31 * 86400, default=3600, help_text="Seconds, whole minutes."
    )


class PointOutput(serializers.Serializer[selectors.Point]):
    at = serializers.DateTimeField()
    figures = FiguresOutput()
    storage_bytes = serializers.IntegerField(allow_null=True)
    memory_bytes = serializers.IntegerField(allow_null=True)


class SeriesOutput(serializers.Serializer[Any]):
    items = PointOutput(many=True)


class PlanListApi(ServiceApi):
    @extend_schema(operation_id="plan_list", responses=PlanOutput(many=True))
    def get(self, request: Request) -> Response:
        """List the plans that new instances can have, with their prices."""
        return self.page(selectors.plan_list(), PlanOutput, prices=prices_by_plan())


class UsageListApi(TenantApi):
    actions = {"GET": "usage.read"}
    is_narrowed = True

    @extend_schema(operation_id="usage_list", parameters=[PeriodInput], responses=UsageListOutput)
    def get(self, request: Request, tenant: str) -> Response:
        """Sum the usage of each instance that you see, over whole hours; default: the last 24."""
        start, stop = _period(self.query(PeriodInput))
        seen = instances_ever_allowed(actor=self.actor, action="usage.read")
        named = seen.values_list("pk", "handle")
        sums = selectors.usage_sum(instances=named, start=start, stop=stop)
        return Response(UsageListOutput({"items": sums}).data)


class InstanceUsageApi(TenantApi):
    actions = {"GET": "usage.read"}

    @extend_schema(
        operation_id="instance_usage_list",
        parameters=[PeriodInput],
        responses=UsageHourListOutput,
    )
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """List an instance's usage hour by hour; hours without any are left out."""
        found = instance_get(tenant=self.actor.tenant, handle=instance)
        start, stop = _period(self.query(PeriodInput))
        if stop - start > HOURS_PERIOD_MAX:
            raise invalid_field("start", f"at most {HOURS_PERIOD_MAX.days} days at once")
        hours = selectors.usage_hour_list(instance_id=found.pk, start=start, stop=stop)
        return Response(UsageHourListOutput({"items": hours}).data)


class InstanceUsageSeriesApi(TenantApi):
    actions = {"GET": "usage.read"}

    @extend_schema(
        operation_id="instance_usage_series", parameters=[SeriesInput], responses=SeriesOutput
    )
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """List an instance's usage in equal steps: hours for ever, minutes for three days."""
        found = instance_get(tenant=self.actor.tenant, handle=instance)
        given = self.query(SeriesInput)
        step = timedelta(seconds=given.pop("step"))
        start, stop = _period(given)
        points = selectors.usage_series(
            instance_id=found.pk, start=given.get("start", start), stop=stop, step=step
        )
        return Response(SeriesOutput({"items": points}).data)


def _period(given: dict[str, datetime]) -> tuple[datetime, datetime]:
    stop = given.get("stop") or timezone.now()
    try:
        start = given.get("start") or stop - PERIOD_DEFAULT
    except OverflowError as error:
        raise invalid_field("stop", "there is no time before it") from error
    # Usage is kept by the hour: the hour that `start` falls into counts whole.
    return start.replace(minute=0, second=0, microsecond=0), stop

"""`?dry_run=true` on a change that costs: the answer is its price, and nothing is changed.

Put `can_dry_run` above `idempotent`. The method runs as ever and is rolled back: no claim of an
idempotency key stays, no event is written, no operation is started.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.audited import DRY_RUN_HEADER, wants_dry_run
from tenants.api.service_api import TenantApi
from tenants.billing.estimates import Cost, Estimate, estimate_change

Handler = Callable[..., Response]

DRY_RUN = OpenApiParameter(
    "dry_run",
    bool,
    description="true: answer 200 with what the change would cost, and change nothing.",
)


class CostOutput(serializers.Serializer[Cost]):
    hour_micros = serializers.IntegerField()
    month_micros = serializers.IntegerField(help_text="730 hours.")


class RateOutput(serializers.Serializer[Any]):
    """A price of a plan."""

    plan = serializers.CharField()
    meter = serializers.CharField()
    unit = serializers.CharField(help_text="What `per` of the meter's smallest unit are called.")
    micros = serializers.IntegerField(help_text="Millionths of the currency for each `per`.")
    per = serializers.IntegerField()
    included = serializers.IntegerField(help_text="Free in each hour, in the smallest unit.")


class EstimateOutput(serializers.Serializer[Estimate]):
    currency = serializers.CharField()
    before = CostOutput()
    after = CostOutput()
    difference = CostOutput()
    rates = RateOutput(many=True)


def or_estimate(output: type[serializers.Serializer[Any]]) -> PolymorphicProxySerializer:
    """Return the schema of a 200 that is `output`, or an estimate for a dry run."""
    return PolymorphicProxySerializer(
        component_name=f"{output.__name__.removesuffix('Output')}OrEstimate",
        serializers=[output, EstimateOutput],
        resource_type_field_name=None,
    )


def can_dry_run(handler: Handler) -> Handler:
    """Let a method of a TenantApi say what it would cost."""

    @functools.wraps(handler)
    def handle(self: TenantApi, request: Request, **kwargs: Any) -> Response:
        if not wants_dry_run(request):
            return handler(self, request, **kwargs)
        estimate = estimate_change(
            tenant=self.actor.tenant, change=lambda: handler(self, request, **kwargs)
        )
        return Response(EstimateOutput(estimate).data, headers={DRY_RUN_HEADER: "true"})

    return handle

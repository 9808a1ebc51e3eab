"""REST: search a tenant's events, export them, verify their chain; an instance's data events.

GET .../audit                 search, newest first
GET .../audit/<id>            one event, whole, with its place in the chain
GET .../audit/export          JSON Lines or CSV, streamed
GET .../audit/verify          walk the chain
GET .../audit/head            the newest link, signed
GET|PATCH .../instances/<handle>/audit   whether its data events are kept
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.audited import asked_of
from tenants.api.service_api import ServiceApi, TenantApi
from tenants.audit import selectors, switches
from tenants.audit.actions import DATAPLANE, OTHERS, REQUESTS, Action, Severity
from tenants.audit.anchors import anchor_holds, anchor_make
from tenants.audit.cadf import OUTCOMES
from tenants.audit.chain import chain_verify
from tenants.audit.exports import FORMATS, gzipped, range_check, rows_check
from tenants.audit.models import AuditEvent
from tenants.audit.selectors import Search
from tenants.audit.services import audit_write
from tenants.core.pagination import NewestFirst
from tenants.core.streaming import AnyAccept, PieceStream
from tenants.instances.selectors import instance_get

# Links that one request walks at most: some seconds.
LINKS_MAX = 100_000
SEVERITIES = [severity.value for severity in Severity]


class NewestEventFirst(NewestFirst):
    ordering = "-event_id"


class AuditEventOutput(serializers.ModelSerializer[AuditEvent]):
    id = serializers.UUIDField(source="event_id")
    at = serializers.DateTimeField(source="occurred_at")
    action = serializers.CharField()
    initiator = serializers.CharField()
    target = serializers.CharField()
    address = serializers.CharField(source="body.initiator.host.address")
    outcome = serializers.ChoiceField(OUTCOMES)
    severity = serializers.ChoiceField(SEVERITIES)
    message = serializers.CharField(source="body.message")
    reason_code = serializers.IntegerField(source="body.reason.reasonCode")
    request_id = serializers.CharField(source="correlation_id")
    is_data_event = serializers.BooleanField(source="is_data")

    class Meta:
        model = AuditEvent
        fields = [
            "id", "at", "action", "severity", "message", "initiator", "address", "target",
            "outcome", "reason_code", "request_id", "is_data_event",
        ]  # fmt: skip


class ChainOutput(serializers.Serializer[Any]):
    sequence = serializers.IntegerField(allow_null=True)
    previous = serializers.CharField(allow_null=True)
    digest = serializers.CharField(
        allow_null=True,
        help_text="SHA-256 of [previous, sequence, id, tenant_id, occurred_at, stored_at, event] "
        "as JSON with sorted names and without spaces.",
    )
    tenant_id = serializers.CharField()
    occurred_at = serializers.CharField()
    stored_at = serializers.CharField()


class AuditEventDetail(serializers.Serializer[Any]):
    event = serializers.JSONField(help_text="The event as CADF.")
    chain = ChainOutput(help_text="Its place; without a sequence until it has one.")


class AuditQuery(serializers.Serializer[Any]):
    """What to look for. `action`, `target` and `actor` may end in `*`."""

    since = serializers.DateTimeField(required=False, help_text="The first moment.")
    until = serializers.DateTimeField(required=False, help_text="The moment after the last.")
    actor = serializers.CharField(required=False, max_length=300, help_text="user:a@example.org")
    action = serializers.CharField(required=False, max_length=100, help_text="weftkit.instance.*")
    target = serializers.CharField(required=False, max_length=300, help_text="instances/a-main*")
    outcome = serializers.ChoiceField(OUTCOMES, required=False)
    severity = serializers.ChoiceField(SEVERITIES, required=False)
    request_id = serializers.CharField(required=False, max_length=300)
    is_data = serializers.BooleanField(required=False, allow_null=True, default=None)


class AuditExportQuery(AuditQuery):
    format = serializers.ChoiceField(sorted(FORMATS), default="jsonl")
    gzip = serializers.BooleanField(default=False)


class VerifyQuery(serializers.Serializer[Any]):
    after = serializers.IntegerField(
        default=0, min_value=0, max_value=2**60, help_text="Go on behind this place: `last`."
    )
    anchor_sequence = serializers.IntegerField(required=False, min_value=0, max_value=2**60)
    anchor_digest = serializers.RegexField(
        "^[0-9a-f]{64}$", required=False, help_text="What the chain had there once, by a head."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("anchor_sequence" in attrs) != ("anchor_digest" in attrs):
            raise serializers.ValidationError({"anchor_digest": "an anchor has both parts"})
        return attrs


class VerifyOutput(serializers.Serializer[Any]):
    is_whole = serializers.BooleanField()
    is_complete = serializers.BooleanField(help_text="`last` is the head; if not, go on behind it.")
    first = serializers.IntegerField()
    last = serializers.IntegerField()
    digest = serializers.CharField()
    waiting = serializers.IntegerField(help_text="Events that have no place yet.")
    broken_at = serializers.IntegerField(allow_null=True)
    why = serializers.CharField(allow_blank=True)
    anchor_holds = serializers.BooleanField(
        allow_null=True, help_text="Null: none was asked for, or its place is not kept any more."
    )


class HeadOutput(serializers.Serializer[Any]):
    chain_id = serializers.UUIDField()
    sequence = serializers.IntegerField()
    digest = serializers.CharField()
    signed_at = serializers.CharField()
    signature = serializers.CharField(
        help_text="Ed25519 over the four fields before as JSON, names sorted, without spaces."
    )
    public_key = serializers.CharField()


class InstanceAuditForm(serializers.Serializer[Any]):
    data_events = serializers.BooleanField()


class ActionOutput(serializers.Serializer[Action]):
    name = serializers.CharField()
    severity = serializers.ChoiceField(SEVERITIES, source="grade")
    message = serializers.CharField(source="text")
    target_type = serializers.CharField()
    is_data_event = serializers.BooleanField(source="is_data")


class ActionListOutput(serializers.Serializer[Any]):
    items = ActionOutput(many=True)


class ActionListApi(ServiceApi):
    @extend_schema(operation_id="audit_action_list", responses=ActionListOutput)
    def get(self, request: Request) -> Response:
        """List every action that leaves an event. Of data planes `<engine>.` stands for each."""
        plane = [
            Action(f"weftkit.<engine>.{each.name}", "", each.grade, each.text, each.is_data)
            for each in DATAPLANE
        ]
        items = sorted({*REQUESTS.values(), *OTHERS, *plane}, key=lambda each: each.name)
        return Response(ActionListOutput({"items": items}).data)


class AuditListApi(TenantApi):
    actions = {"GET": "audit.read"}
    is_narrowed = True
    pagination_class = NewestEventFirst

    @extend_schema(
        operation_id="audit_list", parameters=[AuditQuery], responses=AuditEventOutput(many=True)
    )
    def get(self, request: Request, tenant: str) -> Response:
        """List what was done, or tried, in a tenant, as far as you may see it; newest first."""
        search = Search(**self.query(AuditQuery))
        found = selectors.audit_seen(actor=self.actor, search=search)
        return self.page(found, AuditEventOutput)


class AuditDetailApi(TenantApi):
    actions = {"GET": "audit.read"}
    is_narrowed = True

    @extend_schema(operation_id="audit_get", responses=AuditEventDetail)
    def get(self, request: Request, tenant: str, event_id: UUID) -> Response:
        """Get one event whole, with its place in the chain."""
        events = selectors.audit_seen(actor=self.actor)
        found = selectors.audit_get(events=events, event_id=event_id)
        told = {"event": json.loads(found.body), "chain": found.chain()}
        return Response(AuditEventDetail(told).data)


class AuditExportApi(TenantApi):
    actions = {"GET": "audit.read"}
    is_narrowed = True
    http_method_names = ["get"]
    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="audit_export",
        parameters=[AuditExportQuery],
        responses={
            (200, "application/x-ndjson"): OpenApiTypes.BINARY,
            (200, "text/csv"): OpenApiTypes.BINARY,
            (200, "application/gzip"): OpenApiTypes.BINARY,
        },
    )
    def get(self, request: Request, tenant: str) -> StreamingHttpResponse:
        """Export events as a file, oldest first; of the last 30 days where no time is given."""
        wanted = self.query(AuditExportQuery)
        kind, is_gzip = wanted.pop("format"), wanted.pop("gzip")
        wanted["until"] = wanted.get("until") or timezone.now()
        wanted["since"] = range_check(wanted.get("since"), wanted["until"])
        found = selectors.audit_seen(actor=self.actor, search=Search(**wanted))
        rows_check(found)
        # It takes events out of the tenant, so it leaves one although it reads.
        audit_write(
            tenant_id=self.actor.tenant.pk,
            action="weftkit.audit.export",
            initiator=self.actor.name,
            target="audit",
            asked=asked_of(request),
        )
        make, media_type = FORMATS[kind]
        pieces = make(found)
        name = f"audit-{tenant}-{wanted['since']:%Y%m%d}-{wanted['until']:%Y%m%d}.{kind}"
        headers = {"Cache-Control": "private, no-store"}
        if is_gzip:
            pieces, media_type, name = gzipped(pieces), "application/gzip", f"{name}.gz"
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return PieceStream(pieces, headers, content_type=media_type)


class AuditVerifyApi(TenantApi):
    actions = {"GET": "audit.read"}

    @extend_schema(operation_id="audit_verify", parameters=[VerifyQuery], responses=VerifyOutput)
    def get(self, request: Request, tenant: str) -> Response:
        """Walk the tenant's chain, up to 100,000 links a request; name the first broken link."""
        wanted = self.query(VerifyQuery)
        chain_id = self.actor.tenant.pk
        verdict = chain_verify(
            chain_id=chain_id, tenant_id=chain_id, after=wanted["after"], links_max=LINKS_MAX
        )
        holds = None
        if "anchor_digest" in wanted:
            holds = anchor_holds(
                chain_id=chain_id,
                sequence=wanted["anchor_sequence"],
                digest=wanted["anchor_digest"],
            )
        return Response(VerifyOutput({**_fields(verdict), "anchor_holds": holds}).data)


class AuditHeadApi(TenantApi):
    actions = {"GET": "audit.read"}

    @extend_schema(operation_id="audit_head", responses=HeadOutput)
    def get(self, request: Request, tenant: str) -> Response:
        """Get the newest link, signed; kept elsewhere, it proves that the chain stayed the same."""
        return Response(HeadOutput(anchor_make(chain_id=self.actor.tenant.pk)).data)


class InstanceAuditApi(TenantApi):
    actions = {"GET": "audit.read", "PATCH": "audit.manage"}

    @extend_schema(operation_id="instance_audit_get", responses=InstanceAuditForm)
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """Say whether reads and writes of an instance's data leave events."""
        found = instance_get(tenant=self.actor.tenant, handle=instance)
        wanted = selectors.data_events_wanted(instance_id=found.pk)
        return Response(InstanceAuditForm({"data_events": wanted}).data)

    @extend_schema(
        operation_id="instance_audit_update",
        request=InstanceAuditForm,
        responses=InstanceAuditForm,
    )
    def patch(self, request: Request, tenant: str, instance: str) -> Response:
        """Switch them on or off; the data plane follows within a second, in open sessions too."""
        found = instance_get(tenant=self.actor.tenant, handle=instance)
        wanted = switches.data_events_set(instance=found, **self.validated(InstanceAuditForm))
        return Response(InstanceAuditForm(wanted).data)


def _fields(verdict: Any) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in verdict.__slots__}

"""REST: backups, and the instances that are made of them.

GET, POST    .../instances/<handle>/backups   those of one instance; back it up now
GET, PATCH   .../instances/<handle>/backup-schedule
POST         .../instances/<handle>/clone     a new instance with what this one holds
POST         .../instances/<handle>/restore   a new instance with what it held at a moment
GET          .../instances/<handle>/restore-window
GET          .../backups                      all of the tenant's, also of purged instances
GET, PATCH, DELETE  .../backups/<id>
POST         .../backups/<id>/restore         a new instance
POST         .../backups/<id>/verify
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api.idempotency import idempotency_key, idempotent
from tenants.api.schema import IDEMPOTENT, PAGE
from tenants.api.service_api import TenantApi
from tenants.backups import schedules, selection, selectors, services
from tenants.backups.models import (
    Backup,
    BackupKind,
    BackupOrigin,
    BackupSchedule,
    BackupState,
    Cadence,
    Verification,
)
from tenants.billing.dry_run import DRY_RUN, EstimateOutput, can_dry_run
from tenants.core.errors import NotFoundError
from tenants.instances import selectors as instances
from tenants.instances.apis import NAME_PATTERN
from tenants.instances.models import BLOCKS_MAX
from tenants.operations.apis import OperationOutput, accepted

DAYS_MAX = 10_000


class BackupOutput(serializers.ModelSerializer[Backup]):
    instance = serializers.CharField(source="instance.handle")  # type: ignore[assignment]
    engine = serializers.CharField(source="instance.engine")
    kind = serializers.ChoiceField(BackupKind.choices)
    origin = serializers.ChoiceField(BackupOrigin.choices)
    state = serializers.ChoiceField(BackupState.choices)
    verification = serializers.ChoiceField(Verification.choices)
    parent = serializers.UUIDField(  # type: ignore[assignment]
        source="parent_id", allow_null=True
    )
    verification_facts = serializers.DictField(
        help_text="What was compared, or why the backup cannot be trusted."
    )

    class Meta:
        model = Backup
        fields = [
            "id", "instance", "engine", "kind", "origin", "state", "label", "parent",
            "size_bytes", "stored_bytes", "covers_from", "covers_to", "is_held", "expires_at",
            "error", "verification", "verified_at", "verification_facts", "created_at",
            "created_by", "finished_at",
        ]  # fmt: skip


class BackupFilter(serializers.Serializer[Backup]):
    instance = serializers.CharField(required=False, max_length=40)  # type: ignore[assignment]
    state = serializers.ChoiceField(BackupState.choices, required=False)
    kind = serializers.ChoiceField(BackupKind.choices, required=False)


class BackupInput(serializers.Serializer[Backup]):
    kind = serializers.ChoiceField(
        BackupKind.choices, required=False, help_text="The engine's first way if absent."
    )
    label = serializers.CharField(  # type: ignore[assignment]
        max_length=80, required=False, allow_blank=True, default=""
    )
    keep_days = serializers.IntegerField(
        min_value=1, max_value=DAYS_MAX, required=False, help_text="Absent: until it is deleted."
    )


class BackupChange(serializers.Serializer[Backup]):
    label = serializers.CharField(  # type: ignore[assignment]
        max_length=80, required=False, allow_blank=True
    )
    is_held = serializers.BooleanField(
        required=False, help_text="A held backup is deleted by nobody, retention included."
    )
    keep_days = serializers.IntegerField(
        min_value=1, max_value=DAYS_MAX, required=False, help_text="From now on."
    )


class NewInstanceInput(serializers.Serializer[Any]):
    name = serializers.RegexField(
        NAME_PATTERN, max_length=32, help_text="The handle becomes <tenant>-<name>."
    )
    plan = serializers.CharField(
        max_length=32, required=False, default="", help_text="Absent: the plan of the old one."
    )
    blocks = serializers.IntegerField(min_value=1, max_value=BLOCKS_MAX, required=False)


class RestoreAtInput(NewInstanceInput):
    time = serializers.DateTimeField(help_text="A moment in the restore window, to the second.")


class RangeOutput(serializers.Serializer[Any]):
    start = serializers.DateTimeField()
    stop = serializers.DateTimeField()


class WindowOutput(serializers.Serializer[Any]):
    ranges = RangeOutput(many=True, help_text="Every second in these can be restored.")
    gaps = RangeOutput(many=True, help_text="What lies between two ranges is lost.")
    archived_until = serializers.DateTimeField(
        allow_null=True, help_text="Up to here the log has been archived."
    )


class ScheduleOutput(serializers.ModelSerializer[BackupSchedule]):
    cadence = serializers.ChoiceField(Cadence.choices)

    class Meta:
        model = BackupSchedule
        fields = [
            "is_enabled", "cadence", "minute", "hour", "weekday", "keep_count", "keep_days",
            "archives_wal", "archived_until", "next_at", "last_at", "last_refusal",
        ]  # fmt: skip


class ScheduleChange(serializers.Serializer[BackupSchedule]):
    is_enabled = serializers.BooleanField(required=False)
    cadence = serializers.ChoiceField(Cadence.choices, required=False)
    minute = serializers.IntegerField(min_value=0, max_value=59, required=False)
    hour = serializers.IntegerField(min_value=0, max_value=23, required=False, help_text="UTC.")
    weekday = serializers.IntegerField(
        min_value=0, max_value=6, required=False, help_text="Monday is 0."
    )
    keep_count = serializers.IntegerField(min_value=1, max_value=DAYS_MAX, required=False)
    keep_days = serializers.IntegerField(min_value=1, max_value=DAYS_MAX, required=False)
    archives_wal = serializers.BooleanField(
        required=False, help_text="relational: archive the log, to restore to any second."
    )


class BackupListApi(TenantApi):
    actions = {"GET": "backups.read"}
    is_narrowed = True

    @extend_schema(
        operation_id="backup_list",
        parameters=[BackupFilter, *PAGE],
        responses=BackupOutput(many=True),
    )
    def get(self, request: Request, tenant: str) -> Response:
        """List the backups that you may see; those of purged instances are kept as they were to."""
        wanted = self.query(BackupFilter)
        rows = selectors.backup_list(tenant=self.actor.tenant)
        if not self.actor.may("backups.read"):
            seen = instances.instances_ever_allowed(actor=self.actor, action="backups.read")
            rows = rows.filter(instance__in=seen.values("pk"))
        if "instance" in wanted:
            rows = rows.filter(instance__handle=wanted["instance"])
        rows = rows.filter(**{key: wanted[key] for key in ("state", "kind") if key in wanted})
        return self.page(rows, BackupOutput)


class InstanceBackupListApi(TenantApi):
    actions = {"GET": "backups.read", "POST": "backups.create"}

    @extend_schema(
        operation_id="instance_backup_list", parameters=PAGE, responses=BackupOutput(many=True)
    )
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """List the backups of one instance."""
        found = instances.instance_get(tenant=self.actor.tenant, handle=instance)
        rows = selectors.backup_list(tenant=self.actor.tenant).filter(instance=found)
        return self.page(rows, BackupOutput)

    @extend_schema(
        operation_id="backup_create",
        request=BackupInput,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
        examples=[
            OpenApiExample(
                "Before a migration", {"label": "before 4.2", "keep_days": 7}, request_only=True
            )
        ],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Back an instance up now; clients are served meanwhile."""
        found = instances.instance_get(tenant=self.actor.tenant, handle=instance)
        operation = services.backup_create(
            instance=found,
            actor=self.actor.name,
            idempotency_key=idempotency_key(request),
            **self.validated(BackupInput),
        )
        return accepted(operation)


class InstanceCloneApi(TenantApi):
    actions = {"POST": "backups.restore"}

    @extend_schema(
        operation_id="instance_clone",
        request=NewInstanceInput,
        responses={200: EstimateOutput, 202: OperationOutput},
        parameters=[IDEMPOTENT, DRY_RUN],
        examples=[OpenApiExample("A copy to try on", {"name": "staging"}, request_only=True)],
    )
    @can_dry_run
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Make a new instance with what this one holds now.

        Plan, blocks and allowlist are those of this one if nothing is said; credentials are not.
        """
        # A right on this instance alone is none to make others.
        self.actor.demand("instances.create")
        found = instances.instance_get(tenant=self.actor.tenant, handle=instance)
        operation = services.instance_clone(
            instance=found,
            actor=self.actor.name,
            idempotency_key=idempotency_key(request),
            **self.validated(NewInstanceInput),
        )
        return accepted(operation)


class InstanceRestoreApi(TenantApi):
    actions = {"POST": "backups.restore"}

    @extend_schema(
        operation_id="instance_restore",
        request=RestoreAtInput,
        responses={200: EstimateOutput, 202: OperationOutput},
        parameters=[IDEMPOTENT, DRY_RUN],
        examples=[
            OpenApiExample(
                "Before the mistake",
                {"name": "before", "time": "2026-11-25T10:41:07Z"},
                request_only=True,
            )
        ],
    )
    @can_dry_run
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Make a new instance with what this one held at a moment of its restore window."""
        found = instances.instance_get(tenant=self.actor.tenant, handle=instance)
        operation = services.instance_restore_at(
            instance=found,
            actor=self.actor.name,
            idempotency_key=idempotency_key(request),
            **self.validated(RestoreAtInput),
        )
        return accepted(operation)


class RestoreWindowApi(TenantApi):
    actions = {"GET": "backups.read"}

    @extend_schema(operation_id="restore_window_get", responses=WindowOutput)
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """Get the moments to which an instance can be restored, and what is missing between."""
        found = instances.instance_get(tenant=self.actor.tenant, handle=instance)
        window = selection.window_of(instance=found)
        schedule = selectors.schedule_find(instance=found)
        archived_until = schedule.archived_until if schedule else None
        body = {
            "ranges": window.ranges,
            "gaps": window.gaps,
            "archived_until": archived_until,
        }
        return Response(WindowOutput(body).data)


class BackupDetailApi(TenantApi):
    actions = {"GET": "backups.read", "PATCH": "backups.manage", "DELETE": "backups.manage"}

    @extend_schema(operation_id="backup_get", responses=BackupOutput)
    def get(self, request: Request, tenant: str, backup_id: UUID) -> Response:
        """Get one backup."""
        return Response(BackupOutput(_backup(self, backup_id)).data)

    @extend_schema(operation_id="backup_change", request=BackupChange, responses=BackupOutput)
    def patch(self, request: Request, tenant: str, backup_id: UUID) -> Response:
        """Rename a backup, hold or release it, or keep it longer or shorter."""
        found = _backup(self, backup_id)
        changed = services.backup_change(backup=found, **self.validated(BackupChange))
        return Response(BackupOutput(changed).data)

    @extend_schema(operation_id="backup_delete", responses={204: None})
    def delete(self, request: Request, tenant: str, backup_id: UUID) -> Response:
        """Delete a backup for good; refused while it is held, in use, or others build on it."""
        services.backup_delete(backup=_backup(self, backup_id))
        return Response(status=204)


class BackupRestoreApi(TenantApi):
    actions = {"POST": "backups.restore"}

    @extend_schema(
        operation_id="backup_restore",
        request=NewInstanceInput,
        responses={200: EstimateOutput, 202: OperationOutput},
        parameters=[IDEMPOTENT, DRY_RUN],
        examples=[OpenApiExample("Beside the old one", {"name": "restored"}, request_only=True)],
    )
    @can_dry_run
    @idempotent
    def post(self, request: Request, tenant: str, backup_id: UUID) -> Response:
        """Make a new instance with what the backup holds; no instance is ever overwritten."""
        # Rights on the backup's instance make no other one.
        self.actor.demand("instances.create")
        operation = services.backup_restore(
            backup=_backup(self, backup_id),
            actor=self.actor.name,
            idempotency_key=idempotency_key(request),
            **self.validated(NewInstanceInput),
        )
        return accepted(operation)


class BackupVerifyApi(TenantApi):
    actions = {"POST": "backups.create"}

    @extend_schema(
        operation_id="backup_verify",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, backup_id: UUID) -> Response:
        """Load the backup into a scratch server beside its instance, and compare."""
        operation = services.backup_verify(
            backup=_backup(self, backup_id),
            actor=self.actor.name,
            idempotency_key=idempotency_key(request),
        )
        return accepted(operation)


class BackupScheduleApi(TenantApi):
    actions = {"GET": "backups.read", "PATCH": "backups.manage"}

    @extend_schema(operation_id="backup_schedule_get", responses=ScheduleOutput)
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """Get the schedule of an instance; 404 if it has none."""
        found = instances.instance_get(tenant=self.actor.tenant, handle=instance)
        schedule = selectors.schedule_find(instance=found)
        if schedule is None:
            raise NotFoundError("the instance has no backup schedule", code="no_schedule")
        return Response(ScheduleOutput(schedule).data)

    @extend_schema(
        operation_id="backup_schedule_change",
        request=ScheduleChange,
        responses=ScheduleOutput,
        examples=[
            OpenApiExample(
                "Each night", {"cadence": "daily", "hour": 2, "keep_days": 14}, request_only=True
            )
        ],
    )
    def patch(self, request: Request, tenant: str, instance: str) -> Response:
        """Make or change the schedule: what is not said stays, or is the plan's default."""
        found = instances.instance_get(tenant=self.actor.tenant, handle=instance)
        schedule = schedules.schedule_change(instance=found, **self.validated(ScheduleChange))
        return Response(ScheduleOutput(schedule).data)


def _backup(api: TenantApi, backup_id: UUID) -> Backup:
    return selectors.backup_get(tenant=api.actor.tenant, backup_id=backup_id)

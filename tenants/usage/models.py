"""Plan (a version of limits); UsageHour and UsageMinute (what was used), PlanTerm (who had which
plan when), UsageShare and LateMonth (what invoices must know of hours), UsageClaim (which deltas
were counted).
"""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from tenants.core.models import BaseModel


class Plan(BaseModel):
    """One version of a plan. An instance keeps its version; new ones get the current one.

    Units are per second and per request class, and times the instance's blocks if `has_blocks`.
    None is unmetered (units, storage), left to weftkit.toml (memory, eviction), or never
    (hibernation: after how many seconds without clients a relayed engine's server is stopped).

    Storage may stand over `storage_bytes` for `storage_grace_s` seconds and by up to
    `storage_grace_percent` of it; after that, or above that, what grows data is refused.
    """

    name = models.CharField(max_length=32)
    version = models.PositiveIntegerField()
    title = models.CharField(max_length=80)
    is_current = models.BooleanField(default=True)
    has_blocks = models.BooleanField(default=False)
    has_own_server = models.BooleanField(default=False)
    read_units = models.PositiveIntegerField(null=True, blank=True)
    write_units = models.PositiveIntegerField(null=True, blank=True)
    query_units = models.PositiveIntegerField(null=True, blank=True)
    storage_bytes = models.BigIntegerField(null=True, blank=True)
    storage_grace_s = models.PositiveIntegerField(default=0)
    storage_grace_percent = models.PositiveSmallIntegerField(default=0)
    memory_bytes = models.BigIntegerField(null=True, blank=True)
    connections = models.PositiveIntegerField()
    statement_timeout_ms = models.PositiveIntegerField(default=0)
    eviction_policy = models.CharField(max_length=16, blank=True)
    hibernate_after_s = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name", "version"], name="plan_version_is_unique"),
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(is_current=True), name="plan_current_is_one"
            ),
            models.CheckConstraint(
                condition=models.Q(eviction_policy__in=["", "noeviction", "lru", "lfu"]),
                name="plan_eviction_is_known",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class UsageHour(models.Model):
    """What one instance used in one hour (UTC).

    No foreign key: usage outlives the instance, and a delta is never refused for its id. The gauges
    (storage, memory, backups) are bytes held in that hour, the first sample of it; None: no sample.
    """

    id = models.BigAutoField(primary_key=True)
    instance_id = models.UUIDField()
    hour = models.DateTimeField()
    read_units = models.BigIntegerField(default=0)
    write_units = models.BigIntegerField(default=0)
    query_units = models.BigIntegerField(default=0)
    unlimited_units = models.BigIntegerField(default=0)
    refused_units = models.BigIntegerField(default=0)
    bytes_in = models.BigIntegerField(default=0)
    bytes_out = models.BigIntegerField(default=0)
    storage_bytes = models.BigIntegerField(null=True)
    memory_bytes = models.BigIntegerField(null=True)
    backup_bytes = models.BigIntegerField(null=True)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["instance_id", "hour"], name="usage_hour_is_unique")
        ]


class UsageShare(models.Model):
    """What of an hour was used in a plan that began within it; the rest is the plan's before.

    Hours without a change of plan have none.
    """

    id = models.BigAutoField(primary_key=True)
    instance_id = models.UUIDField()
    hour = models.DateTimeField()
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="+")
    read_units = models.BigIntegerField(default=0)
    write_units = models.BigIntegerField(default=0)
    query_units = models.BigIntegerField(default=0)
    bytes_out = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["instance_id", "hour", "plan"], name="usage_share_is_unique"
            )
        ]


class LateMonth(models.Model):
    """A month of an instance for which usage came in after its end, however long after."""

    id = models.BigAutoField(primary_key=True)
    instance_id = models.UUIDField()
    month = models.DateTimeField()
    seen_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["instance_id", "month"], name="late_month_is_unique")
        ]


class UsageMinute(models.Model):
    """The same counts by the minute, for charts; kept for `services.MINUTES_RETENTION`."""

    id = models.BigAutoField(primary_key=True)
    instance_id = models.UUIDField()
    minute = models.DateTimeField(db_index=True)
    read_units = models.BigIntegerField(default=0)
    write_units = models.BigIntegerField(default=0)
    query_units = models.BigIntegerField(default=0)
    unlimited_units = models.BigIntegerField(default=0)
    refused_units = models.BigIntegerField(default=0)
    bytes_in = models.BigIntegerField(default=0)
    bytes_out = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["instance_id", "minute"], name="usage_minute_is_unique")
        ]


class PlanTerm(models.Model):
    """From when until when an instance was in service with a plan and so many blocks.

    Whole seconds, so that adjoining terms add up exactly. The open term has no end.
    """

    id = models.BigAutoField(primary_key=True)
    tenant_id = models.UUIDField()
    instance_id = models.UUIDField()
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="+")
    blocks = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["instance_id"],
                condition=models.Q(ended_at__isnull=True),
                name="plan_term_open_is_one",
            ),
            models.CheckConstraint(
                condition=models.Q(ended_at__isnull=True)
                | models.Q(ended_at__gte=models.F("started_at")),
                name="plan_term_ends_after_its_start",
            ),
        ]
        indexes = [
            models.Index(fields=["instance_id", "started_at"], name="plan_term_by_instance"),
            models.Index(fields=["tenant_id", "started_at"], name="plan_term_by_tenant"),
        ]


class UsageClaim(models.Model):
    """A delta's idempotency key, claimed in the transaction that counted the delta.

    Data planes may hand a delta in again after its row was rolled up and deleted.
    """

    idempotency_key = models.TextField(primary_key=True)
    claimed_at = models.DateTimeField(default=timezone.now, db_index=True)

"""Plan (a version of limits), UsageHour (what was used), UsageClaim (which deltas were counted)."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from tenants.core.models import BaseModel


class Plan(BaseModel):
    """One version of a plan. An instance keeps its version; new ones get the current one.

    Units are per second and per request class, and times the instance's blocks if `has_blocks`.
    None is unmetered (units, storage), left to weftkit.toml (memory, eviction), or never
    (hibernation: after how many seconds without clients a relayed engine's server is stopped).
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

    No foreign key: usage outlives the instance, and a delta is never refused for its id.
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
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["instance_id", "hour"], name="usage_hour_is_unique")
        ]


class UsageClaim(models.Model):
    """A delta's idempotency key, claimed in the transaction that counted the delta.

    Data planes may hand a delta in again after its row was rolled up and deleted.
    """

    idempotency_key = models.TextField(primary_key=True)
    claimed_at = models.DateTimeField(default=timezone.now, db_index=True)

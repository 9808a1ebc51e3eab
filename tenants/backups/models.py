"""Backup, StoredFile (an encrypted file in the vault), StagedFile, BackupSchedule, WalSegment.

Rows come before their bytes and go after them, so that no bytes are without a row.
"""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.core.models import BaseModel
from tenants.instances.models import Instance


class BackupKind(models.TextChoices):
    FULL = "full"  # a physical copy
    INCREMENTAL = "incremental"  # what changed since its parent
    RDB = "rdb"
    DUMP = "dump"  # logical: statements, or an archive of them


class BackupOrigin(models.TextChoices):
    MANUAL = "manual"
    SCHEDULED = "scheduled"
    CLONE = "clone"  # for one clone only; it goes when that has ended


class BackupState(models.TextChoices):
    WRITING = "writing"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"  # out of sight; its bytes are being removed


class Verification(models.TextChoices):
    NONE = "none"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"


class Backup(BaseModel):
    """The data of an instance at one moment, or (full, incremental) a start for its WAL.

    `facts` is what the host said of it. An incremental one is nothing without its `parent`. Rows
    outlive their instance: the tenant can restore from them as long as their retention lasts.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="backups")
    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="backups")
    kind = models.CharField(max_length=16, choices=BackupKind.choices)
    origin = models.CharField(max_length=16, choices=BackupOrigin.choices)
    state = models.CharField(
        max_length=16, choices=BackupState.choices, default=BackupState.WRITING
    )
    label = models.CharField(max_length=80, blank=True)
    parent = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="children"
    )
    size_bytes = models.BigIntegerField(default=0)  # before encryption
    stored_bytes = models.BigIntegerField(default=0)  # in the vault
    covers_from = models.DateTimeField(null=True, blank=True)
    covers_to = models.DateTimeField(null=True, blank=True)
    facts = models.JSONField(default=dict)
    is_held = models.BooleanField(default=False)  # neither retention nor anybody deletes it
    expires_at = models.DateTimeField(null=True, blank=True)  # None: kept until deleted
    finished_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=500, blank=True)
    verification = models.CharField(
        max_length=8, choices=Verification.choices, default=Verification.NONE
    )
    verified_at = models.DateTimeField(null=True, blank=True)
    verification_facts = models.JSONField(default=dict)
    created_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=BackupState.values), name="backup_state_is_known"
            ),
            models.CheckConstraint(
                condition=models.Q(kind__in=BackupKind.values), name="backup_kind_is_known"
            ),
            models.CheckConstraint(
                condition=models.Q(kind="incremental", parent__isnull=False)
                | (~models.Q(kind="incremental") & models.Q(parent__isnull=True)),
                name="backup_incremental_has_its_parent",
            ),
            models.CheckConstraint(
                condition=models.Q(verification__in=Verification.values),
                name="backup_verification_is_known",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "state"], name="backup_by_tenant"),
            models.Index(fields=["instance", "state"], name="backup_by_instance"),
            models.Index(fields=["state", "expires_at"], name="backup_by_end"),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class StoredFile(BaseModel):
    """One encrypted file in the vault: a part of a backup, or a WAL segment.

    Each attempt to write it has a new name and a new data key, so that what an earlier one left
    can neither be mixed in nor be read. `depot_name` is where the host put it, or finds it.
    """

    backup = models.ForeignKey(
        Backup, on_delete=models.CASCADE, null=True, blank=True, related_name="files"
    )
    role = models.CharField(max_length=16)  # data | manifest | wal
    depot_name = models.CharField(max_length=64, blank=True)
    storage_name = models.CharField(max_length=80, unique=True)
    key_id = models.PositiveIntegerField()  # of the master key that wraps the data key
    wrapped_key = models.BinaryField(max_length=80)
    chunk_bytes = models.PositiveIntegerField()
    size_bytes = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    shipped_bytes = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["backup", "role"], name="stored_file_role_is_one"),
            models.CheckConstraint(
                condition=models.Q(shipped_bytes__lte=models.F("size_bytes")),
                name="stored_file_is_not_longer_than_announced",
            ),
        ]
        indexes = [models.Index(fields=["key_id"], name="stored_file_by_key")]


class StagedFile(BaseModel):
    """A stored file that an operation has in the depot, for its host; it keeps the stored one."""

    operation_id = models.UUIDField(db_index=True)
    index = models.PositiveIntegerField()
    file = models.ForeignKey(StoredFile, on_delete=models.PROTECT, related_name="staged")
    depot_name = models.CharField(max_length=64, unique=True)

    class Meta:
        ordering = ["index"]
        constraints = [
            models.UniqueConstraint(
                fields=["operation_id", "index"], name="staged_file_index_is_unique"
            )
        ]


class Cadence(models.TextChoices):
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"


class BackupSchedule(BaseModel):
    """When an instance is backed up by itself, in UTC, and how long those backups are kept."""

    instance = models.OneToOneField(
        Instance, on_delete=models.CASCADE, related_name="backup_schedule"
    )
    is_enabled = models.BooleanField(default=True)
    cadence = models.CharField(max_length=8, choices=Cadence.choices)
    minute = models.PositiveSmallIntegerField(default=0)
    hour = models.PositiveSmallIntegerField(default=3)  # daily, weekly
    weekday = models.PositiveSmallIntegerField(default=6)  # weekly; Monday is 0
    keep_count = models.PositiveIntegerField()
    keep_days = models.PositiveIntegerField()
    archives_wal = models.BooleanField(default=False)  # restores to any second in between
    next_at = models.DateTimeField(db_index=True)
    # The archive of the log: the host's task that ships it now, and up to when it is whole.
    wal_task_id = models.UUIDField(null=True, blank=True)
    wal_next_at = models.DateTimeField(default=timezone.now, db_index=True)
    wal_busy_until = models.DateTimeField(null=True, blank=True)
    archived_until = models.DateTimeField(null=True, blank=True)
    last_at = models.DateTimeField(null=True, blank=True)
    last_refusal = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(cadence__in=Cadence.values), name="schedule_cadence_is_known"
            ),
            models.CheckConstraint(
                condition=models.Q(minute__lt=60, hour__lt=24, weekday__lt=7),
                name="schedule_time_is_one",
            ),
        ]


class WalSegment(BaseModel):
    """One closed WAL segment of an instance, in the vault once `is_stored`.

    `name` is PostgreSQL's: timeline and position, so that names sort as the log goes on.
    """

    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="wal_segments")
    name = models.CharField(max_length=40)
    file = models.OneToOneField(StoredFile, on_delete=models.PROTECT, related_name="wal_segment")
    closed_at = models.DateTimeField(null=True, blank=True)  # what was committed before is in it
    is_stored = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["instance", "name"], name="wal_segment_name_is_unique")
        ]

"""Instance, Credential with its up to two live secrets, and DataFile."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from engines.kit.records import Desired
from tenants.accounts.models import Tenant, validate_handle
from tenants.core.models import BaseModel
from tenants.usage.models import Plan

BLOCKS_MAX = 100
SECRETS_MAX = 2


class InstanceStatus(models.TextChoices):
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    PURGING = "purging"
    PURGED = "purged"


class CredentialRole(models.TextChoices):
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class AuthMethod(models.TextChoices):
    PASSWORD = "password"
    JWT = "jwt"
    MTLS = "mtls"


class Instance(BaseModel):
    """One database of one engine. Purged ones stay as rows, for usage; their handle is free.

    `desired` and `generation` are what the instance host shall make true
    (`engines/kit/records.py`).
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="instances")
    handle = models.CharField(max_length=40, validators=[validate_handle])
    engine = models.CharField(max_length=32)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="instances")
    blocks = models.PositiveIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(BLOCKS_MAX)]
    )
    region = models.CharField(max_length=40)
    host = models.CharField(max_length=80)
    cell = models.CharField(max_length=40, blank=True)  # of a schema engine's instance
    status = models.CharField(
        max_length=16, choices=InstanceStatus.choices, default=InstanceStatus.PROVISIONING
    )
    status_detail = models.CharField(max_length=500, blank=True)
    desired = models.CharField(max_length=16, default=Desired.RUNNING.value)
    generation = models.BigIntegerField(default=1)
    sleep_generation = models.BigIntegerField(default=0)  # at this one the server may sleep at once
    is_default = models.BooleanField(default=False)
    auth_method = models.CharField(
        max_length=16, choices=AuthMethod.choices, default=AuthMethod.PASSWORD
    )
    allowlist = ArrayField(models.CharField(max_length=43), default=list, blank=True)
    deletion_protected = models.BooleanField(default=True)
    tags = models.JSONField(default=dict, blank=True)
    quarantined_at = models.DateTimeField(null=True, blank=True)
    purge_after = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=300)

    # No column: what the host last said of its server, in the queries of `selectors`.
    server_state: str

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["handle"],
                condition=~models.Q(status="purged"),
                name="instance_handle_is_unique",
            ),
            models.UniqueConstraint(
                fields=["engine"],
                condition=models.Q(is_default=True) & ~models.Q(status="purged"),
                name="instance_default_is_one_per_engine",
            ),
            models.CheckConstraint(
                condition=models.Q(status__in=InstanceStatus.values),
                name="instance_status_is_known",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    status__in=["quarantined", "purging", "purged"], quarantined_at__isnull=False
                )
                | (
                    ~models.Q(status__in=["quarantined", "purging", "purged"])
                    & models.Q(quarantined_at__isnull=True, purge_after__isnull=True)
                ),
                name="instance_quarantine_has_its_time",
            ),
            models.CheckConstraint(
                condition=models.Q(desired__in=[desired.value for desired in Desired]),
                name="instance_desired_is_known",
            ),
            models.CheckConstraint(
                condition=models.Q(blocks__gte=1, blocks__lte=BLOCKS_MAX),
                name="instance_blocks_are_bounded",
            ),
        ]
        indexes = [models.Index(fields=["tenant", "status"], name="instance_by_tenant")]

    def __str__(self) -> str:
        return self.handle


class Credential(BaseModel):
    """A user name with a role in one instance; `wk_<key id>`, or as weftkit.toml says."""

    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="credentials")
    key_id = models.CharField(max_length=16, unique=True)
    username = models.CharField(max_length=63)
    label = models.CharField(max_length=80, blank=True)
    role = models.CharField(max_length=8, choices=CredentialRole.choices)
    is_enabled = models.BooleanField(default=True)
    is_configured = models.BooleanField(default=False)  # written in weftkit.toml, follows it
    expires_at = models.DateTimeField(null=True, blank=True)
    cidrs = ArrayField(models.CharField(max_length=43), default=list, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=300)
    # How many secrets were derived for it; none is issued twice.
    access_version = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["instance", "username"], name="credential_username_is_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(role__in=CredentialRole.values),
                name="credential_role_is_known",
            ),
            models.CheckConstraint(
                condition=models.Q(revoked_at__isnull=True) | models.Q(is_enabled=False),
                name="credential_revoked_is_disabled",
            ),
        ]

    def __str__(self) -> str:
        return self.username


class CredentialSecret(BaseModel):
    """One live secret of a credential: a digest and a SCRAM verifier, never the secret.

    `slot` makes "at most two" a promise of the database: one current, one that is fading out.
    """

    credential = models.ForeignKey(Credential, on_delete=models.CASCADE, related_name="secrets")
    slot = models.PositiveSmallIntegerField()
    pepper_id = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)
    scram_salt = models.CharField(max_length=64)
    scram_iterations = models.PositiveIntegerField()
    scram_stored_key = models.CharField(max_length=64)
    scram_server_key = models.CharField(max_length=64)
    expires_at = models.DateTimeField(null=True, blank=True)
    issued_at = models.DateTimeField(default=timezone.now)
    # Of a secret that is derived from the master key: which one; 0 for one that is not.
    access_version = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["credential", "slot"], name="secret_slot_is_unique"),
            models.CheckConstraint(
                condition=models.Q(slot__lt=SECRETS_MAX), name="secret_slots_are_two"
            ),
        ]


class FileOrigin(models.TextChoices):
    EXPORT = "export"
    UPLOAD = "upload"


class FileState(models.TextChoices):
    WRITING = "writing"  # an export that its operation has not finished
    RECEIVING = "receiving"  # an upload of which parts are missing
    READY = "ready"


class DataFile(BaseModel):
    """A file with an instance's data: exported from it, or uploaded to be imported.

    `storage_name` is unguessable and never shown. A row goes after its file, some time after
    `expires_at`; from then on it is not found any more.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="files")
    origin = models.CharField(max_length=8, choices=FileOrigin.choices)
    state = models.CharField(max_length=16, choices=FileState.choices)
    storage_name = models.CharField(max_length=64, unique=True)
    size_bytes = models.BigIntegerField(default=0)
    received_bytes = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    expires_at = models.DateTimeField(db_index=True)
    created_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=FileState.values), name="file_state_is_known"
            ),
            models.CheckConstraint(
                condition=models.Q(received_bytes__lte=models.F("size_bytes")),
                name="file_is_not_longer_than_announced",
            ),
        ]
        indexes = [models.Index(fields=["instance", "expires_at"], name="file_by_instance")]

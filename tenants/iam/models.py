"""Service ids, API keys with up to two live secrets, policies, and what tokens are signed with.

Of a secret or a refresh token only a digest is kept; a signing key's private half is encrypted.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from tenants.accounts.models import MemberRole, Membership, Tenant
from tenants.core.models import BaseModel

SECRETS_MAX = 2


class ServiceId(BaseModel):
    """What a program is in a tenant: it has keys, policies and credentials, and no password.

    Deleted ones stay as rows, for who reads old events; nothing of theirs works any more.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="service_ids")
    name = models.CharField(max_length=80)
    description = models.CharField(max_length=300, blank=True)
    is_enabled = models.BooleanField(default=True)
    deleted_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=300)

    def __str__(self) -> str:
        return self.iam_id

    @property
    def iam_id(self) -> str:
        """The name in tokens and events, in IBM's form."""
        return f"iam-ServiceId-{self.pk}"


class ApiKey(BaseModel):
    """A key of a service id, of a member, or of the tenant itself: then it has a role of its own.

    A service id's key may do what the policies of that say, a member's key what the member may.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="api_keys")
    service = models.ForeignKey(
        ServiceId, on_delete=models.CASCADE, related_name="api_keys", null=True, blank=True
    )
    membership = models.ForeignKey(
        Membership, on_delete=models.CASCADE, related_name="api_keys", null=True, blank=True
    )
    name = models.CharField(max_length=80)
    key_id = models.CharField(max_length=16, unique=True)
    role = models.CharField(max_length=16, choices=MemberRole.choices, blank=True)
    environment = models.CharField(max_length=32, blank=True)
    is_enabled = models.BooleanField(default=True)
    cidrs = ArrayField(models.CharField(max_length=43), default=list, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(role__in=[*MemberRole.values, ""]), name="api_key_role_is_known"
            ),
            models.CheckConstraint(
                condition=models.Q(service=None, membership=None)
                | models.Q(service=None, role="")
                | models.Q(membership=None, role=""),
                name="api_key_has_one_owner",
            ),
        ]

    # No column: whether a request showed an access token that the key was exchanged for.
    is_by_token = False

    def __str__(self) -> str:
        return f"wk_{self.key_id}"

    @property
    def credential_type(self) -> str:
        """What a request showed, in CADF's words."""
        if self.is_by_token:
            return "token"
        return "apikey" if self.service_id is None else "apikey-serviceid"

    @property
    def state(self) -> str:
        """`active` if the key itself opens now (its owner is another question), or why not."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= timezone.now():
            return "expired"
        return "active" if self.is_enabled else "disabled"


class ApiKeySecret(BaseModel):
    """One live secret of a key; `slot` makes "at most two" a promise of the database."""

    api_key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="secrets")
    slot = models.PositiveSmallIntegerField()
    pepper_id = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)
    expires_at = models.DateTimeField(null=True, blank=True)
    issued_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["api_key", "slot"], name="api_key_secret_slot_is_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(slot__lt=SECRETS_MAX), name="api_key_secret_slots_are_two"
            ),
        ]


class AccessPolicy(BaseModel):
    """Roles and actions that one subject has in one scope (`engines/kit/iam`).

    `scope` is {attribute: {"operator", "value"}}; an absent attribute means all.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="policies")
    service = models.ForeignKey(
        ServiceId, on_delete=models.CASCADE, related_name="policies", null=True, blank=True
    )
    membership = models.ForeignKey(
        Membership, on_delete=models.CASCADE, related_name="policies", null=True, blank=True
    )
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.CASCADE, related_name="policies", null=True, blank=True
    )
    description = models.CharField(max_length=300, blank=True)
    roles = ArrayField(models.CharField(max_length=32), default=list, blank=True)
    actions = ArrayField(models.CharField(max_length=80), default=list, blank=True)
    scope = models.JSONField(default=dict, blank=True)
    created_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    service__isnull=False, membership__isnull=True, api_key__isnull=True
                )
                | models.Q(service__isnull=True, membership__isnull=False, api_key__isnull=True)
                | models.Q(service__isnull=True, membership__isnull=True, api_key__isnull=False),
                name="policy_has_one_subject",
            ),
        ]


class CredentialOwner(models.Model):
    """Whose credential it is: its role in the instance follows the service id's policies."""

    credential = models.OneToOneField(
        "instances.Credential",
        on_delete=models.CASCADE,
        related_name="ownership",
        primary_key=True,
    )
    service = models.ForeignKey(
        ServiceId, on_delete=models.CASCADE, related_name="credential_owners"
    )


class SigningKey(BaseModel):
    """An RSA key for tokens: it signs from `signs_from` until the next one does.

    Its public half is shown from the start, and until `forget_after` once another one signs.
    """

    kid = models.CharField(max_length=40, unique=True)
    public_pem = models.TextField()
    private_sealed = models.TextField()
    signs_from = models.DateTimeField()
    forget_after = models.DateTimeField(null=True, blank=True)


class RefreshToken(BaseModel):
    """A refresh token of one exchange; each use spends it and makes the next of its family."""

    secret = models.ForeignKey(
        ApiKeySecret, on_delete=models.CASCADE, related_name="refresh_tokens"
    )
    digest = models.CharField(max_length=64, unique=True)
    pepper_id = models.PositiveIntegerField()
    family = models.UUIDField()
    family_expires_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    spent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["family"], name="refresh_token_by_family")]

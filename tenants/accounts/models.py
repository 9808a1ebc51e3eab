"""Tenant, user, the membership that joins them with a role, and invitations to become one."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.core.validators import RegexValidator
from django.db import models, transaction
from django.db.models.functions import Lower
from django.utils import timezone

from tenants.core.models import BaseModel

HANDLE_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{1,38})[a-z0-9]$"
validate_handle = RegexValidator(
    HANDLE_PATTERN, "3 to 40 lower-case letters, digits and hyphens, no hyphen at either end."
)
# The first hyphen of an instance's handle ends its tenant's: else tenant `a` with `b-c` and tenant
# `a-b` with `c` would want the same name, and learn of each other.
validate_tenant_handle = RegexValidator(
    r"^[a-z0-9]{3,30}$", "3 to 30 lower-case letters and digits."
)


class MemberRole(models.TextChoices):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    BILLING = "billing"
    AUDITOR = "auditor"
    READ_ONLY = "read-only"


class Tenant(BaseModel):
    """An organisation. Its handle is in addresses and in the names of its instances."""

    handle = models.CharField(max_length=40, unique=True, validators=[validate_tenant_handle])
    name = models.CharField(max_length=120)
    requires_second_factor = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.handle


class UserManager(BaseUserManager["User"]):
    """Makes users; an e-mail address is stored in lower case."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.full_clean(exclude=["password"])
        with transaction.atomic():
            user.save(using=self._db)
            # Made by an operator or from an invitation's link: the address is known to be theirs.
            EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email=(username or "").strip().lower())


class User(AbstractBaseUser, BaseModel):
    """A person who signs in with an e-mail address."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_active = models.BooleanField(default=True)

    objects = UserManager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = []

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(email=Lower("email")), name="user_email_is_lower_case"
            )
        ]


class SignInCount(models.Model):
    """How often somebody tried to sign in, by what `key` is a digest of, until `ends_at`."""

    key = models.CharField(max_length=64, primary_key=True)
    attempts = models.PositiveIntegerField()
    ends_at = models.DateTimeField(db_index=True)


class Membership(BaseModel):
    """What a user is in a tenant."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=MemberRole.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="membership_is_unique"),
            models.CheckConstraint(
                condition=models.Q(role__in=MemberRole.values), name="membership_role_is_known"
            ),
        ]


class Invitation(BaseModel):
    """An invitation of an e-mail address into a tenant with a role; open until one of its ends.

    No token is kept: `invitations.py` derives it from the id and `serial`, which a resend moves on.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField()
    role = models.CharField(max_length=16, choices=MemberRole.choices)
    serial = models.PositiveIntegerField(default=1)
    invited_by = models.CharField(max_length=300)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    mailed_at = models.DateTimeField(null=True, blank=True)
    mail_after = models.DateTimeField(default=timezone.now)
    mail_attempts = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "email"],
                condition=models.Q(accepted_at=None, revoked_at=None),
                name="invitation_is_open_once",
            ),
            models.CheckConstraint(
                condition=models.Q(email=Lower("email")), name="invitation_email_is_lower_case"
            ),
        ]

    @property
    def state(self) -> str:
        """One of: accepted, revoked, expired, open."""
        if self.accepted_at is not None:
            return "accepted"
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= timezone.now() else "open"

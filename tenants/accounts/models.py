"""Tenant, user, and the membership that joins them with a role."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower

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

    def __str__(self) -> str:
        return self.handle


class UserManager(BaseUserManager["User"]):
    """Makes users; an e-mail address is stored in lower case."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.full_clean(exclude=["password"])
        user.save(using=self._db)
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

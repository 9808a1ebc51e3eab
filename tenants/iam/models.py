"""ApiKey: what a script signs in to the REST API with."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models

from tenants.accounts.models import MemberRole, Tenant
from tenants.core.models import BaseModel


class ApiKey(BaseModel):
    """A key of one tenant with a role. The key itself is shown once; here is only its digest."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=80)
    key_id = models.CharField(max_length=16, unique=True)
    pepper_id = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)
    role = models.CharField(max_length=16, choices=MemberRole.choices)
    cidrs = ArrayField(models.CharField(max_length=43), default=list, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(role__in=MemberRole.values), name="api_key_role_is_known"
            )
        ]

    def __str__(self) -> str:
        return f"wk_{self.key_id}"

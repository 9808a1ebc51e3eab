"""IdempotencyKey: the answer to a request that creates, kept so that a repetition gets it again."""

from __future__ import annotations

from django.db import models

from tenants.accounts.models import Tenant
from tenants.core.models import BaseModel


class IdempotencyKey(BaseModel):
    """Claimed in the transaction of the change itself. Secrets in the answer are not kept."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", null=True)
    # Whose it is, `user:<id>` or `key:<id>`, where it is no tenant's.
    caller = models.CharField(max_length=80, blank=True, default="")
    key = models.CharField(max_length=128)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(default=0)
    body = models.JSONField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "key"], name="idempotency_key_is_unique"),
            models.UniqueConstraint(
                fields=["caller", "key"],
                condition=models.Q(tenant=None),
                name="idempotency_key_of_caller_is_unique",
            ),
            models.CheckConstraint(
                condition=models.Q(tenant=None) ^ models.Q(caller=""),
                name="idempotency_key_has_one_owner",
            ),
        ]

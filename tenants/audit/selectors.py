"""Reads: the events of a tenant."""

from __future__ import annotations

from django.db.models import QuerySet

from tenants.accounts.models import Tenant
from tenants.audit.models import AuditEvent


def audit_list(*, tenant: Tenant) -> QuerySet[AuditEvent]:
    """Return what was done, or tried, in `tenant` through the control plane."""
    return AuditEvent.objects.filter(tenant_id=tenant.pk)

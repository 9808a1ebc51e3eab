"""Reads: the operations of a tenant."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from tenants.accounts.models import Tenant
from tenants.core.errors import NotFoundError
from tenants.operations.models import Operation


def operation_list(*, tenant: Tenant) -> QuerySet[Operation]:
    """Return the operations of `tenant` with their steps."""
    return (
        Operation.objects.filter(tenant=tenant).select_related("instance").prefetch_related("steps")
    )


def operation_get(*, tenant: Tenant, operation_id: UUID) -> Operation:
    """Return one operation of `tenant`."""
    found = operation_list(tenant=tenant).filter(pk=operation_id).first()
    if found is None:
        raise NotFoundError("there is no such operation")
    return found

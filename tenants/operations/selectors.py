"""Reads: the operations of a tenant."""

from __future__ import annotations

from uuid import UUID

from django.db.models import BigIntegerField, QuerySet
from django.db.models.expressions import RawSQL

from tenants.accounts.models import Tenant
from tenants.core.errors import NotFoundError
from tenants.operations.models import Operation

# A task of the instance host has the id of the operation that it belongs to.
OF_TASK = "(SELECT {} FROM publish.task WHERE task_id = operations_operation.id)"


def operation_list(*, tenant: Tenant) -> QuerySet[Operation]:
    """Return the operations of `tenant` with their steps, and how far the host is with them."""
    return (
        Operation.objects.filter(tenant=tenant)
        .select_related("instance")
        .prefetch_related("steps")
        .annotate(
            bytes_done=RawSQL(OF_TASK.format("done_bytes"), [], BigIntegerField()),
            bytes_total=RawSQL(OF_TASK.format("total_bytes"), [], BigIntegerField()),
        )
    )


def operation_get(*, tenant: Tenant, operation_id: UUID) -> Operation:
    """Return one operation of `tenant`."""
    found = operation_list(tenant=tenant).filter(pk=operation_id).first()
    if found is None:
        raise NotFoundError("there is no such operation")
    return found

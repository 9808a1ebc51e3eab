"""Reads: the operations of a tenant."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db.models import BigIntegerField, QuerySet
from django.db.models.expressions import RawSQL

from tenants.accounts.models import Tenant
from tenants.core.errors import NotFoundError
from tenants.operations.models import Operation

# Our own count, or that of the host's task, which has the operation's id if none other is named.
BYTES = (
    "coalesce({own}, (SELECT {of_task} FROM publish.task WHERE task_id ="
    " coalesce(operations_operation.host_task_id, operations_operation.id)))"
)
BYTES_DONE = BYTES.format(own="moved_bytes", of_task="done_bytes")
BYTES_TOTAL = BYTES.format(own="moved_total", of_task="total_bytes")


def operation_list(*, tenant: Tenant) -> QuerySet[Operation]:
    """Return the operations of `tenant` with their steps, and how far the host is with them."""
    return (
        Operation.objects.filter(tenant=tenant)
        .select_related("instance")
        .prefetch_related("steps")
        .annotate(
            bytes_done=RawSQL(BYTES_DONE, [], BigIntegerField()),
            bytes_total=RawSQL(BYTES_TOTAL, [], BigIntegerField()),
        )
    )


def operation_search(
    *,
    tenant: Tenant,
    instance: str = "",
    kind: str = "",
    state: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[Operation]:
    """Return those of one instance (handle), kind, state, and begun in [since, until)."""
    wanted = {
        "instance__handle": instance,
        "kind": kind,
        "state": state,
        "created_at__gte": since,
        "created_at__lt": until,
    }
    return operation_list(tenant=tenant).filter(
        **{name: value for name, value in wanted.items() if value}
    )


def operation_get(*, tenant: Tenant, operation_id: UUID) -> Operation:
    """Return one operation of `tenant`."""
    found = operation_list(tenant=tenant).filter(pk=operation_id).first()
    if found is None:
        raise NotFoundError("there is no such operation")
    return found

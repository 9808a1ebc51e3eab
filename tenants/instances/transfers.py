"""Writes: start an export or an import of an instance's data."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.db import transaction

from tenants.accounts.models import Tenant
from tenants.billing.growth import growth_demand
from tenants.core.models import uuid7
from tenants.instances.files import (
    demand_size,
    demand_transferable,
    file_make,
    file_of_tenant,
)
from tenants.instances.models import FileOrigin, Instance
from tenants.instances.status import instance_lock
from tenants.operations.models import Operation
from tenants.operations.services import operation_start


@transaction.atomic
def instance_export(*, instance: Instance, actor: str, idempotency_key: str = "") -> Operation:
    """Save the instance's data into a new file; clients are served meanwhile."""
    demand_transferable(instance)
    instance = instance_lock(instance)
    file_id = uuid7()
    operation = operation_start(
        kind="export",
        instance=instance,
        actor=actor,
        params={"file_id": str(file_id)},
        idempotency_key=idempotency_key,
    )
    # A repeated request gets the first one's operation, which has its file.
    if operation.params["file_id"] == str(file_id):
        file_make(
            instance=instance,
            actor=actor,
            origin=FileOrigin.EXPORT,
            retention=settings.EXPORT_RETENTION,
            file_id=file_id,
        )
    return operation


@transaction.atomic
def instance_import(
    *, instance: Instance, tenant: Tenant, file_id: UUID, actor: str, idempotency_key: str = ""
) -> Operation:
    """Replace the instance's data by a file of its tenant, uploaded or exported."""
    demand_transferable(instance)
    instance = instance_lock(instance)
    growth_demand(instance=instance)
    file = file_of_tenant(tenant=tenant, file_id=file_id)
    demand_transferable(file.instance)
    demand_size(instance=instance, size_bytes=file.size_bytes)
    return operation_start(
        kind="import",
        instance=instance,
        actor=actor,
        params={"file_id": str(file.pk)},
        idempotency_key=idempotency_key,
    )

"""Files with an instance's data: uploads part by part, retention, who may still have one.

A file's row comes before its bytes and goes after them, so that no bytes are without a row.
"""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from engines import registry
from engines.kit.contract import Placement
from engines.kit.records import Limits
from engines.kit.tasks import Kind
from tenants.accounts.models import Tenant
from tenants.core.errors import (
    ConflictError,
    InvalidError,
    LimitError,
    NotFoundError,
    invalid_field,
)
from tenants.instances import depot
from tenants.instances.models import DataFile, FileOrigin, FileState, Instance, InstanceStatus
from tenants.operations.models import LIVE, Operation
from tenants.usage.limits import limits_of

# Parts make a folder long; only the last may be shorter.
PART_BYTES_MIN = 64 * 1024
SHA256 = re.compile(r"[0-9a-f]{64}")
# An export that failed is out of sight at once; its bytes go when the host has surely let go of it.
LET_GO_AFTER = timedelta(hours=1)

# Engines whose data can be exported and imported, by the kind of their server.
EXPORTS = {Placement.REDIS_SERVER: Kind.RDB_EXPORT, Placement.POSTGRES_SERVER: Kind.PG_DUMP}
IMPORTS = {Placement.REDIS_SERVER: Kind.RDB_IMPORT, Placement.POSTGRES_SERVER: Kind.PG_LOAD}
# Where the plan has no bound.
FILE_BYTES_MAX = 256 * 1024**3

log = structlog.get_logger(__name__)


def file_list(*, instance: Instance) -> QuerySet[DataFile]:
    """Return the instance's files that have not expired."""
    return DataFile.objects.filter(instance=instance, expires_at__gt=timezone.now())


def file_get(*, instance: Instance, file_id: UUID) -> DataFile:
    """Return one file of an instance."""
    found = file_list(instance=instance).filter(pk=file_id).first()
    if found is None:
        raise NotFoundError("there is no such file")
    return found


def file_of_tenant(*, tenant: Tenant, file_id: UUID) -> DataFile:
    """Return a whole file of any instance of the tenant, for an import."""
    found = DataFile.objects.filter(
        tenant=tenant, pk=file_id, expires_at__gt=timezone.now()
    ).first()
    if found is None:
        raise NotFoundError("there is no such file")
    if found.state != FileState.READY:
        raise ConflictError(f"the file is {found.state}", code="file_not_ready")
    return found


def size_bytes_max(*, instance: Instance) -> int:
    """Return how large a file for an instance may be.

    An RDB file is smaller than its content is in memory, a dump than its tables on disk: a larger
    one could not be loaded anyway.
    """
    limits: Limits = limits_of(plan=instance.plan, blocks=instance.blocks, engine=instance.engine)
    bounds = [FILE_BYTES_MAX, limits.storage_bytes]
    if registry.load(instance.engine).placement is Placement.REDIS_SERVER:
        bounds.append(limits.memory_bytes)
    return min(bound for bound in bounds if bound is not None)


def demand_transferable(instance: Instance) -> None:
    """Refuse engines that have neither export nor import."""
    if registry.load(instance.engine).placement not in IMPORTS:
        raise ConflictError(
            f"the engine {instance.engine} has no export and import", code="engine_unsupported"
        )


def demand_size(*, instance: Instance, size_bytes: int) -> None:
    """Refuse a file that is too large for the instance's plan."""
    most = size_bytes_max(instance=instance)
    if not 0 < size_bytes <= most:
        raise invalid_field("size_bytes", f"the instance's plan takes 1 to {most}")


@transaction.atomic
def file_create(*, instance: Instance, actor: str, size_bytes: int, sha256: str) -> DataFile:
    """Begin an upload of announced size and digest."""
    demand_transferable(instance)
    instance = (
        Instance.objects.select_for_update(of=("self",)).select_related("plan").get(pk=instance.pk)
    )
    demand_size(instance=instance, size_bytes=size_bytes)
    if not SHA256.fullmatch(sha256):
        raise invalid_field("sha256", "64 hexadecimal digits in lower case")
    return file_make(
        instance=instance,
        actor=actor,
        origin=FileOrigin.UPLOAD,
        retention=settings.UPLOAD_RETENTION,
        size_bytes=size_bytes,
        sha256=sha256,
    )


def file_make(
    *,
    instance: Instance,
    actor: str,
    origin: FileOrigin,
    retention: timedelta,
    size_bytes: int = 0,
    sha256: str = "",
    file_id: UUID | None = None,
) -> DataFile:
    """Make the row of a file of a row-locked instance; its bytes come later."""
    if instance.status not in (InstanceStatus.ACTIVE, InstanceStatus.SUSPENDED):
        raise ConflictError(f"the instance is {instance.status}", code="instance_status")
    most: int = settings.FILES_PER_INSTANCE_MAX
    if file_list(instance=instance).count() >= most:
        raise LimitError(f"an instance has at most {most} files; delete one")
    is_upload = origin is FileOrigin.UPLOAD
    file = DataFile(
        tenant_id=instance.tenant_id,
        instance=instance,
        origin=origin,
        state=FileState.RECEIVING if is_upload else FileState.WRITING,
        storage_name=depot.new_name(origin.value),
        size_bytes=size_bytes,
        sha256=sha256,
        expires_at=timezone.now() + retention,
        created_by=actor,
    )
    if file_id is not None:
        file.pk = file_id
    file.save(force_insert=True)
    return file


@transaction.atomic
def file_append(*, file: DataFile, offset: int, data: bytes) -> DataFile:
    """Store the next part. One that is sent twice is refused with how much there is already."""
    file = DataFile.objects.select_for_update().get(pk=file.pk)
    if file.state != FileState.RECEIVING or offset != file.received_bytes:
        raise ConflictError(
            f"the file goes on at {file.received_bytes}",
            code="wrong_offset",
            extra={"received_bytes": file.received_bytes},
        )
    end = offset + len(data)
    if end > file.size_bytes:
        raise InvalidError("the part goes beyond the announced size", code="too_long")
    if len(data) < PART_BYTES_MIN and end != file.size_bytes:
        raise InvalidError(
            f"a part that is not the last has {PART_BYTES_MIN} bytes or more", code="too_short"
        )
    depot.part_save(name=file.storage_name, offset=offset, data=data)
    file.received_bytes = end
    if end == file.size_bytes:
        file.state = FileState.READY
    file.save(update_fields=["received_bytes", "state", "updated_at"])
    return file


@transaction.atomic
def file_delete(*, file: DataFile) -> None:
    """Remove a file, now or (the bytes) as soon as may be."""
    file = DataFile.objects.select_for_update().get(pk=file.pk)
    if _is_in_use(file):
        raise ConflictError("an operation works with this file", code="file_in_use")
    file.expires_at = timezone.now()
    file.save(update_fields=["expires_at", "updated_at"])
    transaction.on_commit(lambda: _remove(file.pk), robust=True)


def files_sweep() -> int:
    """Remove the files whose time is over; return how many."""
    expired = DataFile.objects.filter(_is_over())
    return sum(_remove(file_id) for file_id in expired.values_list("pk", flat=True))


def _is_over() -> Q:
    now = timezone.now()
    return Q(expires_at__lte=now - LET_GO_AFTER) | (
        Q(expires_at__lte=now) & ~Q(state=FileState.WRITING)
    )


@transaction.atomic
def _remove(file_id: UUID) -> bool:
    file = (
        DataFile.objects.select_for_update(skip_locked=True).filter(_is_over(), pk=file_id).first()
    )
    if file is None or _is_in_use(file):
        return False
    try:
        depot.content_remove(name=file.storage_name)
    except OSError:
        log.exception("a file cannot be removed", file=str(file.pk))
        return False
    file.delete()
    return True


def _is_in_use(file: DataFile) -> bool:
    return Operation.objects.filter(
        tenant_id=file.tenant_id, state__in=LIVE, params__file_id=str(file.pk)
    ).exists()

"""Writes: make, keep, verify and delete backups; make instances of them.

Each starts an operation or changes a row at once. Lock order: instance, then backup.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from tenants.backups.models import (
    Backup,
    BackupKind,
    BackupOrigin,
    BackupState,
    Verification,
)
from tenants.backups.plans import backup_limits
from tenants.backups.selection import base_for, chain_of, parent_for
from tenants.backups.shipping import stored_file_new
from tenants.backups.ways import way_of
from tenants.core.errors import ConflictError, LimitError, invalid_field
from tenants.core.models import uuid7
from tenants.instances import depot
from tenants.instances.models import Instance
from tenants.instances.services import instance_create
from tenants.instances.status import instance_lock
from tenants.operations.models import LIVE, Operation
from tenants.operations.services import operation_start
from tenants.usage.limits import limits_of

# How long the backup of a clone may wait for it.
CLONE_RETENTION = timedelta(days=1)


@transaction.atomic
def backup_create(
    *,
    instance: Instance,
    actor: str,
    kind: str = "",
    label: str = "",
    keep_days: int | None = None,
    origin: BackupOrigin = BackupOrigin.MANUAL,
    expires_at: datetime | None = None,
    idempotency_key: str = "",
) -> Operation:
    """Back an instance up. Without `keep_days` a manual backup is kept until somebody deletes it.

    The operation's `params` name the backup.
    """
    instance = instance_lock(instance)
    way = way_of(instance)
    chosen = _kind_checked(way.kinds, kind)
    parent = parent_for(instance) if chosen is BackupKind.INCREMENTAL else None
    if chosen is BackupKind.INCREMENTAL and parent is None:
        raise ConflictError("make a full backup first", code="no_parent")
    backup_id = uuid7()
    operation = operation_start(
        kind="backup",
        instance=instance,
        actor=actor,
        params={"backup_id": str(backup_id)},
        idempotency_key=idempotency_key,
    )
    if operation.params["backup_id"] != str(backup_id):
        return operation  # a repeated request gets the first one's
    _refuse_if_full(instance, origin)
    backup = Backup(
        pk=backup_id,
        tenant_id=instance.tenant_id,
        instance=instance,
        kind=chosen,
        origin=origin,
        parent=parent,
        label=label,
        expires_at=expires_at or _end_of(instance, keep_days),
        created_by=actor,
    )
    backup.save(force_insert=True)
    for role in way.roles:
        file = stored_file_new(
            prefix=f"backups-{backup_id}", role=role, depot_name=depot.new_name("export")
        )
        file.backup = backup
        file.save(force_insert=True)
    return operation


@transaction.atomic
def backup_change(
    *,
    backup: Backup,
    label: str | None = None,
    is_held: bool | None = None,
    keep_days: int | None = None,
) -> Backup:
    """Rename a backup, hold it, or set anew how long from now it is kept."""
    backup = _locked_backup(backup)
    if label is not None:
        backup.label = label
    if is_held is not None:
        backup.is_held = is_held
    if keep_days is not None:
        backup.expires_at = _end_of(backup.instance, keep_days)
    backup.save()
    return backup


@transaction.atomic
def backup_delete(*, backup: Backup) -> None:
    """Delete a backup, unless it is held, in use, or others build on it."""
    backup = _locked_backup(backup)
    if backup.is_held:
        raise ConflictError("the backup is held: release it first", code="backup_held")
    if backup.state == BackupState.WRITING:
        raise ConflictError("the backup is being made: cancel that", code="backup_in_use")
    if is_in_use(backup):
        raise ConflictError("an operation works with this backup", code="backup_in_use")
    if backup.children.exclude(state=BackupState.DELETING).exists():
        raise ConflictError("other backups build on this one", code="backup_has_children")
    backup.state = BackupState.DELETING
    backup.save(update_fields=["state", "updated_at"])


@transaction.atomic
def backup_restore(
    *,
    backup: Backup,
    actor: str,
    name: str,
    plan: str = "",
    blocks: int | None = None,
    idempotency_key: str = "",
) -> Operation:
    """Make a new instance with what the backup holds. It has no credentials of the old one."""
    backup = _locked_backup(backup)
    _demand_ready(backup)
    return _new_instance(
        backup,
        kind="restore",
        actor=actor,
        name=name,
        plan=plan,
        blocks=blocks,
        idempotency_key=idempotency_key,
    )


@transaction.atomic
def instance_restore_at(
    *,
    instance: Instance,
    time: datetime,
    actor: str,
    name: str,
    plan: str = "",
    blocks: int | None = None,
    idempotency_key: str = "",
) -> Operation:
    """Make a new instance with what another one held at a moment, to the second."""
    if time > timezone.now():
        raise invalid_field("time", "this time is to come")
    return _new_instance(
        _locked_backup(base_for(instance=instance, target=time)),
        kind="restore",
        actor=actor,
        name=name,
        plan=plan,
        blocks=blocks,
        idempotency_key=idempotency_key,
        target=time,
    )


@transaction.atomic
def instance_clone(
    *,
    instance: Instance,
    actor: str,
    name: str,
    plan: str = "",
    blocks: int | None = None,
    idempotency_key: str = "",
) -> Operation:
    """Make a new instance with what another holds now; through a backup that is not kept."""
    taken = backup_create(
        instance=instance,
        actor=actor,
        origin=BackupOrigin.CLONE,
        expires_at=timezone.now() + CLONE_RETENTION,
        idempotency_key=f"{idempotency_key}/source" if idempotency_key else "",
    )
    backup = Backup.objects.select_related("instance__tenant", "instance__plan").get(
        pk=taken.params["backup_id"]
    )
    return _new_instance(
        backup,
        kind="clone",
        actor=actor,
        name=name,
        plan=plan,
        blocks=blocks,
        idempotency_key=idempotency_key,
    )


@transaction.atomic
def backup_verify(*, backup: Backup, actor: str, idempotency_key: str = "") -> Operation:
    """Load the backup beside its instance, compare, and note the result at the backup."""
    instance = instance_lock(backup.instance)
    backup = _locked_backup(backup)
    _demand_ready(backup)
    operation = operation_start(
        kind="verify",
        instance=instance,
        actor=actor,
        params={"backup_id": str(backup.pk)},
        idempotency_key=idempotency_key,
    )
    backup.verification = Verification.RUNNING
    backup.save(update_fields=["verification", "updated_at"])
    return operation


def is_in_use(backup: Backup) -> bool:
    """Say whether an operation that has not ended reads or writes the backup."""
    return Operation.objects.filter(
        tenant_id=backup.tenant_id, state__in=LIVE, params__backup_id=str(backup.pk)
    ).exists()


def _new_instance(
    backup: Backup,
    *,
    kind: str,
    actor: str,
    name: str,
    plan: str,
    blocks: int | None,
    idempotency_key: str,
    target: datetime | None = None,
) -> Operation:
    """Make the instance; what is not said it has of the old one, its networks included."""
    source = backup.instance
    is_same_plan = plan in ("", source.plan.name)
    params = {"backup_id": str(backup.pk)}
    if target is not None:
        params["target_time"] = target.isoformat()
    operation = instance_create(
        tenant=source.tenant,
        actor=actor,
        name=name,
        engine=source.engine,
        plan=plan or source.plan.name,
        blocks=blocks or (source.blocks if is_same_plan else 1),
        allowlist=source.allowlist,
        kind=kind,
        params=params,
        idempotency_key=idempotency_key,
    )
    _demand_room(operation.instance, backup)
    return operation


def _demand_room(instance: Instance, backup: Backup) -> None:
    limits = limits_of(plan=instance.plan, blocks=instance.blocks, engine=instance.engine)
    needed, most = way_of(instance).room(backup, limits)
    if most is not None and needed > most:
        raise invalid_field(
            "plan", f"the data need {needed} bytes, the plan {instance.plan.name} has {most}"
        )


def _demand_ready(backup: Backup) -> None:
    for each in chain_of(backup):
        if each.state != BackupState.READY:
            raise ConflictError(f"the backup is {each.state}", code="backup_not_ready")


def _kind_checked(kinds: tuple[BackupKind, ...], kind: str) -> BackupKind:
    if not kind:
        return kinds[0]
    if kind not in kinds:
        known = ", ".join(each.value for each in kinds)
        raise invalid_field("kind", f"this engine has: {known}")
    return BackupKind(kind)


def _end_of(instance: Instance, keep_days: int | None) -> datetime | None:
    if keep_days is None:
        return None
    most = backup_limits(instance).days_max
    if not 1 <= keep_days <= most:
        raise invalid_field("keep_days", f"the plan {instance.plan.name} takes 1 to {most}")
    return timezone.now() + timedelta(days=keep_days)


def _refuse_if_full(instance: Instance, origin: BackupOrigin) -> None:
    most = backup_limits(instance).count_max
    kept = Backup.objects.filter(
        instance=instance, state__in=[BackupState.READY, BackupState.WRITING]
    ).exclude(origin=BackupOrigin.CLONE)
    if origin is not BackupOrigin.CLONE and kept.count() >= most:
        raise LimitError(f"the plan has {most} backups of an instance at most; delete one")


def _locked_backup(backup: Backup) -> Backup:
    return (
        Backup.objects.select_for_update(of=("self",))
        .select_related("instance__tenant", "instance__plan", "parent")
        .exclude(state=BackupState.DELETING)
        .get(pk=backup.pk)
    )

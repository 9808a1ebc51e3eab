"""Writes: instances. What takes long starts an operation; the rest is published at once.

Every function locks the instance's row first. Credentials are in `credentials.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from engines import registry
from engines.kit.records import Desired
from tenants.accounts.actors import SYSTEM
from tenants.accounts.models import Tenant
from tenants.audit.services import audit_write
from tenants.billing.growth import arrears_refuse
from tenants.core.errors import (
    ConflictError,
    InvalidError,
    LimitError,
    LockedError,
    invalid_field,
)
from tenants.iam.addresses import cidrs_clean
from tenants.instances.cells import cell_choose, has_schema
from tenants.instances.models import AuthMethod, Instance, InstanceStatus
from tenants.instances.plan_change import (
    blocks_checked,
    dearer_refuse,
    plan_assign,
    smaller_refuse,
)
from tenants.instances.status import instance_lock
from tenants.instances.tags import tags_clean
from tenants.operations.models import Operation, OperationState
from tenants.operations.services import operation_start
from tenants.publish.services import record_publish
from tenants.usage.models import Plan
from tenants.usage.selectors import plan_get

_S = InstanceStatus
# Kinds of operations that make an instance with data of another one.
FILLING = ("clone", "restore")


@transaction.atomic
def instance_create(
    *,
    tenant: Tenant,
    actor: str,
    name: str,
    engine: str,
    plan: str,
    blocks: int = 1,
    region: str = "",
    allowlist: Sequence[str] = (),
    deletion_protected: bool = True,
    is_default: bool = False,
    auth_method: AuthMethod = AuthMethod.PASSWORD,
    tags: Mapping[str, str] | None = None,
    kind: str = "provision",
    params: Mapping[str, Any] | None = None,
    idempotency_key: str = "",
) -> Operation:
    """Make the instance `<tenant>-<name>` and start to provision it; its record says so at once.

    The tenant's handle leads, so that no tenant learns from a taken name what another one has.
    `kind` and `params` are of the operation that fills it: restore, clone.
    """
    if engine not in registry.names():
        raise invalid_field("engine", f"there is none of that name: {', '.join(registry.names())}")
    if region not in ("", settings.REGION):
        raise invalid_field("region", f"there is none of that name: {settings.REGION}")
    chosen = plan_get(name=plan)
    arrears_refuse(tenant=tenant)
    _refuse_if_full(tenant)
    instance = Instance(
        tenant=tenant,
        handle=f"{tenant.handle}-{name}",
        engine=engine,
        plan=chosen,
        blocks=blocks_checked(chosen, blocks),
        region=settings.REGION,
        host=settings.HOST_NAME,
        cell=cell_choose(engine=engine),
        desired=Desired.ABSENT.value,
        generation=0,
        is_default=is_default,
        auth_method=auth_method,
        allowlist=cidrs_clean(allowlist, field="allowlist"),
        deletion_protected=deletion_protected,
        tags=tags_clean(tags or {}),
        created_by=actor,
    )
    try:
        instance.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        raise InvalidError("the instance is not valid", fields=error.message_dict) from error
    try:
        with transaction.atomic():
            instance.save(force_insert=True)
    except IntegrityError as error:
        raise ConflictError("this name is taken", code="name_taken") from error
    record_publish(instance=instance)
    return operation_start(
        kind=kind,
        instance=instance,
        actor=actor,
        params=params,
        idempotency_key=idempotency_key,
    )


@transaction.atomic
def instance_change(
    *,
    instance: Instance,
    plan: str | None = None,
    blocks: int | None = None,
    allowlist: Sequence[str] | None = None,
    deletion_protected: bool | None = None,
    tags: Mapping[str, str] | None = None,
) -> Instance:
    """Change what can change at once: the data plane follows within a second."""
    instance = instance_lock(instance)
    _refuse_if_deleted(instance)
    wanted = _wanted(instance, plan, blocks)
    if allowlist is not None:
        instance.allowlist = cidrs_clean(allowlist, field="allowlist")
    if deletion_protected is not None:
        instance.deletion_protected = deletion_protected
    if tags is not None:
        instance.tags = tags_clean(tags)
    instance.save()
    if wanted != (instance.plan, instance.blocks):
        dearer_refuse(instance=instance, plan=wanted[0], blocks=wanted[1])
        plan_assign(instance=instance, plan=wanted[0], blocks=wanted[1])
    record_publish(instance=instance)
    return instance


@transaction.atomic
def instance_scale(
    *,
    instance: Instance,
    actor: str,
    plan: str | None = None,
    blocks: int | None = None,
    idempotency_key: str = "",
) -> Operation:
    """Change plan or blocks, and follow until the host has: cancelling goes back to the old ones.

    The data planes' limits change at once; the server's memory and connections when the host says.
    """
    instance = instance_lock(instance)
    new_plan, new_blocks = _wanted(instance, plan, blocks)
    operation = operation_start(
        kind="scale",
        instance=instance,
        actor=actor,
        params={
            "plan_id": str(new_plan.pk),
            "blocks": new_blocks,
            "old_plan_id": str(instance.plan.pk),
            "old_blocks": instance.blocks,
        },
        idempotency_key=idempotency_key,
    )
    dearer_refuse(instance=instance, plan=new_plan, blocks=new_blocks)
    smaller_refuse(instance=instance, plan=new_plan, blocks=new_blocks)
    # Here and not in a step: so a dry run knows the price, and a refusal is the request's.
    plan_assign(instance=instance, plan=new_plan, blocks=new_blocks)
    record_publish(instance=instance)
    return operation


@transaction.atomic
def instance_hibernate(*, instance: Instance, actor: str, idempotency_key: str = "") -> Operation:
    """Stop the server as soon as nobody is connected; the next connection wakes it."""
    instance = instance_lock(instance)
    _refuse_without_server(instance)
    return operation_start(
        kind="hibernate", instance=instance, actor=actor, idempotency_key=idempotency_key
    )


@transaction.atomic
def instance_wake(*, instance: Instance, actor: str, idempotency_key: str = "") -> Operation:
    """Start the server of an instance that sleeps, before its first client comes."""
    instance = instance_lock(instance)
    _refuse_without_server(instance)
    return operation_start(
        kind="wake", instance=instance, actor=actor, idempotency_key=idempotency_key
    )


@transaction.atomic
def instance_suspend(*, instance: Instance, actor: str, idempotency_key: str = "") -> Operation:
    """Refuse clients and stop the server; data stays."""
    instance = instance_lock(instance)
    return operation_start(
        kind="suspend", instance=instance, actor=actor, idempotency_key=idempotency_key
    )


@transaction.atomic
def instance_resume(*, instance: Instance, actor: str, idempotency_key: str = "") -> Operation:
    """Bring a suspended instance back into service, or try to provision a failed one again.

    One that was to be filled is filled: it never comes into service empty.
    """
    instance = instance_lock(instance)
    kind = "provision" if instance.status == _S.FAILED else "resume"
    filled = _unfinished_filling(instance)
    if kind == "provision" and filled is not None:
        return operation_start(
            kind=filled.kind,
            instance=instance,
            actor=actor,
            params=filled.params,
            idempotency_key=idempotency_key,
        )
    return operation_start(
        kind=kind, instance=instance, actor=actor, idempotency_key=idempotency_key
    )


@transaction.atomic
def instance_delete(*, instance: Instance, actor: str, idempotency_key: str = "") -> Operation:
    """Put into quarantine; the data is purged after the retention time."""
    instance = instance_lock(instance)
    if instance.deletion_protected:
        raise ConflictError("switch deletion protection off first", code="deletion_protected")
    return operation_start(
        kind="delete", instance=instance, actor=actor, idempotency_key=idempotency_key
    )


@transaction.atomic
def instance_undelete(*, instance: Instance, actor: str, idempotency_key: str = "") -> Operation:
    """Bring an instance back out of quarantine."""
    instance = instance_lock(instance)
    return operation_start(
        kind="undelete", instance=instance, actor=actor, idempotency_key=idempotency_key
    )


def instance_purge_due() -> int:
    """Start to purge what has been in quarantine long enough; return how many.

    Also those whose purge failed: once it has begun nothing else can be done with them.
    """
    due = Instance.objects.filter(
        status__in=[_S.QUARANTINED, _S.PURGING], purge_after__lte=timezone.now()
    )
    return sum(_purge_one(instance) for instance in due)


@transaction.atomic
def _purge_one(instance: Instance) -> bool:
    instance = instance_lock(instance)
    is_due = instance.purge_after is not None and instance.purge_after <= timezone.now()
    if not is_due:
        return False
    try:
        operation_start(kind="purge", instance=instance, actor=SYSTEM)
    except (ConflictError, LockedError):  # being undeleted, or purged already
        return False
    if instance.status == _S.QUARANTINED:
        audit_write(
            tenant_id=instance.tenant_id,
            action="weftkit.instance.purge",
            initiator=SYSTEM,
            target=f"instances/{instance.handle}",
        )
    return True


def _unfinished_filling(instance: Instance) -> Operation | None:
    """Return what was to fill a new instance and never did; data that came later are not lost."""
    fillings = Operation.objects.filter(instance=instance, kind__in=FILLING).order_by("pk")
    if fillings.filter(state=OperationState.SUCCEEDED).exists():
        return None
    return fillings.last()


def _refuse_if_full(tenant: Tenant) -> None:
    """Refuse one instance too many. Those in quarantine count: their data are still here."""
    # Of two at the same moment the second waits; foreign keys to the tenant do not.
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    most: int = settings.INSTANCES_PER_TENANT_MAX
    if Instance.objects.filter(tenant=tenant).exclude(status=_S.PURGED).count() >= most:
        raise LimitError(f"a tenant has at most {most} instances")


def _refuse_if_deleted(instance: Instance) -> None:
    if instance.quarantined_at is not None:
        raise ConflictError(f"the instance is {instance.status}", code="instance_status")


def _wanted(instance: Instance, plan: str | None, blocks: int | None) -> tuple[Plan, int]:
    """Return the plan and blocks that a change asks for; another plan begins with one block."""
    if plan is None or plan == instance.plan.name:
        return instance.plan, blocks_checked(instance.plan, blocks or instance.blocks)
    found = plan_get(name=plan)
    return found, blocks_checked(found, blocks or 1)


def _refuse_without_server(instance: Instance) -> None:
    if has_schema(instance.engine):
        raise ConflictError(
            f"instances of {instance.engine} have no server that could sleep",
            code="engine_unsupported",
        )

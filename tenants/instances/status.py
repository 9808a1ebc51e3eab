"""An instance's life: the one table of transitions, and the one function that walks it.

provisioning ──► active ◄──► suspended          quarantined ──► purging ──► purged
     ▲  │          │ │           │                    ▲ │
     │  ▼          │ └───────────┴──── delete ────────┘ └── undelete ──► active
    failed ◄───────┘
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from engines.kit import records
from tenants.core.errors import ConflictError
from tenants.instances.models import Instance, InstanceStatus
from tenants.usage.terms import term_follow
from tenants.webhooks.services import webhook_emit

_S = InstanceStatus

TRANSITIONS: Mapping[InstanceStatus, frozenset[InstanceStatus]] = {
    _S.PROVISIONING: frozenset({_S.ACTIVE, _S.FAILED, _S.QUARANTINED}),
    _S.ACTIVE: frozenset({_S.SUSPENDED, _S.FAILED, _S.QUARANTINED}),
    _S.SUSPENDED: frozenset({_S.ACTIVE, _S.QUARANTINED}),
    _S.FAILED: frozenset({_S.PROVISIONING, _S.QUARANTINED}),
    _S.QUARANTINED: frozenset({_S.ACTIVE, _S.PURGING}),
    _S.PURGING: frozenset({_S.PURGED}),
    _S.PURGED: frozenset(),
}

# What clients and data planes see. A purged instance has no record any more.
PUBLISHED: Mapping[InstanceStatus, records.Status] = {
    _S.PROVISIONING: records.Status.PROVISIONING,
    _S.ACTIVE: records.Status.ACTIVE,
    _S.SUSPENDED: records.Status.SUSPENDED,
    _S.FAILED: records.Status.FAILED,
    _S.QUARANTINED: records.Status.QUARANTINED,
    _S.PURGING: records.Status.QUARANTINED,
}

ON_ITS_WAY_OUT = frozenset({_S.QUARANTINED, _S.PURGING, _S.PURGED})


def instance_lock(instance: Instance) -> Instance:
    """Return the instance as it is now, with its tenant and plan; its row stays locked."""
    return (
        Instance.objects.select_for_update(of=("self",))
        .select_related("tenant", "plan")
        .get(pk=instance.pk)
    )


def instance_move(
    *,
    instance: Instance,
    to: InstanceStatus,
    coming_from: Collection[InstanceStatus],
    why: str = "",
) -> None:
    """Move a row-locked instance to `to`; already there is fine (steps may run twice).

    Raises ConflictError where `coming_from` or the table forbids it. The caller publishes.
    """
    at = InstanceStatus(instance.status)
    if at is not to:
        if at not in coming_from or to not in TRANSITIONS[at]:
            raise ConflictError(
                f"the instance is {at.value}: it cannot become {to.value}", code="instance_status"
            )
        instance.status = to
        webhook_emit(
            tenant=instance.tenant_id,
            event_type="instance.status",
            data={"instance": instance.handle, "status": to.value, "before": at.value},
        )
        if to is _S.QUARANTINED:
            retention: timedelta = settings.QUARANTINE_RETENTION
            instance.quarantined_at = timezone.now()
            instance.purge_after = instance.quarantined_at + retention
        elif to not in ON_ITS_WAY_OUT:
            instance.quarantined_at = instance.purge_after = None
    instance.status_detail = why
    instance.save(
        update_fields=["status", "status_detail", "quarantined_at", "purge_after", "updated_at"]
    )
    instance_term(instance=instance)


def instance_term(*, instance: Instance) -> None:
    """Have the plan's term follow a row-locked instance: capacity is paid for while in service."""
    term_follow(
        tenant_id=instance.tenant_id,
        instance_id=instance.pk,
        plan_id=instance.plan_id,
        blocks=instance.blocks,
        is_in_service=instance.status == _S.ACTIVE,
    )


def instance_desire(*, instance: Instance, desired: records.Desired) -> None:
    """Tell the instance host of a row-locked instance what to make true. The caller publishes."""
    instance.desired = desired
    instance.generation += 1
    instance.save(update_fields=["desired", "generation", "updated_at"])

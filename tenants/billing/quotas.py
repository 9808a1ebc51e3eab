"""Writes: the life of a storage quota: notices at 80, 90 and 100 %, a grace, then no growth.

`quota_follow` compares what the host last said with the plan in force, and is called by the task
that looks at all instances, and by a change of plan in its own transaction. The instance's row is
locked. Well below the first threshold all is forgotten, and notices may come again.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

from tenants.billing.models import QuotaState
from tenants.billing.notices import notice_write, notices_resolve
from tenants.instances.models import Instance, InstanceStatus
from tenants.publish.selectors import observed_get
from tenants.publish.services import record_publish

THRESHOLDS = (80, 90, 100)
FORGOTTEN_BELOW = 75
KINDS = (*(f"quota.{threshold}" for threshold in THRESHOLDS), "quota.refused")

# Instances that are near their quota, and those that were.
CANDIDATES = """
SELECT instance.id FROM instances_instance AS instance
JOIN usage_plan AS plan ON plan.id = instance.plan_id
JOIN publish.observed AS observed ON observed.instance_id = instance.id
LEFT JOIN billing_quotastate AS known ON known.instance_id = instance.id
WHERE instance.status <> 'purged' AND (
    known.id IS NOT NULL OR observed.storage_bytes * 100 >= plan.storage_bytes * %(first)s
) ORDER BY instance.id
"""


def quotas_follow(*, now: datetime | None = None) -> int:
    """Look at every instance that is near its quota or was; return how many."""
    with connection.cursor() as cursor:
        cursor.execute(CANDIDATES, {"first": THRESHOLDS[0]})
        candidates = [row[0] for row in cursor.fetchall()]
    for instance_id in candidates:
        with transaction.atomic():
            instance = (
                Instance.objects.select_for_update(of=("self",))
                .select_related("tenant", "plan")
                .get(pk=instance_id)
            )
            if quota_follow(instance=instance, now=now) and not _is_gone(instance):
                record_publish(instance=instance)
    return len(candidates)


def quota_follow(*, instance: Instance, now: datetime | None = None) -> bool:
    """Bring a row-locked instance's quota state up to date; say whether its record must follow."""
    moment = now or timezone.now()
    state = QuotaState.objects.filter(instance_id=instance.pk).first()
    was_refused = state is not None and state.refused_since is not None
    percent = _percent_used(instance)
    if percent < FORGOTTEN_BELOW or _is_gone(instance):
        if state is not None:
            state.delete()
            _resolve(instance)
        return was_refused
    if state is None:
        if percent < THRESHOLDS[0]:
            return False
        state = QuotaState(instance_id=instance.pk)
    _tell_level(instance, state, percent)
    _follow_grace(instance, state, is_over=_is_over(instance), now=moment)
    state.save()
    return was_refused != (state.refused_since is not None)


def _tell_level(instance: Instance, state: QuotaState, percent: int) -> None:
    reached = max((t for t in THRESHOLDS if t <= percent), default=0)
    if reached <= state.level:
        return
    state.level = reached
    _resolve(instance)
    grace = timedelta(seconds=instance.plan.storage_grace_s)
    then = (
        f"In {_hours(grace)} what grows the data is refused."
        if grace
        else "What grows the data is refused."
    )
    notice_write(
        tenant_id=instance.tenant_id,
        kind=f"quota.{reached}",
        subject_id=instance.pk,
        title=f"{instance.handle} uses {reached} % of its storage",
        text=f"{instance.handle} holds {_stored(instance)} of {instance.plan.storage_bytes} bytes. "
        + (then if reached >= 100 else "At 100 % what grows the data will be refused. ")
        + " Delete data, or choose a plan with more storage.",
        data={"instance": instance.handle, "percent": percent},
    )


def _follow_grace(instance: Instance, state: QuotaState, *, is_over: bool, now: datetime) -> None:
    if not is_over:
        if state.over_since is not None:
            _resolve(instance)
            state.over_since = state.refused_since = None
            state.level = min(state.level, THRESHOLDS[-2])
        return
    state.over_since = state.over_since or now
    grace = timedelta(seconds=instance.plan.storage_grace_s)
    if state.refused_since is not None or now < state.over_since + grace:
        return
    state.refused_since = now
    if grace:
        notice_write(
            tenant_id=instance.tenant_id,
            kind="quota.refused",
            subject_id=instance.pk,
            title=f"{instance.handle} is full",
            text=f"{instance.handle} was over its storage for {_hours(grace)}: what grows the data "
            "is refused from now on. Reading and deleting go on.",
            data={"instance": instance.handle},
        )


def _resolve(instance: Instance) -> None:
    notices_resolve(tenant_id=instance.tenant_id, kinds=KINDS, subject_id=instance.pk)


def _is_gone(instance: Instance) -> bool:
    return instance.status == InstanceStatus.PURGED


def _stored(instance: Instance) -> int:
    observed = observed_get(instance_id=instance.pk)
    return observed.storage_bytes if observed else 0


def _percent_used(instance: Instance) -> int:
    quota = instance.plan.storage_bytes
    return 100 * _stored(instance) // quota if quota else 0


def _is_over(instance: Instance) -> bool:
    quota = instance.plan.storage_bytes
    return quota is not None and _stored(instance) > quota


def _hours(grace: timedelta) -> str:
    return f"{grace // timedelta(hours=1)} hours"

"""Giving an instance another plan or other blocks: what must fit, what follows from it."""

from __future__ import annotations

from engines.kit.records import Desired, Limits
from tenants.billing.estimates import hour_micros
from tenants.billing.growth import arrears_refuse
from tenants.billing.quotas import quota_follow
from tenants.core.errors import ConflictError, invalid_field
from tenants.instances.models import BLOCKS_MAX, Instance
from tenants.instances.status import instance_desire, instance_term
from tenants.publish.selectors import observed_get
from tenants.usage.limits import limits_of
from tenants.usage.models import Plan


def plan_assign(*, instance: Instance, plan: Plan, blocks: int) -> bool:
    """Give a row-locked instance a plan, and tell its host; False if it has that. Caller publishes.

    Memory and connections are the host's: it brings the server to them.
    """
    if (instance.plan_id, instance.blocks) == (plan.pk, blocks):
        return False
    instance.plan, instance.blocks = plan, blocks
    instance.save(update_fields=["plan", "blocks", "updated_at"])
    instance_term(instance=instance)
    quota_follow(instance=instance)
    instance_desire(instance=instance, desired=Desired(instance.desired))
    return True


def blocks_checked(plan: Plan, blocks: int) -> int:
    """Return `blocks` if the plan can have so many."""
    most = BLOCKS_MAX if plan.has_blocks else 1
    if not 1 <= blocks <= most:
        raise invalid_field("blocks", f"the plan {plan.name} takes 1 to {most}")
    return blocks


def dearer_refuse(*, instance: Instance, plan: Plan, blocks: int) -> None:
    """Refuse a larger plan to who is in arrears."""
    old = hour_micros(plan=instance.plan.name, blocks=instance.blocks)
    new = hour_micros(plan=plan.name, blocks=blocks)
    is_larger = instance.plan != plan or blocks > instance.blocks
    if new > old or (new == old and is_larger):
        arrears_refuse(tenant=instance.tenant)


def smaller_refuse(*, instance: Instance, plan: Plan, blocks: int) -> None:
    """Refuse a plan into which what the instance holds now does not fit."""
    observed = observed_get(instance_id=instance.pk)
    if observed is None:
        return
    limits: Limits = limits_of(plan=plan, blocks=blocks, engine=instance.engine)
    held = [("storage", observed.storage_bytes, limits.storage_bytes)]
    if instance.engine == "inmemory" and limits.eviction_policy == "noeviction":
        held.append(("memory", observed.memory_bytes, limits.memory_bytes))
    for what, bytes_held, most in held:
        if most is not None and bytes_held > most:
            raise ConflictError(
                f"the instance holds {bytes_held} bytes of {what}, the plan {plan.name} has {most}",
                code="plan_too_small",
            )

"""Writes: who had which plan from when to when; what is rated as capacity.

Called by whatever changes an instance's status, plan or blocks, in that transaction and with the
instance's row locked.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.utils import timezone

from tenants.usage.models import PlanTerm


def term_follow(
    *,
    tenant_id: UUID,
    instance_id: UUID,
    plan_id: UUID,
    blocks: int,
    is_in_service: bool,
    now: datetime | None = None,
) -> None:
    """Close the open term if it is not what holds now, and open the one that does."""
    moment = (now or timezone.now()).replace(microsecond=0)
    known = PlanTerm.objects.filter(instance_id=instance_id, ended_at=None).first()
    if known is not None:
        if is_in_service and (known.plan_id, known.blocks) == (plan_id, blocks):
            return
        # A clock that was set back makes no term of negative length.
        moment = max(moment, known.started_at)
        known.ended_at = moment
        known.save(update_fields=["ended_at"])
    if is_in_service:
        PlanTerm.objects.create(
            tenant_id=tenant_id,
            instance_id=instance_id,
            plan_id=plan_id,
            blocks=blocks,
            started_at=moment,
        )

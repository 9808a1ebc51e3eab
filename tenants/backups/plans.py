"""What each plan allows of backups. Plans that are not named here have what `OTHERS` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenants.instances.models import Instance


@dataclass(frozen=True, slots=True)
class BackupLimits:
    """At most so many backups of one instance, kept so long at most; schedules' defaults."""

    count_max: int
    days_max: int
    keep_count: int = 7
    keep_days: int = 7
    may_archive_wal: bool = True


PLANS: Mapping[str, BackupLimits] = {
    "lite": BackupLimits(count_max=10, days_max=14, may_archive_wal=False),
    "standard": BackupLimits(count_max=100, days_max=90),
    "dedicated": BackupLimits(count_max=500, days_max=400, keep_count=30, keep_days=30),
}
OTHERS = BackupLimits(count_max=500, days_max=400)


def backup_limits(instance: Instance) -> BackupLimits:
    """Return the limits of an instance's plan."""
    return PLANS.get(instance.plan.name, OTHERS)

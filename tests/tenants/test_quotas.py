"""A storage quota's life: notices, grace, refusal, and what lifts it; what the record says then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from engines.kit.records import GrowthRefusal
from tenants.billing.growth import growth_demand
from tenants.billing.models import Notice, QuotaState
from tenants.billing.quotas import quotas_follow
from tenants.core.errors import PaymentRequiredError
from tenants.instances.models import Instance
from tenants.instances.services import instance_change
from tests.tenants.cast import Cast, published, serving_instance

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
QUOTA = 20 * 2**30


@pytest.fixture
def instance(cast: Cast, settings: Any) -> Instance:
    settings.OPERATION_WAIT_IN_TASK_S = 0
    return serving_instance(cast.acme, plan="standard")


def holds(instance: Instance, storage_bytes: int, at: datetime = NOON) -> None:
    """Have the host say how much the instance holds, and the control plane look."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE publish.observed SET storage_bytes = %s WHERE instance_id = %s",
            [storage_bytes, instance.pk],
        )
    quotas_follow(now=at)


def told() -> list[tuple[str, bool]]:
    return [(n.kind, n.resolved_at is None) for n in Notice.objects.order_by("pk")]


def refused(instance: Instance) -> GrowthRefusal | None:
    record = published(instance)
    assert record is not None
    return record.growth_refused


def test_each_threshold_is_told_once_and_the_higher_one_replaces_the_lower(
    instance: Instance,
) -> None:
    for percent in (79, 80, 85, 90, 99, 100, 100):
        holds(instance, QUOTA * percent // 100)
    assert told() == [("quota.80", False), ("quota.90", False), ("quota.100", True)]
    assert refused(instance) is None


def test_one_leap_over_all_thresholds_is_one_notice(instance: Instance) -> None:
    holds(instance, QUOTA)
    assert told() == [("quota.100", True)]


def test_growth_is_refused_after_the_grace_only(instance: Instance) -> None:
    holds(instance, QUOTA + 1)
    before = published(instance)
    holds(instance, QUOTA + 1, NOON + timedelta(hours=72) - timedelta(seconds=1))
    assert published(instance) == before
    growth_demand(instance=instance)
    holds(instance, QUOTA + 1, NOON + timedelta(hours=72))
    assert refused(instance) is GrowthRefusal.STORAGE
    assert told() == [("quota.100", True), ("quota.refused", True)]
    with pytest.raises(PaymentRequiredError) as error:
        growth_demand(instance=instance)
    assert error.value.code == "storage_quota"


def full(instance: Instance) -> None:
    holds(instance, QUOTA + 1)
    holds(instance, QUOTA + 1, NOON + timedelta(hours=72))
    assert refused(instance) is GrowthRefusal.STORAGE


def test_a_larger_plan_lifts_it_in_its_own_transaction(instance: Instance) -> None:
    full(instance)
    instance_change(instance=instance, plan="dedicated")
    assert refused(instance) is None
    assert not QuotaState.objects.exists()
    assert not Notice.objects.filter(resolved_at=None).exists()


def test_deleting_data_lifts_it_and_the_next_time_has_its_own_grace(instance: Instance) -> None:
    full(instance)
    later = NOON + timedelta(days=10)
    holds(instance, QUOTA, later)
    assert refused(instance) is None
    assert QuotaState.objects.get().over_since is None
    holds(instance, QUOTA + 1, later)
    assert refused(instance) is None
    assert told()[-1] == ("quota.100", True)
    holds(instance, QUOTA * 74 // 100, later)
    assert not QuotaState.objects.exists()
    assert not Notice.objects.filter(resolved_at=None).exists()


def test_a_plan_without_grace_refuses_at_once(cast: Cast, settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0
    lite = serving_instance(cast.acme, plan="lite")
    holds(lite, 2**30 + 1)
    assert refused(lite) is GrowthRefusal.STORAGE
    assert told() == [("quota.100", True)]


def test_a_smaller_plan_that_is_full_already_says_so_at_once(instance: Instance) -> None:
    holds(instance, 2 * 2**30)
    instance_change(instance=instance, plan="lite")
    assert refused(instance) is GrowthRefusal.STORAGE
    assert told() == [("quota.100", True)]


def test_the_record_has_the_ceiling_of_the_grace(instance: Instance) -> None:
    record = published(instance)
    assert record is not None
    assert record.limits.storage_ceiling_bytes == QUOTA * 110 // 100
    instance_change(instance=instance, plan="unmetered")
    assert published(instance).limits.storage_ceiling_bytes is None  # type: ignore[union-attr]

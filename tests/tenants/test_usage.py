"""Usage: exact sums, whatever is handed in twice or rolled up side by side; and plans' limits."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import F
from django.utils import timezone

from engines.kit.settings import parse
from tenants.backups.models import Backup
from tenants.core.errors import InvalidError
from tenants.instances.services import instance_change, instance_resume, instance_suspend
from tenants.usage.limits import MEMORY_BYTES, limits_of
from tenants.usage.models import PlanTerm, UsageClaim, UsageHour, UsageMinute
from tenants.usage.selectors import (
    plan_get,
    plan_list,
    usage_hour_list,
    usage_series,
    usage_sum,
)
from tenants.usage.services import (
    CLAIM_RETENTION,
    MINUTES_RETENTION,
    usage_forget_claims,
    usage_forget_minutes,
    usage_roll_up,
    usage_sample,
)
from tests.tenants.cast import Cast, serving_instance, settle, side_by_side

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
OURS, THEIRS = uuid.UUID(int=1), uuid.UUID(int=2)


def hand_in(key: str, instance_id: uuid.UUID = OURS, at: datetime = NOON, **units: int) -> bool:
    """Hand a delta in as a data plane does; False if its key is there already."""
    columns = {"read_units": 0, "write_units": 0, "query_units": 0, **units}
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO publish.usage_intake (idempotency_key, instance_id, source, started_at, "
            f"stopped_at, {', '.join(columns)}) VALUES (%s, %s, 'w1', %s, %s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            [key, instance_id, at, at + timedelta(seconds=5), *columns.values()],
        )
        return bool(cursor.rowcount == 1)


def test_deltas_become_hours_of_utc(cast: Cast) -> None:
    hand_in("a", read_units=2, write_units=1)
    hand_in("b", at=NOON + timedelta(minutes=59, seconds=59), read_units=3)
    hand_in("c", at=NOON + timedelta(hours=1), query_units=7)
    hand_in("d", instance_id=THEIRS, read_units=100)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TimeZone = 'Asia/Kolkata'")  # half an hour off
        assert usage_roll_up() == 4
        cursor.execute("SET LOCAL TimeZone = 'UTC'")
    hours = usage_hour_list(instance_id=OURS, start=NOON, stop=NOON + timedelta(hours=2))
    assert [(h.hour, h.read_units, h.write_units, h.query_units) for h in hours] == [
        (NOON, 5, 1, 0),
        (NOON + timedelta(hours=1), 0, 0, 7),
    ]


def test_a_delta_handed_in_again_after_the_roll_up_is_not_counted_again(cast: Cast) -> None:
    for _ in range(3):
        assert hand_in("same", read_units=5)
        assert not hand_in("same", read_units=5)
        assert usage_roll_up() == 1
    assert UsageHour.objects.get().read_units == 5


def test_roll_ups_side_by_side_count_every_unit_once(lasting_cast: Cast) -> None:
    chance = random.Random(7)
    wanted = {OURS: 0, THEIRS: 0}
    keys = [f"k{n}" for n in range(300)]
    for key in keys:
        instance_id = chance.choice([OURS, THEIRS])
        units = chance.randrange(1, 50)
        wanted[instance_id] += units
        hand_in(key, instance_id, NOON + timedelta(minutes=chance.randrange(240)), read_units=units)

    def roll() -> None:
        while usage_roll_up(rows=17):
            pass

    def repeat() -> None:
        for key in keys:
            hand_in(key, OURS, read_units=1000)

    # A repetition of a delta that was not taken yet is refused by its key; a later one must be too.
    side_by_side(roll, roll, roll)
    outcomes = side_by_side(roll, roll, repeat)
    roll()
    connections.close_all()
    assert outcomes == [None] * 3
    sums = usage_sum(
        instances=[(OURS, "ours"), (THEIRS, "theirs")], start=NOON, stop=NOON + timedelta(hours=5)
    )
    assert {s.instance: s.figures["read_units"] for s in sums} == {
        "ours": wanted[OURS],
        "theirs": wanted[THEIRS],
    }


def test_a_period_is_half_open_and_empty_instances_are_zero(cast: Cast) -> None:
    hand_in("a", read_units=1)
    hand_in("b", at=NOON + timedelta(hours=1), read_units=2)
    usage_roll_up()
    sums = usage_sum(
        instances=[(OURS, "ours"), (THEIRS, "theirs")], start=NOON, stop=NOON + timedelta(hours=1)
    )
    assert [s.figures["read_units"] for s in sums] == [1, 0]
    with pytest.raises(InvalidError):
        usage_sum(instances=[], start=NOON, stop=NOON)


def test_minutes_are_charted_and_old_deltas_are_not(cast: Cast) -> None:
    now = timezone.now().replace(second=0, microsecond=0)
    minute = now - timedelta(minutes=10)
    hand_in("a", at=minute, read_units=1)
    hand_in("b", at=minute + timedelta(seconds=59), read_units=2)
    hand_in("c", at=minute + timedelta(minutes=1), write_units=4)
    hand_in("late", at=now - MINUTES_RETENTION - timedelta(hours=1), read_units=8)
    usage_roll_up()
    period = {"start": now - timedelta(days=5), "stop": now}
    with pytest.raises(InvalidError):
        usage_series(instance_id=OURS, step=timedelta(minutes=1), **period)
    points = usage_series(instance_id=OURS, start=minute, stop=now, step=timedelta(minutes=1))
    assert [(p.at, p.figures["read_units"], p.figures["write_units"]) for p in points] == [
        (minute, 3, 0),
        (minute + timedelta(minutes=1), 0, 4),
    ]
    hours = usage_series(instance_id=OURS, step=timedelta(hours=1), **period)
    assert sum(point.figures["read_units"] for point in hours) == 11
    UsageMinute.objects.update(minute=F("minute") - MINUTES_RETENTION)
    assert usage_forget_minutes() == 2


@pytest.mark.parametrize("seconds", [0, 59, 90])
def test_a_step_is_whole_minutes(cast: Cast, seconds: int) -> None:
    with pytest.raises(InvalidError) as refused:
        usage_series(
            instance_id=OURS,
            start=NOON,
            stop=NOON + timedelta(hours=1),
            step=timedelta(seconds=seconds),
        )
    assert list(refused.value.fields) == ["step"]


def observe(storage_bytes: int, memory_bytes: int = 0) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO publish.observed (instance_id, host, generation, state, storage_bytes,"
            " memory_bytes) VALUES (%s, 'local', 1, 'running', %s, %s)"
            " ON CONFLICT (instance_id) DO UPDATE SET storage_bytes = excluded.storage_bytes",
            [OURS, storage_bytes, memory_bytes],
        )


def test_the_first_sample_of_an_hour_stays_and_gaps_get_the_one_before(cast: Cast) -> None:
    hand_in("a", read_units=1)
    usage_roll_up()
    observe(100, 7)
    assert usage_sample(now=NOON + timedelta(minutes=5)) == 1
    observe(200)
    assert usage_sample(now=NOON + timedelta(minutes=50)) == 0
    # Nobody looked for two hours.
    assert usage_sample(now=NOON + timedelta(hours=3)) == 3
    rows = usage_hour_list(instance_id=OURS, start=NOON, stop=NOON + timedelta(hours=9))
    assert [(row.storage_bytes, row.memory_bytes, row.read_units) for row in rows] == [
        (100, 7, 1),
        (100, 7, 0),
        (100, 7, 0),
        (200, 7, 0),
    ]
    points = usage_series(
        instance_id=OURS, start=NOON, stop=NOON + timedelta(hours=4), step=timedelta(hours=2)
    )
    assert [point.storage_bytes for point in points] == [100, 200]


def test_kept_backups_are_held_bytes_also_after_the_instance(cast: Cast, settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0
    instance = serving_instance(cast.acme)
    for state, stored in (("ready", 40), ("ready", 2), ("writing", 1000)):
        Backup.objects.create(
            tenant=cast.acme, instance=instance, kind="dump", origin="manual", state=state,
            stored_bytes=stored, created_by="test",
        )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM publish.observed")
    usage_sample(now=NOON)
    (hour,) = UsageHour.objects.filter(instance_id=instance.pk)
    assert (hour.storage_bytes, hour.backup_bytes) == (0, 42)


def test_terms_follow_plan_blocks_and_status(cast: Cast, settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0
    instance = serving_instance(cast.acme, plan="standard", blocks=2)
    instance_change(instance=instance, blocks=3)
    instance_change(instance=instance, blocks=3, deletion_protected=False)
    settle(instance_suspend(instance=instance, actor="test"))
    assert [
        (term.plan.name, term.blocks, term.ended_at is None)
        for term in PlanTerm.objects.order_by("pk")
    ] == [("standard", 2, False), ("standard", 3, False)]
    first, second = PlanTerm.objects.order_by("pk")
    assert first.ended_at == second.started_at
    settle(instance_resume(instance=instance, actor="test"))
    instance_change(instance=instance, plan="lite")
    open_one = PlanTerm.objects.get(ended_at=None)
    assert (open_one.plan.name, open_one.blocks) == ("lite", 1)


def test_claims_are_forgotten_after_their_retention(cast: Cast) -> None:
    hand_in("old")
    hand_in("new")
    usage_roll_up()
    old = timezone.now() - CLAIM_RETENTION - timedelta(days=1)
    UsageClaim.objects.filter(pk="old").update(claimed_at=old)
    assert usage_forget_claims() == 1
    assert [claim.pk for claim in UsageClaim.objects.all()] == ["new"]


def test_the_plans_are_those_of_the_issue(cast: Cast) -> None:
    figures = {
        plan.name: (plan.read_units, plan.write_units, plan.query_units, plan.storage_bytes)
        for plan in plan_list()
    }
    assert figures == {
        "dedicated": (None, None, None, None),
        "lite": (20, 10, 5, 2**30),
        "standard": (100, 50, 5, 20 * 2**30),
        "unmetered": (None, None, None, None),
    }


def test_small_plans_hibernate_and_reserved_ones_never(cast: Cast) -> None:
    seconds = {
        plan.name: limits_of(plan=plan, blocks=2, engine="inmemory").hibernate_after_s
        for plan in plan_list()
    }
    assert seconds == {"lite": 900, "standard": 3600, "dedicated": None, "unmetered": None}


def test_what_weftkit_toml_sets_itself_is_stronger_than_the_plan(cast: Cast, settings: Any) -> None:
    lite = plan_get(name="lite")
    settings.WEFTKIT = parse("", {})
    plain = limits_of(plan=lite, blocks=1, engine="inmemory")
    assert (plain.memory_bytes, plain.eviction_policy) == (64 * 2**20, "lru")
    settings.WEFTKIT = parse(
        '[inmemory]\nmax_memory_bytes = 33554432\neviction_policy = "noeviction"\n'
        "[relational]\nmax_connections = 7\nwal_fsync = false\n",
        {},
    )
    tuned = limits_of(plan=lite, blocks=1, engine="inmemory")
    assert (tuned.memory_bytes, tuned.eviction_policy) == (32 * 2**20, "noeviction")
    relational = limits_of(plan=lite, blocks=1, engine="relational")
    assert (relational.connections, relational.fsync) == (7, False)


def test_an_unmetered_plan_limits_no_units_and_has_memory_all_the_same(cast: Cast) -> None:
    limits = limits_of(plan=plan_get(name="unmetered"), blocks=1, engine="relational")
    assert (limits.read, limits.write, limits.query, limits.storage_bytes) == (None,) * 4
    assert limits.memory_bytes == MEMORY_BYTES

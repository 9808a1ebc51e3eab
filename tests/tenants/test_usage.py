"""Usage: exact sums, whatever is handed in twice or rolled up side by side; and plans' limits."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from engines.kit.settings import parse
from tenants.core.errors import InvalidError
from tenants.usage.limits import MEMORY_BYTES, limits_of
from tenants.usage.models import UsageClaim, UsageHour
from tenants.usage.selectors import plan_get, plan_list, usage_hour_list, usage_sum
from tenants.usage.services import CLAIM_RETENTION, usage_forget_claims, usage_roll_up
from tests.tenants.cast import Cast, side_by_side

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

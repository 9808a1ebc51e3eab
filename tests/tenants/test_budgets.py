"""Budgets: what is spent of them, forecasts, and alerts that come once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tenants.billing.budgets import (
    BUDGETS_MAX,
    budget_change,
    budget_create,
    budgets_follow,
)
from tenants.billing.models import Budget, Notice
from tenants.billing.spend import month_of
from tenants.core.errors import ConflictError, InvalidError, LimitError, NotFoundError
from tenants.usage.models import PlanTerm
from tests.tenants.cast import Cast, signed_in
from tests.tenants.months import DECEMBER, NOVEMBER, instance_since, used

TENTH = NOVEMBER + timedelta(days=10)
MILLION = 10**6


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def make(cast: Cast, amount_micros: int, name: str = "b", **fields: Any) -> Budget:
    return budget_create(
        tenant=cast.acme, actor="test", name=name, amount_micros=amount_micros, **fields
    )


def told() -> list[tuple[str, int]]:
    return [(n.kind, n.data["percent"]) for n in Notice.objects.order_by("pk")]


def test_the_forecast_takes_capacity_as_it_is_and_usage_as_it_was(cast: Cast) -> None:
    blocks = instance_since(cast.acme, NOVEMBER, "standard", 2)
    used(instance_since(cast.acme, NOVEMBER, "unmetered"), NOVEMBER, read_units=4 * MILLION)
    # From the fifth on one block more.
    fifth = NOVEMBER + timedelta(days=5)
    PlanTerm.objects.filter(instance_id=blocks.pk).update(ended_at=fifth)
    PlanTerm.objects.create(
        tenant_id=cast.acme.pk, instance_id=blocks.pk, plan=blocks.plan, blocks=3, started_at=fifth
    )
    month = month_of(tenant=cast.acme, now=TENTH)
    a_day = 24 * 105_000
    assert month.spent() == (5 * 2 + 5 * 3) * a_day + MILLION
    assert month.forecast() == (5 * 2 + 25 * 3) * a_day + 3 * MILLION
    assert month.spent({blocks.pk}) == 25 * a_day


def test_each_threshold_is_told_once_a_month(cast: Cast) -> None:
    instance = instance_since(cast.acme, NOVEMBER, "unmetered")
    make(cast, 10 * MILLION, thresholds=[100, 50, 80, 50])
    moment = TENTH + timedelta(days=19)

    def spend(dollars: int, now: datetime) -> None:
        used(instance, NOVEMBER, read_units=dollars * 4 * MILLION)
        Budget.objects.update(looked_at=None)
        budgets_follow(now=now)
        budgets_follow(now=now)

    spend(4, moment)
    assert told() == []
    spend(1, moment)
    assert told() == [("budget.threshold", 50)]
    spend(5, moment)
    # Two at once are one notice, of the higher.
    assert told()[1:] == [("budget.over", 100)]
    spend(5, moment)
    assert len(told()) == 2
    used(instance, DECEMBER, read_units=32 * MILLION)
    Budget.objects.update(looked_at=None)
    budgets_follow(now=DECEMBER + timedelta(days=30))
    assert told()[2:] == [("budget.threshold", 80)]


def test_that_it_will_not_last_is_told_before_it_is_used_up(cast: Cast) -> None:
    instance_since(cast.acme, NOVEMBER, "standard")
    budget = make(cast, 70 * MILLION)
    budgets_follow(now=NOVEMBER + timedelta(days=1))
    assert told() == [("budget.forecast", 100)]
    budget.refresh_from_db()
    assert (budget.spent_micros, budget.forecast_micros) == (24 * 105_000, 720 * 105_000)
    budgets_follow(now=NOVEMBER + timedelta(days=2))
    assert len(told()) == 1


def test_a_budget_of_an_instance_or_a_tag_sees_only_theirs(cast: Cast) -> None:
    ours = instance_since(cast.acme, NOVEMBER, "unmetered", tags={"team": "data"})
    other = instance_since(cast.acme, NOVEMBER, "unmetered", tags={"team": "web"})
    theirs = instance_since(cast.globex, NOVEMBER, "unmetered", tags={"team": "data"})
    for instance, millions in ((ours, 4), (other, 8), (theirs, 16)):
        used(instance, NOVEMBER, read_units=millions * MILLION)
    make(cast, 10**9, "all")
    make(cast, 10**9, "one", instance=other.handle)
    make(cast, 10**9, "tag", tag_key="team", tag_value="data")
    budgets_follow(now=TENTH)
    spent = dict(Budget.objects.values_list("name", "spent_micros"))
    assert spent == {"all": 3 * MILLION, "one": 2 * MILLION, "tag": MILLION}


def test_another_amount_makes_other_thresholds(cast: Cast) -> None:
    used(instance_since(cast.acme, NOVEMBER, "unmetered"), NOVEMBER, read_units=4 * MILLION)
    late = DECEMBER - timedelta(hours=1)
    budget = make(cast, MILLION, thresholds=[100])
    budgets_follow(now=late)
    budget_change(budget=budget, amount_micros=2 * MILLION)
    budgets_follow(now=late)
    budget_change(budget=budget, amount_micros=MILLION, name="renamed")
    budgets_follow(now=late)
    assert told() == [("budget.over", 100), ("budget.over", 100)]


@pytest.mark.parametrize(
    "fields",
    [
        {"thresholds": []},
        {"thresholds": [0]},
        {"thresholds": [1001]},
        {"thresholds": list(range(1, 12))},
        {"tag_value": "x"},
        {"amount_micros": 0},
        {"name": ""},
    ],
)
def test_a_wrong_budget_is_refused(cast: Cast, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        make(cast, **{"amount_micros": 1, **fields})
    assert not Budget.objects.exists()


def test_budgets_have_bounds_names_and_their_own_tenant(cast: Cast) -> None:
    theirs = instance_since(cast.globex, NOVEMBER, "lite")
    with pytest.raises(NotFoundError):
        make(cast, 1, instance=theirs.handle)
    make(cast, 1)
    with pytest.raises(ConflictError):
        make(cast, 1)
    for number in range(BUDGETS_MAX - 1):
        make(cast, 1, f"n{number}")
    with pytest.raises(LimitError):
        make(cast, 1, "one too many")


def test_budgets_over_rest(cast: Cast) -> None:
    alice, address = signed_in(cast.alice), "/api/v1/tenants/acme/budgets"
    body = {"name": "team", "amount_micros": 5, "tag_key": "team", "tag_value": "data"}
    made = alice.post(address, body, "application/json")
    assert made.status_code == 201
    assert (made.json()["scope"], made.json()["thresholds"]) == ("tag", [50, 80, 100])
    one = f"{address}/{made.json()['id']}"
    changed = alice.patch(one, {"thresholds": [90]}, "application/json")
    assert changed.json()["thresholds"] == [90]
    assert alice.patch(one, {"thresholds": []}, "application/json").status_code == 400
    assert alice.delete(one).status_code == 204
    assert alice.get(one).status_code == 404

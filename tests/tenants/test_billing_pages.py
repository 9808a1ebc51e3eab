"""The billing pages: what they say of a month, and what their forms do."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from tenants.billing.models import Budget
from tenants.billing.months import month_start
from tests.tenants.cast import Cast, signed_in
from tests.tenants.months import NOVEMBER, OCTOBER, finalised, instance_since, used

BILLING = "/t/acme/billing"


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def alice(cast: Cast) -> Client:
    return signed_in(cast.alice)


def text_of(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def test_the_month_lists_what_will_be_on_the_invoice(cast: Cast, alice: Client) -> None:
    start = month_start(timezone.now())
    used(instance_since(cast.acme, start, "unmetered"), start, read_units=8_000_000)
    page = text_of(alice, BILLING)
    assert "8 \N{MULTIPLICATION SIGN} " in page
    assert "2.00 USD" in page
    assert "in good standing" in page


def test_a_month_without_use_says_so(alice: Client) -> None:
    assert "Nothing yet this month" in text_of(alice, BILLING)


def test_an_invoice_shows_its_lines_and_gives_them_as_csv(cast: Cast, alice: Client) -> None:
    used(instance_since(cast.acme, OCTOBER, "unmetered"), OCTOBER, write_units=1_000_000)
    invoice = finalised(cast.acme, NOVEMBER)
    assert "WK-000001" in text_of(alice, f"{BILLING}/invoices")
    page = text_of(alice, f"{BILLING}/invoices/{invoice.pk}")
    assert "1.25 USD" in page
    answer = alice.get(f"{BILLING}/invoices/{invoice.pk}/csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="WK-000001.csv"'
    (row,) = csv.DictReader(io.StringIO(answer.content.decode()))
    assert (row["meter"], row["amount"]) == ("write_units", "1.250000")


def test_a_cost_report_begins_with_a_month_that_is_offered(alice: Client) -> None:
    running = f"{timezone.now():%Y-%m}"
    answer = alice.get(f"{BILLING}/cost-report?start={running}")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="costs-{running}.csv"'
    assert alice.get(f"{BILLING}/cost-report?start=1999-01").status_code == 404


def test_a_budget_is_made_changed_and_deleted(cast: Cast, alice: Client) -> None:
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    form = {"name": "shop", "amount_micros": "250.50", "thresholds": "50, 80, 100"}
    made = alice.post(f"{BILLING}/budgets", {**form, "instance": instance.handle})
    assert made.status_code == 302, made.content
    budget = Budget.objects.get()
    assert (budget.name, budget.amount_micros) == ("shop", 250_500_000)
    assert (budget.thresholds, budget.instance) == ([50, 80, 100], instance.handle)
    assert 'value="250.5"' in alice.get(f"{BILLING}/budgets/{budget.pk}").content.decode()
    changed = alice.post(f"{BILLING}/budgets/{budget.pk}", {**form, "amount_micros": "100"})
    assert changed.status_code == 302, changed.content
    budget.refresh_from_db()
    assert budget.amount_micros == 100_000_000
    alice.post(f"{BILLING}/budgets/{budget.pk}", {"wish": "delete"})
    assert not Budget.objects.exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"amount_micros": "much"}, "An amount above zero"),
        ({"amount_micros": "0"}, "An amount above zero"),
        ({"thresholds": "half"}, "Whole per cent figures"),
        ({"tag_value": "data"}, "tag_key"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_at_its_field(
    alice: Client, wrong: dict[str, str], said: str
) -> None:
    form = {"name": "shop", "amount_micros": "250", "thresholds": "80", **wrong}
    answer = alice.post(f"{BILLING}/budgets", form)
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert not Budget.objects.exists()


def test_the_chart_has_a_column_for_each_hour(cast: Cast, alice: Client) -> None:
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    used(instance, hour, read_units=7)
    columns = alice.get(f"{BILLING}/usage.json?span=day").json()
    assert len(columns["at"]) == len(columns["read_units"]) == 25
    assert columns["at"][-1] == int(hour.timestamp())
    assert (columns["read_units"][-1], sum(columns["read_units"])) == (7, 7)
    assert instance.handle in text_of(alice, f"{BILLING}/usage")

"""Bills over REST: the account, the preview, invoices, CSV, FOCUS; and what only the staff may."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from tenants.audit.models import AuditEvent
from tenants.billing.arrears import overdue_follow
from tenants.billing.invoices import credit_note_create
from tenants.billing.models import BillingAccount, Operator, PriceList
from tenants.billing.months import month_after, month_before, month_start
from tenants.instances.services import instance_change
from tests.tenants.cast import Cast, person, published, signed_in
from tests.tenants.months import NOVEMBER, OCTOBER, finalised, instance_since, owing, used

ACME = "/api/v1/tenants/acme"
STAFF = "/api/v1/operator"


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def alice(cast: Cast) -> Client:
    return signed_in(cast.alice)


@pytest.fixture
def staff(cast: Cast) -> Client:
    olga = person("olga")
    call_command("weftkit_operator", "add", "Olga@example.org")
    return signed_in(olga)


def table(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.content.decode())))


def test_plans_come_with_their_prices(alice: Client) -> None:
    plans = {plan["name"]: plan for plan in alice.get("/api/v1/plans").json()["items"]}
    (block,) = [p for p in plans["standard"]["prices"] if p["meter"] == "capacity"]
    assert (block["micros"], block["per"], block["unit"]) == (105_000, 3600, "block-hour")
    (listed,) = alice.get("/api/v1/price-lists").json()["items"]
    assert (listed["version"], listed["currency"]) == (1, "USD")
    assert len(listed["prices"]) == 23


def test_the_account_says_what_is_spent_and_what_will_be(cast: Cast, alice: Client) -> None:
    start = month_start(timezone.now())
    instance = instance_since(cast.acme, start, "standard", 2)
    body = alice.get(f"{ACME}/billing").json()
    elapsed = (timezone.now() - start) // timedelta(seconds=1)
    assert (body["standing"], body["collection"], body["due_micros"]) == ("good", "invoice", 0)
    # A test that runs a while after its first line.
    assert -1 <= elapsed * 2 * 105_000 // 3600 - body["spent_micros"] < 10_000
    seconds = (month_after(start) - start) // timedelta(seconds=1) * 2
    assert abs(body["forecast_micros"] - seconds * 105_000 // 3600) < 10_000
    preview = alice.get(f"{ACME}/billing/preview").json()
    (line,) = preview["lines"]
    assert (line["instance"], line["meter"], preview["lines_total"]) == (
        instance.handle,
        "capacity",
        1,
    )
    assert preview["total_micros"] == line["amount_micros"] >= body["spent_micros"]


def test_an_invoice_its_lines_and_its_csv_agree(cast: Cast, alice: Client) -> None:
    instance = instance_since(cast.acme, OCTOBER, "unmetered", tags={"team": "=data"})
    used(instance, OCTOBER, read_units=2_000_000, write_units=1_000_000, storage_bytes=2**31)
    invoice = finalised(cast.acme, NOVEMBER)
    (listed,) = alice.get(f"{ACME}/invoices").json()["items"]
    assert listed["id"] == str(invoice.pk)
    detail = alice.get(f"{ACME}/invoices/{invoice.pk}").json()
    assert (detail["number"], detail["state"], detail["payments"]) == ("WK-000001", "final", [])
    lines = []
    address = f"{ACME}/invoices/{invoice.pk}/lines?limit=2"
    while address:
        page = alice.get(address).json()
        lines += page["items"]
        address = page["next"]
    assert {line["meter"]: line["amount_micros"] for line in lines} == {
        "read_units": 500_000,
        "write_units": 1_250_000,
        "storage": 2_740,
    }
    assert sum(line["amount_micros"] for line in lines) == detail["total_micros"] == 1_752_740
    rows = table(alice.get(f"{ACME}/invoices/{invoice.pk}/csv", headers={"Accept": CSV}))
    assert {row["meter"]: row["amount"] for row in rows} == {
        "read_units": "0.500000",
        "write_units": "1.250000",
        "storage": "0.002740",
    }
    assert rows[0]["tags"] == '{"team": "=data"}'


CSV = "text/csv"


def test_the_cost_report_has_focus_columns_and_adds_up(cast: Cast, alice: Client) -> None:
    running = month_start(timezone.now())
    last = month_before(running)
    instance = instance_since(cast.acme, last, "unmetered", tags={"team": "data"})
    used(instance, last, read_units=8_000_000)
    invoice = finalised(cast.acme, running)
    credit_note_create(
        invoice=invoice, amount_micros=500_000, reference="r", reason="=outage", actor="o"
    )
    used(instance, running, read_units=4_000_000)
    used(instance, last, read_units=4_000_000)
    period = f"start={last:%Y-%m}&stop={running:%Y-%m}"
    rows = table(alice.get(f"{ACME}/billing/cost-report?{period}"))
    figures = [
        (row["ChargeCategory"], row["ChargeClass"], row["BilledCost"], row["InvoiceId"])
        for row in rows
    ]
    assert figures == [
        ("Usage", "", "2.000000", "WK-000001"),
        ("Credit", "", "-0.500000", "WK-000001"),
        ("Usage", "", "1.000000", ""),
        ("Usage", "Correction", "1.000000", ""),
    ]
    first, credit, _, late = rows
    assert (first["PricingQuantity"], first["PricingUnit"]) == ("8", "million read units")
    assert (first["ConsumedQuantity"], first["ConsumedUnit"]) == ("8000000", "Units")
    assert (first["ListUnitPrice"], first["Tags"]) == ("0.250000", '{"team": "data"}')
    assert (first["ResourceName"], first["SkuPriceId"]) == (
        instance.handle,
        "unmetered/read_units/1",
    )
    assert credit["ChargeDescription"] == "'=outage"
    assert (late["ChargePeriodStart"], late["BillingPeriodStart"]) == (
        f"{last:%Y-%m}-01T00:00:00Z",
        f"{running:%Y-%m}-01T00:00:00Z",
    )


@pytest.mark.parametrize(
    "query",
    ["start=2026-13", "start=2026-02&stop=2026-01", "start=2020-01&stop=2026-01", "start=x",
     "start=0000-01"],
)  # fmt: skip
def test_a_wrong_period_is_refused(alice: Client, query: str) -> None:
    assert alice.get(f"{ACME}/billing/cost-report?{query}").status_code == 400


def test_a_made_up_cursor_is_refused(cast: Cast, alice: Client) -> None:
    invoice = owing(cast)
    answer = alice.get(f"{ACME}/invoices/{invoice.pk}/lines?cursor=cD14")
    assert answer.status_code == 400


def post(client: Client, address: str, **body: Any) -> Any:
    return client.post(address, body, "application/json")


def test_only_the_staff_finds_what_is_the_staffs(cast: Cast, staff: Client, alice: Client) -> None:
    invoice = owing(cast)
    address = f"{STAFF}/invoices/{invoice.pk}/payments"
    for client in (alice, signed_in(cast.charlie)):
        assert client.get(f"{STAFF}/invoices").status_code == 404
        assert post(client, address, amount_micros=1, reference="r").status_code == 404
    assert Client().get(f"{STAFF}/invoices").status_code == 401
    (row,) = staff.get(f"{STAFF}/invoices?state=final").json()["items"]
    assert (row["tenant"], row["due_micros"]) == ("acme", 2_000_000)
    assert staff.get(f"{STAFF}/invoices?state=paid").json()["items"] == []
    call_command("weftkit_operator", "remove", "olga@example.org")
    assert staff.get(f"{STAFF}/invoices").status_code == 404
    with pytest.raises(CommandError):
        call_command("weftkit_operator", "add", "nobody@example.org")


def test_a_recorded_payment_ends_arrears_and_the_tenant_can_read_who_did_it(
    cast: Cast, staff: Client, alice: Client
) -> None:
    invoice = owing(cast)
    overdue_follow(now=invoice.due_at)
    overdue_follow(now=invoice.due_at + timedelta(days=8))
    assert alice.get(f"{ACME}/billing").json()["standing"] == "arrears"
    refused = post(alice, f"{ACME}/instances", name="n", engine="relational", plan="lite")
    assert (refused.status_code, refused.json()["code"]) == (402, "arrears")
    notices = alice.get(f"{ACME}/notices?open=true").json()["items"]
    assert [notice["kind"] for notice in notices] == [
        "arrears.began",
        "invoice.overdue",
        "invoice.final",
    ]
    paid = post(
        staff, f"{STAFF}/invoices/{invoice.pk}/payments", amount_micros=2_000_000, reference="b-1"
    )
    assert paid.status_code == 201
    body = alice.get(f"{ACME}/billing").json()
    assert (body["standing"], body["due_micros"]) == ("good", 0)
    assert alice.get(f"{ACME}/notices?open=true").json()["items"] == []
    event = AuditEvent.objects.get(action="weftkit.invoice.pay")
    assert (event.tenant_id, event.initiator) == (cast.acme.pk, "operator:olga@example.org")


def test_a_credit_note_is_on_the_invoice(cast: Cast, staff: Client, alice: Client) -> None:
    invoice = owing(cast)
    address = f"{STAFF}/invoices/{invoice.pk}/credit-notes"
    made = post(staff, address, amount_micros=500_000, reference="t-7", reason="An outage.")
    assert made.status_code == 201
    detail = alice.get(f"{ACME}/invoices/{invoice.pk}").json()
    assert (detail["credited_micros"], detail["due_micros"]) == (500_000, 1_500_000)
    assert [note["reason"] for note in detail["credit_notes"]] == ["An outage."]
    too_much = post(staff, address, amount_micros=1_500_001, reference="t-8", reason="x")
    assert too_much.status_code == 400
    body = {"amount_micros": 100_000, "reference": "t-9", "reason": "Another."}
    key = {"Idempotency-Key": "t-9"}
    answers = [staff.post(address, body, "application/json", headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert alice.get(f"{ACME}/invoices/{invoice.pk}").json()["credited_micros"] == 600_000


def test_an_internal_tenant_is_out_of_arrears(cast: Cast, staff: Client) -> None:
    invoice = owing(cast)
    overdue_follow(now=invoice.due_at)
    overdue_follow(now=invoice.due_at + timedelta(days=8))
    answer = staff.patch(f"{STAFF}/accounts/acme", {"collection": "internal"}, "application/json")
    assert answer.status_code == 204
    assert BillingAccount.objects.get(tenant=cast.acme).arrears_since is None


def next_hour() -> str:
    hour = timezone.now().replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return hour.isoformat()


def price(plan: str, **fields: Any) -> dict[str, Any]:
    return {
        "plan": plan, "meter": "capacity", "unit": "block-hour", "micros": 7, "per": 3600, **fields
    }  # fmt: skip


PLANS = ("dedicated", "lite", "standard", "unmetered")


def test_a_price_list_is_published_for_later(staff: Client, cast: Cast) -> None:
    prices = [price(plan) for plan in PLANS]
    made = post(staff, f"{STAFF}/price-lists", valid_from=next_hour(), prices=prices)
    assert (made.status_code, made.json()["version"]) == (201, 2)
    again = post(staff, f"{STAFF}/price-lists", valid_from=next_hour(), prices=prices)
    assert again.status_code == 400
    event = AuditEvent.objects.get(action="weftkit.price-list.create")
    assert event.tenant_id is None


@pytest.mark.parametrize(
    ("prices", "valid_from"),
    [
        ([price(plan) for plan in PLANS], "2026-01-01T12:00:00Z"),
        ([price(plan) for plan in PLANS], "2036-01-01T12:30:00Z"),
        ([price("lite")], "2036-01-01T12:00:00Z"),
        ([price(plan) for plan in (*PLANS, "gold")], "2036-01-01T12:00:00Z"),
        ([price(plan) for plan in (*PLANS, "lite")], "2036-01-01T12:00:00Z"),
        ([*map(price, PLANS), price("lite", meter="read_units", included=5)],
         "2036-01-01T12:00:00Z"),
    ],
)  # fmt: skip
def test_a_wrong_price_list_is_refused(
    staff: Client, prices: list[dict[str, Any]], valid_from: str
) -> None:
    answer = post(staff, f"{STAFF}/price-lists", valid_from=valid_from, prices=prices)
    assert answer.status_code == 400, answer.content
    assert PriceList.objects.count() == 1


def test_a_deactivated_member_of_the_staff_is_nobody(cast: Cast, staff: Client) -> None:
    Operator.objects.all().delete()
    assert staff.get(f"{STAFF}/invoices").status_code == 404


def test_over_the_quota_an_import_is_402(cast: Cast, alice: Client) -> None:
    instance = instance_since(cast.acme, OCTOBER, "lite", engine="inmemory")
    BillingAccount.objects.update_or_create(
        tenant=cast.acme,
        defaults={"arrears_since": OCTOBER, "billed_until": NOVEMBER, "collection": "invoice"},
    )
    overdue_follow()
    record = published(instance)
    assert record is not None
    assert record.growth_refused == "arrears"
    answer = post(alice, f"{ACME}/instances/{instance.handle}/import", file=str(cast.acme.pk))
    assert (answer.status_code, answer.json()["code"]) == (402, "arrears")
    larger = alice.patch(
        f"{ACME}/instances/{instance.handle}", {"plan": "standard"}, "application/json"
    )
    assert (larger.status_code, larger.json()["code"]) == (402, "arrears")
    BillingAccount.objects.update(arrears_since=None)
    instance_change(instance=instance, plan="standard")

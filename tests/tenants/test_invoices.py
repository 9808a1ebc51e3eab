"""From usage to a paid invoice: terms, hours, late usage, finality, payments, credits, arrears."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail

from engines.kit.records import GrowthRefusal
from tenants.billing.accounts import account_of
from tenants.billing.arrears import collection_set, overdue_follow
from tenants.billing.drafting import rated_with_late
from tenants.billing.invoices import credit_note_create, months_close, payment_record
from tenants.billing.models import (
    BillingAccount,
    Collection,
    Invoice,
    InvoiceLine,
    Notice,
    Price,
    PriceList,
)
from tenants.billing.notices import notices_mail
from tenants.core.errors import ConflictError, InvalidError, PaymentRequiredError
from tenants.instances.models import Instance
from tenants.instances.services import instance_change
from tenants.usage.models import PlanTerm
from tenants.usage.selectors import plan_get
from tenants.webhooks.models import WebhookEvent
from tenants.webhooks.services import endpoint_create
from tests.tenants.cast import Cast, make_instance, published, side_by_side
from tests.tenants.months import (
    DECEMBER,
    JANUARY,
    LATE_ENOUGH,
    NOVEMBER,
    OCTOBER,
    finalised,
    instance_since,
    owing,
    since,
    used,
)

GIB = 2**30


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


def by_meter(invoice: Invoice) -> dict[str, tuple[int, int, int]]:
    return {
        line.meter: (int(line.quantity), int(line.billable_quantity), line.amount_micros)
        for line in invoice.lines.all()
    }


def test_a_month_of_blocks_is_rated_to_the_second(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "standard", 2)
    # From the tenth on three blocks; suspended on the twentieth, half past noon and one second.
    tenth, end = OCTOBER + timedelta(days=9), OCTOBER + timedelta(days=19, hours=12, seconds=1801)
    PlanTerm.objects.filter(instance_id=instance.pk).update(ended_at=tenth)
    term = {"tenant_id": cast.acme.pk, "instance_id": instance.pk, "plan": instance.plan}
    PlanTerm.objects.create(**term, blocks=3, started_at=tenth, ended_at=end)
    invoice = finalised(cast.acme, NOVEMBER)
    seconds = 9 * 86400 * 2 + (10 * 86400 + 12 * 3600 + 1801) * 3
    assert by_meter(invoice) == {
        "capacity": (seconds, seconds, (seconds * 105_000 * 2 + 3600) // 7200)
    }
    assert invoice.total_micros == invoice.lines.get().amount_micros
    assert (invoice.state, invoice.number, invoice.currency) == ("final", "WK-000001", "USD")
    assert invoice.due_at == NOVEMBER + LATE_ENOUGH + timedelta(days=14)


def test_storage_is_billed_by_the_hour_above_what_is_included(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "standard")
    for hour, gibibytes in enumerate([19, 20, 22, 25]):
        used(instance, OCTOBER + timedelta(hours=hour), storage_bytes=gibibytes * GIB)
    invoice = finalised(cast.acme, NOVEMBER)
    assert by_meter(invoice)["storage"] == (86 * GIB, 7 * GIB, 7 * 1_370)


def test_an_hour_belongs_to_the_plan_that_held_for_most_of_it(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    lite = plan_get(name="lite")
    changed = OCTOBER + timedelta(hours=5, minutes=40)
    PlanTerm.objects.filter(instance_id=instance.pk).update(ended_at=changed)
    term = {"tenant_id": cast.acme.pk, "instance_id": instance.pk, "blocks": 1}
    # Lite for twenty minutes of the sixth hour, then suspended for good in the eighth.
    PlanTerm.objects.create(
        **term, plan=lite, started_at=changed, ended_at=OCTOBER + timedelta(hours=7, minutes=1)
    )
    for hour in range(10):
        used(instance, OCTOBER + timedelta(hours=hour), read_units=10**hour)
    invoice = finalised(cast.acme, NOVEMBER)
    lines = {line.plan: int(line.quantity) for line in invoice.lines.filter(meter="read_units")}
    assert lines == {"unmetered": 111_111, "lite": 1_111_000_000}


def test_a_new_price_list_holds_from_its_moment_on(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    middle = OCTOBER + timedelta(days=15)
    newer = PriceList.objects.create(version=2, currency="USD", valid_from=middle)
    Price.objects.create(
        price_list=newer, plan="unmetered", meter="read_units", unit="read", micros=3, per=1
    )
    used(instance, middle - timedelta(hours=1), read_units=4_000_000)
    used(instance, middle, read_units=5)
    invoice = finalised(cast.acme, NOVEMBER)
    lines = invoice.lines.filter(meter="read_units").order_by("start")
    assert [(x.price_list, int(x.quantity), x.amount_micros, x.start, x.stop) for x in lines] == [
        (1, 4_000_000, 1_000_000, OCTOBER, middle),
        (2, 5, 15, middle, NOVEMBER),
    ]


def test_a_draft_follows_usage_until_it_is_final(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    used(instance, OCTOBER, read_units=1)
    assert months_close(now=NOVEMBER - timedelta(seconds=1)) == 0
    assert not Invoice.objects.exists()
    months_close(now=NOVEMBER + timedelta(hours=1))
    draft = Invoice.objects.get()
    assert (draft.state, draft.number, by_meter(draft)["read_units"][0]) == ("draft", "", 1)
    used(instance, OCTOBER, read_units=1)
    months_close(now=NOVEMBER + timedelta(hours=2))
    months_close(now=NOVEMBER + LATE_ENOUGH)
    final = Invoice.objects.get()
    assert final.pk == draft.pk
    assert (final.state, by_meter(final)["read_units"][0]) == ("paid", 2)
    months_close(now=NOVEMBER + LATE_ENOUGH)
    assert account_of(tenant=cast.acme).billed_until == NOVEMBER


def test_usage_that_comes_after_the_end_is_on_the_next_invoice_once(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    used(instance, OCTOBER, read_units=2_000_001)
    first = finalised(cast.acme, NOVEMBER)
    used(instance, OCTOBER + timedelta(days=30), read_units=1)
    used(instance, NOVEMBER, read_units=4)
    second = finalised(cast.acme, DECEMBER)
    third_lines = rated_with_late(
        account=account_of(tenant=cast.acme), start=DECEMBER, stop=JANUARY, until=JANUARY
    )
    assert not [line for line in third_lines if line.measured.meter == "read_units"]
    lines = second.lines.filter(meter="read_units").order_by("start")
    assert [(int(line.quantity), line.is_late, line.start) for line in lines] == [
        (1, True, OCTOBER),
        (4, False, NOVEMBER),
    ]
    # 2,000,001 units are 500,000.25 micro-units, one more makes them 500,000.5.
    assert [by_meter(first)["read_units"][2], lines[0].amount_micros] == [500_000, 1]
    first.refresh_from_db()
    assert first.total_micros == 500_000


def test_a_month_without_anything_has_no_invoice_and_no_number(cast: Cast) -> None:
    since(cast.acme, OCTOBER - timedelta(days=1))
    assert months_close(now=NOVEMBER + LATE_ENOUGH) == 2
    assert not Invoice.objects.exists()
    account = BillingAccount.objects.get(tenant=cast.acme)
    assert account.billed_until == NOVEMBER


def test_numbers_have_no_gaps_with_tenants_side_by_side(lasting_cast: Cast) -> None:
    cast = lasting_cast
    for tenant in (cast.acme, cast.globex):
        instance = instance_since(tenant, OCTOBER, "unmetered")
        used(instance, OCTOBER, read_units=10**6)
    now = NOVEMBER + LATE_ENOUGH
    outcomes = side_by_side(*[lambda: months_close(now=now)] * 3)
    assert all(isinstance(outcome, int) for outcome in outcomes), outcomes
    assert sorted(Invoice.objects.values_list("number", flat=True)) == ["WK-000001", "WK-000002"]
    assert InvoiceLine.objects.filter(meter="read_units").count() == 2


def pay(invoice: Invoice, micros: int, reference: str = "r1") -> Any:
    return payment_record(
        invoice=invoice, amount_micros=micros, reference=reference, actor="operator:o"
    )


def test_payments_count_once_and_what_is_too_much_is_kept_for_the_next(cast: Cast) -> None:
    invoice = owing(cast)
    assert pay(invoice, 500_000).pk == pay(invoice, 500_000).pk
    with pytest.raises(ConflictError) as refused:
        pay(invoice, 400_000)
    assert refused.value.code == "reference_reused"
    invoice.refresh_from_db()
    assert (invoice.state, invoice.due_micros) == ("final", 1_500_000)
    pay(invoice, 1_600_000, "r2")
    invoice.refresh_from_db()
    assert (invoice.state, invoice.due_micros) == ("paid", 0)
    assert account_of(tenant=cast.acme).credit_micros == 100_000
    instance = Instance.objects.get(tenant=cast.acme)
    used(instance, NOVEMBER, read_units=4_000_000)
    second = finalised(cast.acme, DECEMBER)
    assert (second.total_micros, second.applied_micros) == (1_000_000, 100_000)
    assert second.due_micros == 900_000
    assert account_of(tenant=cast.acme).credit_micros == 0


def test_less_than_a_cent_is_not_asked_for(cast: Cast) -> None:
    invoice = owing(cast)
    pay(invoice, 1_990_001)
    invoice.refresh_from_db()
    assert invoice.state == "paid"


def credit(invoice: Invoice, micros: int, reference: str = "c1") -> Any:
    return credit_note_create(
        invoice=invoice, amount_micros=micros, reference=reference, reason="outage", actor="o"
    )


def test_credit_notes_lower_what_is_due_and_never_exceed_the_invoice(cast: Cast) -> None:
    invoice = owing(cast)
    note = credit(invoice, 1_500_000)
    assert note.number == "CN-000001"
    assert credit(invoice, 1_500_000).pk == note.pk
    invoice.refresh_from_db()
    assert (invoice.state, invoice.due_micros) == ("final", 500_000)
    with pytest.raises(InvalidError):
        credit(invoice, 500_001, "c2")
    pay(invoice, 500_000)
    # Paid: what is taken back now stays on the account.
    credit(invoice, 500_000, "c3")
    invoice.refresh_from_db()
    assert (invoice.state, account_of(tenant=cast.acme).credit_micros) == ("paid", 500_000)
    with pytest.raises(InvalidError):
        credit(invoice, 1, "c4")


def test_a_draft_takes_no_money(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    used(instance, OCTOBER, read_units=8_000_000)
    months_close(now=NOVEMBER)
    draft = Invoice.objects.get()
    for call in (pay, credit):
        with pytest.raises(ConflictError) as refused:
            call(draft, 1)
        assert refused.value.code == "invoice_state"


def test_endpoints_hear_of_bills_in_the_transaction_of_what_happens(
    lasting_cast: Cast,
) -> None:
    endpoint_create(tenant=lasting_cast.acme, actor="test", url="https://example.org/hook")
    invoice = owing(lasting_cast)
    overdue_follow(now=invoice.due_at)
    overdue_follow(now=invoice.due_at + timedelta(days=8))
    pay(invoice, 2_000_000)
    heard = WebhookEvent.objects.exclude(type__startswith="instance.").exclude(
        type__startswith="operation."
    )
    assert [(e.type, e.data.get("invoice"), e.data.get("state")) for e in heard.order_by("pk")] == [
        ("invoice.final", "WK-000001", None),
        ("invoice.overdue", "WK-000001", None),
        ("account.arrears", None, "began"),
        ("invoice.paid", "WK-000001", None),
        ("account.arrears", None, "ended"),
    ]


def test_who_does_not_pay_may_not_grow_until_the_payment(cast: Cast) -> None:
    invoice = owing(cast)
    instance = Instance.objects.get(tenant=cast.acme)
    overdue = invoice.due_at + timedelta(seconds=1)
    overdue_follow(now=invoice.due_at - timedelta(seconds=1))
    invoice.refresh_from_db()
    assert invoice.state == "final"
    overdue_follow(now=overdue)
    overdue_follow(now=overdue + timedelta(days=6))
    invoice.refresh_from_db()
    assert invoice.state == "overdue"
    assert published(instance).growth_refused is None  # type: ignore[union-attr]
    overdue_follow(now=overdue + timedelta(days=7, seconds=1))
    record = published(instance)
    assert record is not None
    assert record.growth_refused is GrowthRefusal.ARREARS
    kinds = list(Notice.objects.order_by("pk").values_list("kind", flat=True))
    assert kinds == ["invoice.final", "invoice.overdue", "arrears.began"]
    for dearer in (
        lambda: make_instance(cast.acme, "more"),
        lambda: instance_change(instance=instance, plan="standard"),
    ):
        with pytest.raises(PaymentRequiredError) as refused:
            dearer()
        assert (refused.value.status, refused.value.code) == (402, "arrears")
    assert instance_change(instance=instance, deletion_protected=False).plan.name == "unmetered"
    pay(invoice, 2_000_000)
    record = published(instance)
    assert record is not None
    assert record.growth_refused is None
    assert not Notice.objects.filter(resolved_at=None).exists()
    assert instance_change(instance=instance, plan="standard").plan.name == "standard"


def test_a_record_that_missed_the_arrears_is_published_again(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "lite")
    account_of(tenant=cast.acme)
    BillingAccount.objects.update(arrears_since=OCTOBER)
    overdue_follow()
    assert published(instance).growth_refused == "arrears"  # type: ignore[union-attr]
    BillingAccount.objects.update(arrears_since=None)
    overdue_follow()
    assert published(instance).growth_refused is None  # type: ignore[union-attr]


def test_internal_tenants_see_costs_and_never_come_into_arrears(cast: Cast) -> None:
    since(cast.acme, OCTOBER)
    collection_set(tenant=cast.acme, collection=Collection.INTERNAL)
    invoice = owing(cast)
    assert (invoice.state, invoice.due_at, invoice.total_micros) == ("final", None, 2_000_000)
    overdue_follow(now=JANUARY)
    invoice.refresh_from_db()
    assert invoice.state == "final"
    assert not Notice.objects.exists()


def test_a_notice_is_mailed_once_to_those_who_read_bills(cast: Cast, settings: Any) -> None:
    owing(cast)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    assert notices_mail() == 1
    notice = Notice.objects.get()
    assert (notice.mailed_at, notice.mail_attempts) == (None, 1)
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert notices_mail() == 0
    assert notices_mail(now=notice.mail_after) == 1
    assert notices_mail(now=notice.mail_after + timedelta(days=1)) == 0
    assert [(m.to, m.subject) for m in mail.outbox] == [
        (["alice@example.org"], "[WeftKit] Invoice WK-000001")
    ]
    assert "2.00 USD" in mail.outbox[0].body

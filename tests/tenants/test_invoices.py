"""From usage to a paid invoice: terms, hours, late usage, finality, payments, credits, arrears."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from smtplib import SMTPRecipientsRefused
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import connection
from django.utils import timezone

from engines.kit.records import GrowthRefusal
from tenants.accounts.models import MemberRole, Membership
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
    NoticeMail,
    Price,
    PriceList,
)
from tenants.billing.notices import MAIL_ATTEMPTS_MAX, notices_mail
from tenants.core.errors import ConflictError, InvalidError, PaymentRequiredError
from tenants.instances.models import Instance
from tenants.instances.services import instance_change
from tenants.usage.models import PlanTerm
from tenants.usage.selectors import plan_get
from tenants.usage.services import usage_roll_up
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


def taken_in(instance: Instance, at: datetime, **figures: int) -> None:
    """Have a data plane hand in what an instance used at a moment."""
    names, marks = ", ".join(figures), ", ".join(["%s"] * len(figures))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO publish.usage_intake (idempotency_key, instance_id, source, started_at, "
            f"stopped_at, {names}) VALUES (%s, %s, 'w1', %s, %s, {marks})",
            [uuid4().hex, instance.pk, at, at + timedelta(seconds=5), *figures.values()],
        )
    assert usage_roll_up() == 1


def changed_to_lite(instance: Instance, changed: datetime, until: datetime | None) -> None:
    PlanTerm.objects.filter(instance_id=instance.pk).update(ended_at=changed)
    PlanTerm.objects.create(
        tenant_id=instance.tenant_id, instance_id=instance.pk, blocks=1,
        plan=plan_get(name="lite"), started_at=changed, ended_at=until,
    )  # fmt: skip


def by_plan(invoice: Invoice, meter: str) -> dict[str, int]:
    return {line.plan: int(line.quantity) for line in invoice.lines.filter(meter=meter)}


def test_what_is_held_in_an_hour_belongs_to_the_plan_that_held_for_most_of_it(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    # Lite for twenty minutes of the sixth hour, then suspended for good in the eighth.
    changed = OCTOBER + timedelta(hours=5, minutes=40)
    changed_to_lite(instance, changed, OCTOBER + timedelta(hours=7, minutes=1))
    for hour in range(10):
        used(instance, OCTOBER + timedelta(hours=hour), storage_bytes=GIB * 10**hour)
    invoice = finalised(cast.acme, NOVEMBER)
    assert by_plan(invoice, "storage")["unmetered"] == 111_111 * GIB


def test_what_is_used_belongs_to_the_plan_that_held_when_it_was_used(cast: Cast) -> None:
    instance = instance_since(cast.acme, OCTOBER, "unmetered")
    changed = OCTOBER + timedelta(hours=5, minutes=40)
    changed_to_lite(instance, changed, OCTOBER + timedelta(hours=7, minutes=1))
    taken_in(instance, OCTOBER + timedelta(hours=5), read_units=1)
    taken_in(instance, changed - timedelta(microseconds=1), read_units=10)
    taken_in(instance, changed, read_units=100)
    taken_in(instance, OCTOBER + timedelta(hours=5, minutes=59), read_units=1_000, bytes_out=7)
    taken_in(instance, OCTOBER + timedelta(hours=6), read_units=10_000)
    # Out of service: what it last had.
    taken_in(instance, OCTOBER + timedelta(hours=9), read_units=100_000)
    invoice = finalised(cast.acme, NOVEMBER)
    assert by_plan(invoice, "read_units") == {"unmetered": 11, "lite": 111_100}
    # What comes late from before the change is the old plan's too, once.
    taken_in(instance, changed - timedelta(minutes=1), read_units=5)
    later = finalised(cast.acme, DECEMBER)
    assert by_plan(later, "read_units") == {"unmetered": 5}


def test_usage_of_half_a_year_ago_is_on_the_next_invoice_once(cast: Cast) -> None:
    april = datetime(2026, 4, 1, tzinfo=UTC)
    instance = instance_since(cast.acme, april, "unmetered")
    taken_in(instance, april + timedelta(days=3), read_units=4)
    months_close(now=NOVEMBER + LATE_ENOUGH)
    assert by_plan(Invoice.objects.get(), "read_units") == {"unmetered": 4}
    taken_in(instance, april + timedelta(days=4), read_units=3)
    late = finalised(cast.acme, DECEMBER).lines.get(meter="read_units")
    assert (int(late.quantity), late.is_late, late.start) == (3, True, april)
    again = rated_with_late(
        account=account_of(tenant=cast.acme), start=DECEMBER, stop=JANUARY, until=JANUARY
    )
    assert not [line for line in again if line.measured.meter == "read_units"]


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
    assert notices_mail() == 0
    waiting = NoticeMail.objects.get()
    assert (waiting.sent_at, waiting.claimed_at, waiting.attempts) == (None, None, 1)
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert notices_mail() == 0
    assert notices_mail(now=waiting.send_after) == 1
    assert notices_mail(now=waiting.send_after + timedelta(days=1)) == 0
    assert [(m.to, m.subject) for m in mail.outbox] == [
        (["alice@example.org"], "[WeftKit] Invoice WK-000001")
    ]
    assert "2.00 USD" in mail.outbox[0].body
    assert Notice.objects.get().mailed_at == waiting.send_after


class Refusing(EmailBackend):
    """Delivers to Alice; refuses Bob, and says so."""

    def send_messages(self, messages: Any) -> int:
        if messages[0].to == ["bob@example.org"]:
            raise SMTPRecipientsRefused({"bob@example.org": (550, b"no such mailbox")})
        return int(super().send_messages(messages))


class Silent(EmailBackend):
    """Takes a message, and its answer is lost."""

    def send_messages(self, messages: Any) -> int:
        super().send_messages(messages)
        raise TimeoutError("no answer")


def test_a_reader_who_is_refused_costs_the_others_no_second_mail(cast: Cast, settings: Any) -> None:
    owing(cast)
    Membership.objects.filter(user=cast.bob, tenant=cast.acme).update(role=MemberRole.BILLING)
    settings.EMAIL_BACKEND = f"{__name__}.Refusing"
    moment = timezone.now()
    assert notices_mail(now=moment) == 1
    for days in range(1, 20):
        assert notices_mail(now=moment + timedelta(days=days)) == 0
    assert [m.to for m in mail.outbox] == [["alice@example.org"]]
    bobs = NoticeMail.objects.get(email="bob@example.org")
    assert (bobs.attempts, bobs.sent_at) == (MAIL_ATTEMPTS_MAX, None)
    assert Notice.objects.get().mailed_at is None


def test_a_mail_that_may_have_gone_is_not_sent_again(cast: Cast, settings: Any) -> None:
    owing(cast)
    settings.EMAIL_BACKEND = f"{__name__}.Silent"
    assert notices_mail() == 0
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert notices_mail(now=timezone.now() + timedelta(days=1)) == 0
    assert len(mail.outbox) == 1
    claimed = NoticeMail.objects.get()
    assert (claimed.claimed_at is None, claimed.sent_at) == (False, None)


def test_workers_side_by_side_mail_a_notice_once(lasting_cast: Cast) -> None:
    owing(lasting_cast)
    assert sorted(side_by_side(*[notices_mail] * 4)) == [0, 0, 0, 1]
    assert [m.to for m in mail.outbox] == [["alice@example.org"]]

"""Writes: an invoice's life. draft ──► final ──► paid, or overdue ──► paid.

Every function locks the tenant's account first. A draft is rated anew each time; being final fixes
its lines, gives it a number and moves the account's `billed_until`, all in one transaction.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.billing.accounts import account_lock, sequence_next
from tenants.billing.arrears import arrears_follow
from tenants.billing.drafting import lines_of, rated_with_late
from tenants.billing.models import (
    BillingAccount,
    Collection,
    CreditNote,
    Invoice,
    InvoiceLine,
    InvoiceState,
    Payment,
)
from tenants.billing.money import CENT, decimal_text
from tenants.billing.months import month_after, month_start
from tenants.billing.notices import notice_write, notices_resolve
from tenants.billing.selectors import currency_now
from tenants.core.errors import ConflictError, invalid_field
from tenants.webhooks.services import webhook_emit

_S = InvoiceState
OPEN = (_S.FINAL, _S.OVERDUE)


def months_close(*, now: datetime | None = None) -> int:
    """Bring every tenant's ended months on; return how many invoices were touched.

    May run beside itself and be killed anywhere: each month of each tenant is its own transaction.
    """
    moment = now or timezone.now()
    done = 0
    for tenant_id in _behind(moment):
        while month_close(tenant=Tenant.objects.get(pk=tenant_id), now=moment):
            done += 1
    return done


@transaction.atomic
def month_close(*, tenant: Tenant, now: datetime | None = None) -> bool:
    """Draft or finish the tenant's oldest open month; say whether another one may follow."""
    moment = now or timezone.now()
    account = account_lock(tenant=tenant)
    start = account.billed_until
    stop = month_after(start)
    if moment < stop:
        return False
    invoice = _draft(account, start, stop)
    if moment < stop + settings.INVOICE_DRAFT_TIME:
        return False
    if invoice is not None:
        _finalise(account, invoice, moment)
    account.billed_until = stop
    account.save(update_fields=["billed_until", "credit_micros", "updated_at"])
    return True


@transaction.atomic
def payment_record(*, invoice: Invoice, amount_micros: int, reference: str, actor: str) -> Payment:
    """Count money that came in; a reference that is known already counts once.

    What is more than is due stays on the account, for the next invoice.
    """
    account = account_lock(tenant=invoice.tenant)
    invoice = Invoice.objects.select_for_update().get(pk=invoice.pk)
    known = Payment.objects.filter(invoice=invoice, reference=reference).first()
    if known is not None:
        if known.amount_micros != amount_micros:
            raise ConflictError("this reference has another amount", code="reference_reused")
        return known
    _refuse_wrong_amount(invoice, amount_micros)
    payment = Payment.objects.create(
        invoice=invoice, amount_micros=amount_micros, reference=reference, recorded_by=actor
    )
    due = invoice.due_micros
    invoice.paid_micros += min(amount_micros, due)
    account.credit_micros += max(amount_micros - due, 0)
    _settle(account, invoice, timezone.now())
    return payment


@transaction.atomic
def credit_note_create(
    *, invoice: Invoice, amount_micros: int, reference: str, reason: str, actor: str
) -> CreditNote:
    """Take back a part of an invoice; what was paid of it already stays on the account."""
    account = account_lock(tenant=invoice.tenant)
    invoice = Invoice.objects.select_for_update().get(pk=invoice.pk)
    known = CreditNote.objects.filter(invoice=invoice, reference=reference).first()
    if known is not None:
        if known.amount_micros != amount_micros:
            raise ConflictError("this reference has another amount", code="reference_reused")
        return known
    _refuse_wrong_amount(invoice, amount_micros)
    left = invoice.total_micros - sum(invoice.credit_notes.values_list("amount_micros", flat=True))
    if amount_micros > left:
        raise invalid_field("amount", f"at most {decimal_text(left)} of it are left")
    note = CreditNote.objects.create(
        invoice=invoice,
        number=f"CN-{sequence_next(name='credit note'):06d}",
        amount_micros=amount_micros,
        reference=reference,
        reason=reason,
        recorded_by=actor,
    )
    due = invoice.due_micros
    invoice.credited_micros += min(amount_micros, due)
    account.credit_micros += max(amount_micros - due, 0)
    _settle(account, invoice, timezone.now())
    return note


def _behind(now: datetime) -> list[UUID]:
    """Return the tenants that have ended months which are not invoiced."""
    accounts = BillingAccount.objects.filter(billed_until__lt=month_start(now))
    unknown = Tenant.objects.filter(billing_account=None, created_at__lt=month_start(now))
    return [
        *accounts.order_by("billed_until", "id").values_list("tenant_id", flat=True),
        *unknown.order_by("id").values_list("pk", flat=True),
    ]


def _draft(account: BillingAccount, start: datetime, stop: datetime) -> Invoice | None:
    """Rate the month into a draft; None if there is nothing on it."""
    lines = lines_of(
        tenant_id=account.tenant_id,
        lines=rated_with_late(account=account, start=start, stop=stop, until=stop),
    )
    drafts = Invoice.objects.filter(tenant_id=account.tenant_id, period_start=start)
    if not lines:
        drafts.filter(state=_S.DRAFT).delete()
        return None
    invoice = drafts.first() or Invoice(
        tenant_id=account.tenant_id, period_start=start, period_stop=stop
    )
    assert invoice.state == _S.DRAFT, "a month before billed_until"
    invoice.currency = currency_now()
    invoice.total_micros = sum(line.amount_micros for line in lines)
    invoice.save()
    invoice.lines.all().delete()
    for line in lines:
        line.invoice = invoice
    InvoiceLine.objects.bulk_create(lines)
    return invoice


def _finalise(account: BillingAccount, invoice: Invoice, now: datetime) -> None:
    """Fix a draft that was just rated."""
    invoice.number = f"WK-{sequence_next(name='invoice'):06d}"
    invoice.state = _S.FINAL
    invoice.finalised_at = now
    invoice.applied_micros = min(account.credit_micros, invoice.total_micros)
    account.credit_micros -= invoice.applied_micros
    if account.collection == Collection.INVOICE:
        invoice.due_at = now + settings.INVOICE_PAYMENT_TIME
    invoice.save()
    if invoice.due_micros < CENT:
        _settle(account, invoice, now)
    elif account.collection == Collection.INVOICE:
        notice_write(
            tenant_id=account.tenant_id,
            kind="invoice.final",
            subject_id=invoice.pk,
            title=f"Invoice {invoice.number}",
            text=f"The invoice {invoice.number} over {_money(invoice, invoice.due_micros)} "
            f"is due on {invoice.due_at:%d %B %Y}.",
            data=_data(invoice),
        )


def _settle(account: BillingAccount, invoice: Invoice, now: datetime) -> None:
    """Save both; an invoice of which less than a cent is due is paid."""
    if invoice.state in OPEN and invoice.due_micros < CENT:
        invoice.state = _S.PAID
        invoice.paid_at = now
        notices_resolve(tenant_id=account.tenant_id, kinds=_KINDS, subject_id=invoice.pk)
        webhook_emit(tenant=account.tenant_id, event_type="invoice.paid", data=_data(invoice))
    invoice.save()
    account.save(update_fields=["credit_micros", "updated_at"])
    arrears_follow(account=account, now=now)


_KINDS = ("invoice.final", "invoice.overdue")


def _refuse_wrong_amount(invoice: Invoice, amount_micros: int) -> None:
    if invoice.state == _S.DRAFT:
        raise ConflictError("the invoice is a draft", code="invoice_state")
    if amount_micros <= 0:
        raise invalid_field("amount", "more than nothing")


def _money(invoice: Invoice, micros: int) -> str:
    return f"{decimal_text(micros, 2)} {invoice.currency}"


def _data(invoice: Invoice) -> dict[str, object]:
    return {
        "invoice": invoice.number,
        "invoice_id": str(invoice.pk),
        "due_micros": invoice.due_micros,
        "currency": invoice.currency,
    }

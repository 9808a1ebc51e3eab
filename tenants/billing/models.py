"""Price lists, accounts, invoices with their lines, what was paid and credited; budgets, the life
of a full quota, and notices.

Money is integers of micro-units (a millionth of the currency's unit). Lines and notices keep copies
of names, which outlive what they name.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from tenants.accounts.models import Tenant, User
from tenants.core.models import BaseModel


class Meter(models.TextChoices):
    """What can have a price. Quantities are whole numbers of the smallest unit."""

    CAPACITY = "capacity"  # block-seconds in service
    STORAGE = "storage"  # byte-hours
    MEMORY = "memory"  # byte-hours
    BACKUP = "backup"  # byte-hours
    READ_UNITS = "read_units"
    WRITE_UNITS = "write_units"
    QUERY_UNITS = "query_units"
    BYTES_OUT = "bytes_out"


GAUGES = (Meter.STORAGE, Meter.MEMORY, Meter.BACKUP)


class PriceList(BaseModel):
    """One version of all prices, in force from `valid_from` until the next is. Never changed."""

    version = models.PositiveIntegerField(unique=True)
    currency = models.CharField(max_length=3)
    valid_from = models.DateTimeField(unique=True)

    def __str__(self) -> str:
        return f"{self.version} ({self.currency})"


class Price(BaseModel):
    """`micros` for `per` of a meter in a plan; `included` is free, in each hour, of a gauge."""

    price_list = models.ForeignKey(PriceList, on_delete=models.PROTECT, related_name="prices")
    plan = models.CharField(max_length=32)
    meter = models.CharField(max_length=16, choices=Meter.choices)
    unit = models.CharField(max_length=32)
    micros = models.BigIntegerField(validators=[MinValueValidator(0)])
    per = models.BigIntegerField(validators=[MinValueValidator(1)])
    included = models.BigIntegerField(default=0, validators=[MinValueValidator(0)])

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["price_list", "plan", "meter"], name="price_is_one_per_meter"
            ),
            models.CheckConstraint(
                condition=models.Q(micros__gte=0, per__gte=1, included__gte=0),
                name="price_is_not_negative",
            ),
            models.CheckConstraint(
                condition=models.Q(included=0) | models.Q(meter__in=GAUGES),
                name="price_includes_of_gauges_only",
            ),
            models.CheckConstraint(
                condition=models.Q(meter__in=Meter.values), name="price_meter_is_known"
            ),
        ]


class Collection(models.TextChoices):
    INVOICE = "invoice"  # to be paid; who does not pay comes into arrears
    INTERNAL = "internal"  # costs are shown, nobody pays


class BillingAccount(BaseModel):
    """One for each tenant; its row lock orders all that happens to the tenant's money.

    Months before `billed_until` are invoiced: what is found in them later is on a later invoice.
    """

    tenant = models.OneToOneField(Tenant, on_delete=models.PROTECT, related_name="billing_account")
    collection = models.CharField(max_length=8, choices=Collection.choices)
    billed_until = models.DateTimeField()
    credit_micros = models.BigIntegerField(default=0)
    arrears_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(credit_micros__gte=0), name="account_credit_is_not_negative"
            ),
            models.CheckConstraint(
                condition=models.Q(collection__in=Collection.values),
                name="account_collection_is_known",
            ),
        ]


class BillingSequence(models.Model):
    """Counters without gaps: a number is taken in the transaction that uses it."""

    name = models.CharField(max_length=32, primary_key=True)
    value = models.BigIntegerField(default=0)


class InvoiceState(models.TextChoices):
    DRAFT = "draft"
    FINAL = "final"
    OVERDUE = "overdue"
    PAID = "paid"


class Invoice(BaseModel):
    """A month of a tenant. A draft is rated anew until it is final; from then on it is fixed."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="invoices")
    number = models.CharField(max_length=32, blank=True)
    state = models.CharField(max_length=8, choices=InvoiceState.choices, default=InvoiceState.DRAFT)
    period_start = models.DateTimeField()
    period_stop = models.DateTimeField()
    currency = models.CharField(max_length=3)
    total_micros = models.BigIntegerField(default=0)
    applied_micros = models.BigIntegerField(default=0)
    credited_micros = models.BigIntegerField(default=0)
    paid_micros = models.BigIntegerField(default=0)
    finalised_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(null=True, blank=True)
    overdue_at = models.DateTimeField(null=True, blank=True)
    paid_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "period_start"], name="invoice_month_is_unique"
            ),
            models.UniqueConstraint(
                fields=["number"], condition=~models.Q(number=""), name="invoice_number_is_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(state="draft", number="", finalised_at__isnull=True)
                | (~models.Q(state="draft") & ~models.Q(number="")
                   & models.Q(finalised_at__isnull=False)),
                name="invoice_number_comes_with_being_final",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=InvoiceState.values), name="invoice_state_is_known"
            ),
        ]  # fmt: skip
        indexes = [models.Index(fields=["state", "due_at"], name="invoice_by_due_time")]

    @property
    def due_micros(self) -> int:
        """What is still to be paid; less than a cent is not asked for."""
        open_micros = (
            self.total_micros - self.applied_micros - self.credited_micros - self.paid_micros
        )
        return max(open_micros, 0)


class InvoiceLine(models.Model):
    """One meter of one instance in one plan under one price list, rounded once.

    `quantity` was measured, `billable_quantity` is what of it has a price; `is_late` was found in
    a month that was invoiced already.
    """

    id = models.BigAutoField(primary_key=True)
    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="lines")
    instance_id = models.UUIDField()
    instance = models.CharField(max_length=40)
    engine = models.CharField(max_length=32)
    region = models.CharField(max_length=40)
    tags = models.JSONField(default=dict)
    plan = models.CharField(max_length=32)
    meter = models.CharField(max_length=16, choices=Meter.choices)
    unit = models.CharField(max_length=32)
    price_list = models.PositiveIntegerField()
    micros = models.BigIntegerField()
    per = models.BigIntegerField()
    start = models.DateTimeField()
    stop = models.DateTimeField()
    # Byte-hours of a large instance outgrow 64 bits within a month.
    quantity = models.DecimalField(max_digits=30, decimal_places=0)
    billable_quantity = models.DecimalField(max_digits=30, decimal_places=0)
    amount_micros = models.BigIntegerField()
    is_late = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["invoice", "instance_id", "plan", "meter", "start"],
                name="invoice_line_is_unique",
            )
        ]


class Payment(BaseModel):
    """Money that came in for an invoice; `reference` is the bank's, and makes it count once."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="payments")
    amount_micros = models.BigIntegerField()
    reference = models.CharField(max_length=80)
    received_at = models.DateTimeField(default=timezone.now)
    recorded_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["invoice", "reference"], name="payment_reference_is_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(amount_micros__gt=0), name="payment_is_positive"
            ),
        ]


class CreditNote(BaseModel):
    """What of an invoice is taken back; `reference` makes it count once."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="credit_notes")
    number = models.CharField(max_length=32, unique=True)
    amount_micros = models.BigIntegerField()
    reference = models.CharField(max_length=80)
    reason = models.CharField(max_length=300)
    recorded_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["invoice", "reference"], name="credit_note_reference_is_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(amount_micros__gt=0), name="credit_note_is_positive"
            ),
        ]


class Operator(BaseModel):
    """A person of the platform's staff: records payments and credit notes, publishes prices."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="billing_operator")


class QuotaState(BaseModel):
    """An instance that is near or over its storage quota; rows go when it is well below again."""

    instance_id = models.UUIDField(unique=True)
    level = models.PositiveSmallIntegerField(default=0)  # the highest notice that was given
    over_since = models.DateTimeField(null=True, blank=True)
    refused_since = models.DateTimeField(null=True, blank=True)


class BudgetScope(models.TextChoices):
    TENANT = "tenant"
    INSTANCE = "instance"
    TAG = "tag"


class Budget(BaseModel):
    """An amount for each month, of a tenant, an instance, or all instances with a tag."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="budgets")
    name = models.CharField(max_length=80)
    scope = models.CharField(max_length=8, choices=BudgetScope.choices)
    instance_id = models.UUIDField(null=True, blank=True)
    instance = models.CharField(max_length=40, blank=True)
    tag_key = models.CharField(max_length=64, blank=True)
    tag_value = models.CharField(max_length=128, blank=True)
    amount_micros = models.BigIntegerField(validators=[MinValueValidator(1)])
    thresholds = ArrayField(
        models.PositiveSmallIntegerField(
            validators=[MinValueValidator(1), MaxValueValidator(1000)]
        ),
        size=10,
    )
    # As of the last look: the running month's spend, and what it will be at its end.
    spent_micros = models.BigIntegerField(default=0)
    forecast_micros = models.BigIntegerField(default=0)
    looked_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="budget_name_is_unique"),
            models.CheckConstraint(
                condition=models.Q(amount_micros__gt=0), name="budget_is_positive"
            ),
            models.CheckConstraint(
                condition=models.Q(scope="tenant", instance_id__isnull=True, tag_key="")
                | models.Q(scope="instance", instance_id__isnull=False, tag_key="")
                | (models.Q(scope="tag", instance_id__isnull=True) & ~models.Q(tag_key="")),
                name="budget_scope_has_its_fields",
            ),
        ]


class BudgetAlert(models.Model):
    """That a threshold of a budget was passed in a month: the alert is given once."""

    id = models.BigAutoField(primary_key=True)
    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="alerts")
    month = models.DateTimeField()
    threshold = models.PositiveSmallIntegerField()
    is_forecast = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["budget", "month", "threshold", "is_forecast"],
                name="budget_alert_is_given_once",
            )
        ]


class Notice(BaseModel):
    """Something about money or quotas that a tenant is told, in the console and by mail.

    Open until `resolved_at`: what it says does not hold any more.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=40)
    subject_id = models.UUIDField(null=True, blank=True)  # the instance, invoice or budget
    title = models.CharField(max_length=200)
    text = models.CharField(max_length=1000)
    data = models.JSONField(default=dict)
    resolved_at = models.DateTimeField(null=True, blank=True)
    # When the last of its mails went out.
    mailed_at = models.DateTimeField(null=True, blank=True)
    is_addressed = models.BooleanField(default=False)

    class Meta:
        indexes = [
            models.Index(
                fields=["id"],
                condition=models.Q(is_addressed=False),
                name="notice_to_address",
            ),
            models.Index(fields=["tenant", "resolved_at"], name="notice_by_tenant"),
        ]


class NoticeMail(BaseModel):
    """A notice on its way to one reader.

    Claimed before it is sent, so that it goes once. One that stays claimed and never becomes sent
    was taken by a worker that died, or by a mail server that did not answer: nobody knows, and it
    is not sent again.
    """

    notice = models.ForeignKey(Notice, on_delete=models.CASCADE, related_name="mails")
    email = models.EmailField()
    claimed_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    send_after = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["notice", "email"], name="notice_mail_is_one")
        ]
        indexes = [
            models.Index(
                fields=["send_after"],
                condition=models.Q(claimed_at__isnull=True, sent_at__isnull=True),
                name="notice_mail_to_send",
            )
        ]

"""REST: what the platform's staff does: invoices of all tenants, payments, credit notes, prices.

For anybody else these addresses do not exist. What is done to a tenant's money is in its audit.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.accounts.models import Tenant, User
from tenants.api.audited import asked_of
from tenants.api.idempotency import idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import ServiceApi
from tenants.audit.services import audit_write
from tenants.billing import invoices, prices, selectors
from tenants.billing.apis import (
    AMOUNT_MAX,
    CreditNoteOutput,
    InvoiceOutput,
    PaymentOutput,
    PriceListOutput,
)
from tenants.billing.arrears import collection_set
from tenants.billing.models import Collection, Invoice, InvoiceState, Meter, Operator
from tenants.core.errors import NotFoundError


class TenantInvoiceOutput(InvoiceOutput):
    tenant = serializers.CharField(source="tenant.handle")

    class Meta(InvoiceOutput.Meta):
        fields = ["tenant", *InvoiceOutput.Meta.fields]


class StateInput(serializers.Serializer[Any]):
    state = serializers.ChoiceField(InvoiceState.choices, required=False)


class PaymentInput(serializers.Serializer[Any]):
    amount_micros = serializers.IntegerField(min_value=1, max_value=AMOUNT_MAX)
    reference = serializers.CharField(max_length=80, help_text="The bank's; it counts once.")


class CreditNoteInput(PaymentInput):
    reason = serializers.CharField(max_length=300)


class PriceInput(serializers.Serializer[Any]):
    plan = serializers.CharField(max_length=32)
    meter = serializers.ChoiceField(Meter.choices)
    unit = serializers.CharField(max_length=32)
    micros = serializers.IntegerField(min_value=0, max_value=10**15)
    per = serializers.IntegerField(min_value=1, max_value=2**60)
    included = serializers.IntegerField(min_value=0, max_value=2**60, default=0)


class PriceListInput(serializers.Serializer[Any]):
    valid_from = serializers.DateTimeField(help_text="A whole hour that is still to come.")
    prices = serializers.ListField(child=PriceInput(), min_length=1, max_length=500)


class AccountChange(serializers.Serializer[Any]):
    collection = serializers.ChoiceField(Collection.choices)


class OperatorApi(ServiceApi):
    """An endpoint for the platform's staff. A key is a tenant's, so it is nobody's here."""

    operator: str

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        user = request.user
        # A person in a session of their own: a token is a tenant's.
        if not isinstance(user, User) or request.auth is not None:
            raise NotFoundError("there is nothing here")
        if not Operator.objects.filter(user=user).exists():
            raise NotFoundError("there is nothing here")
        self.operator = f"operator:{user.email}"

    def note(self, tenant: Tenant | None, action: str, target: str, response: Response) -> Response:
        """Write the event of what was done; return the answer."""
        audit_write(
            tenant_id=tenant.pk if tenant else None,
            action=action,
            initiator=self.operator,
            target=target,
            reason_code=response.status_code,
            asked=asked_of(self.request, response),
        )
        return response


class OperatorInvoiceListApi(OperatorApi):
    @extend_schema(
        operation_id="operator_invoice_list",
        parameters=[StateInput],
        responses=TenantInvoiceOutput(many=True),
    )
    def get(self, request: Request) -> Response:
        """List the invoices of all tenants."""
        found = Invoice.objects.filter(**self.query(StateInput)).select_related("tenant")
        return self.page(found, TenantInvoiceOutput)


class OperatorPaymentApi(OperatorApi):
    @extend_schema(
        operation_id="operator_payment_record",
        request=PaymentInput,
        responses={201: PaymentOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, invoice_id: UUID) -> Response:
        """Record money that came in for an invoice; in arrears, it lifts them within a second."""
        invoice = _invoice(invoice_id)
        payment = invoices.payment_record(
            invoice=invoice, actor=self.operator, **self.validated(PaymentInput)
        )
        answer = Response(PaymentOutput(payment).data, status=201)
        return self.note(invoice.tenant, "weftkit.invoice.pay", f"invoices/{invoice.pk}", answer)


class OperatorCreditNoteApi(OperatorApi):
    @extend_schema(
        operation_id="operator_credit_note_create",
        request=CreditNoteInput,
        responses={201: CreditNoteOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, invoice_id: UUID) -> Response:
        """Take back a part of an invoice."""
        invoice = _invoice(invoice_id)
        note = invoices.credit_note_create(
            invoice=invoice, actor=self.operator, **self.validated(CreditNoteInput)
        )
        answer = Response(CreditNoteOutput(note).data, status=201)
        target = f"invoices/{invoice.pk}"
        return self.note(invoice.tenant, "weftkit.credit-note.create", target, answer)


class OperatorPriceListApi(OperatorApi):
    @extend_schema(
        operation_id="operator_price_list_publish",
        request=PriceListInput,
        responses={201: PriceListOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Publish the next price list; it holds from `valid_from` on and replaces all prices."""
        made = prices.price_list_publish(**self.validated(PriceListInput))
        answer = Response(PriceListOutput(made).data, status=201)
        return self.note(None, "weftkit.price-list.create", f"price-lists/{made.version}", answer)


class OperatorAccountApi(OperatorApi):
    @extend_schema(
        operation_id="operator_account_change",
        request=AccountChange,
        responses={204: None},
        parameters=[OpenApiParameter("handle", str, OpenApiParameter.PATH)],
    )
    def patch(self, request: Request, handle: str) -> Response:
        """Say whether a tenant pays its invoices or is only shown its costs."""
        tenant = Tenant.objects.filter(handle=handle).first()
        if tenant is None:
            raise NotFoundError("there is no such tenant")
        chosen = Collection(self.validated(AccountChange)["collection"])
        collection_set(tenant=tenant, collection=chosen)
        return self.note(tenant, "weftkit.account.update", "billing", Response(status=204))


def _invoice(invoice_id: UUID) -> Invoice:
    found = selectors.invoice_any(invoice_id=invoice_id)
    if found is None:
        raise NotFoundError("there is no such invoice")
    return found

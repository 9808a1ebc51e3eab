"""Celery: close months, follow overdue invoices, quotas and budgets, mail notices."""

from __future__ import annotations

from celery import shared_task

from tenants.billing import arrears, budgets, invoices, notices, quotas


@shared_task(name="billing.close_months")
def billing_close_months() -> None:
    invoices.months_close()


@shared_task(name="billing.follow_overdue")
def billing_follow_overdue() -> None:
    arrears.overdue_follow()


@shared_task(name="billing.follow_quotas")
def billing_follow_quotas() -> None:
    quotas.quotas_follow()


@shared_task(name="billing.follow_budgets")
def billing_follow_budgets() -> None:
    budgets.budgets_follow()


@shared_task(name="billing.mail_notices")
def billing_mail_notices() -> None:
    notices.notices_mail()

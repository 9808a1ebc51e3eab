"""Celery: forget sessions and counted sign-ins whose time is over."""

from __future__ import annotations

from celery import shared_task

from tenants.accounts import sign_ins


@shared_task(name="accounts.forget_sign_ins")
def accounts_forget_sign_ins() -> None:
    sign_ins.sign_ins_forget()

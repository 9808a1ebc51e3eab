"""Celery: mail invitations; forget sessions and counted sign-ins whose time is over."""

from __future__ import annotations

from celery import shared_task

from tenants.accounts import invitations, sign_ins


@shared_task(name="accounts.forget_sign_ins")
def accounts_forget_sign_ins() -> None:
    sign_ins.sign_ins_forget()


@shared_task(name="accounts.mail_invitations")
def accounts_mail_invitations() -> None:
    invitations.invitations_mail()

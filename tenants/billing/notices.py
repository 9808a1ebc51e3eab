"""Writes: what a tenant is told about money and quotas: a row for the console, mail, a webhook.

A row is written in the transaction of what it tells; mail goes out afterwards, once to each reader.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from smtplib import SMTPRecipientsRefused, SMTPResponseException
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import transaction
from django.utils import timezone

from tenants.accounts.models import MemberRole, Membership
from tenants.billing.models import Notice, NoticeMail
from tenants.webhooks.services import webhook_emit

log = structlog.get_logger(__name__)

# What a notice's kind begins with -> the type of the webhook's event; "" is the kind itself.
EVENT_TYPES: Mapping[str, str] = {
    "arrears": "account.arrears",
    "budget": "budget.alert",
    "invoice": "",
    "quota": "quota.notice",
}
READERS = (MemberRole.OWNER, MemberRole.ADMIN, MemberRole.BILLING)
MAIL_ATTEMPTS_MAX = 10
MAIL_PAUSE = timedelta(minutes=1)


def notice_write(
    *,
    tenant_id: UUID,
    kind: str,
    title: str,
    text: str,
    subject_id: UUID | None = None,
    data: Mapping[str, Any] | None = None,
    is_open: bool = True,
) -> Notice:
    """Tell a tenant something, in the transaction of what is told."""
    told = dict(data or {})
    event_type = EVENT_TYPES[kind.partition(".")[0]] or kind
    webhook_emit(tenant=tenant_id, event_type=event_type, data={"kind": kind, **told})
    return Notice.objects.create(
        tenant_id=tenant_id,
        kind=kind,
        subject_id=subject_id,
        title=title,
        text=text,
        data=told,
        resolved_at=None if is_open else timezone.now(),
    )


def notices_resolve(
    *, tenant_id: UUID, kinds: Iterable[str], subject_id: UUID | None = None
) -> int:
    """Note that what was told does not hold any more; return how many notices said it."""
    return Notice.objects.filter(
        tenant_id=tenant_id, kind__in=list(kinds), subject_id=subject_id, resolved_at=None
    ).update(resolved_at=timezone.now())


def notices_mail(*, now: datetime | None = None) -> int:
    """Send what was not mailed yet; return how many mails. May run beside itself.

    Each reader's mail is claimed before it is sent, so it goes at most once: whoever may have been
    told is not told again. A server that refuses, or is away, is asked again with growing pauses.
    """
    moment = now or timezone.now()
    while _address_one(moment):
        pass
    sent = 0
    while (mail := _claim_one(moment)) is not None:
        sent += _send(mail, moment)
    return sent


@transaction.atomic
def _address_one(now: datetime) -> bool:
    """Say to whom a notice goes: to those who may read it now."""
    waiting = Notice.objects.filter(is_addressed=False)
    notice = waiting.select_for_update(skip_locked=True).order_by("id").first()
    if notice is None:
        return False
    readers = Membership.objects.filter(
        tenant_id=notice.tenant_id, role__in=READERS, user__is_active=True
    ).values_list("user__email", flat=True)
    NoticeMail.objects.bulk_create(
        NoticeMail(notice=notice, email=reader, send_after=now) for reader in readers
    )
    notice.is_addressed = True
    notice.save(update_fields=["is_addressed", "updated_at"])
    return True


@transaction.atomic
def _claim_one(now: datetime) -> NoticeMail | None:
    waiting = NoticeMail.objects.filter(
        claimed_at=None, sent_at=None, send_after__lte=now, attempts__lt=MAIL_ATTEMPTS_MAX
    )
    mail = (
        waiting.select_for_update(of=("self",), skip_locked=True)
        .select_related("notice")
        .order_by("notice_id", "email")
        .first()
    )
    if mail is not None:
        mail.claimed_at = now
        mail.save(update_fields=["claimed_at", "updated_at"])
    return mail


def _send(mail: NoticeMail, now: datetime) -> int:
    """Send what was claimed; return 1 if it went, 0 if not or if nobody knows."""
    notice = mail.notice
    try:
        server = get_connection()
        server.open()
    except OSError as error:  # smtplib's errors are OSErrors too
        _release(mail, now, error)
        return 0
    try:
        EmailMessage(
            " ".join(f"[WeftKit] {notice.title}".split()),  # a subject is one line
            f"{notice.text}\n\n{settings.CONSOLE_URL}\n",
            to=[mail.email],
            connection=server,
        ).send()
    except (SMTPResponseException, SMTPRecipientsRefused) as error:
        _release(mail, now, error)
        return 0
    except OSError as error:
        log.warning("a notice was mailed or not", mail=str(mail.pk), error=str(error))
        return 0
    finally:
        _close(server)
    _sent(mail, now)
    return 1


def _release(mail: NoticeMail, now: datetime, error: OSError) -> None:
    """Give a claim back: the mail did not go."""
    mail.claimed_at = None
    mail.attempts += 1
    mail.send_after = now + MAIL_PAUSE * 2**mail.attempts
    mail.save(update_fields=["claimed_at", "attempts", "send_after", "updated_at"])
    log.warning("a notice could not be mailed", mail=str(mail.pk), error=str(error))


@transaction.atomic
def _sent(mail: NoticeMail, now: datetime) -> None:
    """Note that a mail went; with the last one of a notice, that the notice did."""
    notice = Notice.objects.select_for_update().get(pk=mail.notice_id)
    NoticeMail.objects.filter(pk=mail.pk).update(sent_at=now, updated_at=timezone.now())
    if not notice.mails.filter(sent_at=None).exists():
        notice.mailed_at = now
        notice.save(update_fields=["mailed_at", "updated_at"])


def _close(server: Any) -> None:
    with contextlib.suppress(OSError):
        server.close()

"""Writes: what a tenant is told about money and quotas: a row for the console, mail, a webhook.

A row is written in the transaction of what it tells; mail goes out afterwards, at least once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.utils import timezone

from tenants.accounts.models import MemberRole, Membership
from tenants.billing.models import Notice
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
    """Send what was not mailed yet; return how many notices. May run beside itself.

    A server that refuses is asked again, with growing pauses; killed between sending and noting it,
    a worker's mail goes out twice.
    """
    sent = 0
    while _mail_one(now or timezone.now()):
        sent += 1
    return sent


@transaction.atomic
def _mail_one(now: datetime) -> bool:
    waiting = Notice.objects.filter(
        mailed_at=None, mail_after__lte=now, mail_attempts__lt=MAIL_ATTEMPTS_MAX
    )
    notice = waiting.select_for_update(skip_locked=True).order_by("id").first()
    if notice is None:
        return False
    readers = Membership.objects.filter(
        tenant_id=notice.tenant_id, role__in=READERS, user__is_active=True
    ).values_list("user__email", flat=True)
    try:
        for reader in readers.order_by("user__email"):
            send_mail(
                " ".join(f"[WeftKit] {notice.title}".split()),  # a subject is one line
                f"{notice.text}\n\n{settings.CONSOLE_URL}\n",
                None,
                [reader],
            )
        notice.mailed_at = now
    except OSError as error:
        # smtplib's errors are OSErrors too.
        notice.mail_attempts += 1
        notice.mail_after = now + MAIL_PAUSE * 2**notice.mail_attempts
        log.warning("a notice could not be mailed", notice=str(notice.pk), error=str(error))
    notice.save(update_fields=["mailed_at", "mail_attempts", "mail_after", "updated_at"])
    return True

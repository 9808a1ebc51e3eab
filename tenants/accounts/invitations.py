"""Writes: invitations into a tenant, mailed as links that work once and for a week.

A link's token is derived, not kept: nothing in the database opens it. Only the mail holds the link,
so who opens it reads the mail of the invited address, and the address counts as verified.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from allauth.account.models import EmailAddress
from celery import current_app
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac

from tenants.accounts.actors import Actor
from tenants.accounts.models import Invitation, MemberRole, Membership, Tenant, User
from tenants.audit.services import audit_write
from tenants.core.errors import (
    ConflictError,
    ForbiddenError,
    LimitError,
    NotFoundError,
    TooManyError,
    invalid_field,
)
from tenants.webhooks.services import webhook_emit

log = structlog.get_logger(__name__)

OPEN_PER_TENANT_MAX = 100
# Whoever can invite can have mail sent to strangers: so many a day, and so often each.
CREATED_PER_DAY_MAX = 200
SENT_MAX = 10
RESEND_PAUSE = timedelta(minutes=1)
DAY = timedelta(days=1)
MAIL_ATTEMPTS_MAX = 10
MAIL_PAUSE = timedelta(minutes=1)
SALT = "weftkit.invitation"
MAIL = "accounts.mail_invitations"

TEXT = """{invited_by} invites you to {tenant} at WeftKit, as {role}.

Accept within {days} days:
{link}

If you do not know them, do nothing.
"""


@transaction.atomic
def invitation_create(*, actor: Actor, email: str, role: MemberRole) -> Invitation:
    """Invite an address; the mail goes out once the transaction is committed."""
    actor.demand_may_grant(role)
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError as error:
        raise invalid_field("email", "this is no e-mail address") from error
    Tenant.objects.select_for_update().get(pk=actor.tenant.pk)
    if Membership.objects.filter(tenant=actor.tenant, user__email=email).exists():
        raise ConflictError("this person is a member already", code="member_exists")
    known = _unended(actor.tenant)
    now = timezone.now()
    # One that expired makes room for its successor.
    known.filter(email=email, expires_at__lte=now).update(revoked_at=now)
    if known.filter(expires_at__gt=now).count() >= OPEN_PER_TENANT_MAX:
        raise LimitError(f"a tenant has up to {OPEN_PER_TENANT_MAX} open invitations")
    lately = Invitation.objects.filter(tenant=actor.tenant, created_at__gt=now - DAY)
    if lately.count() >= CREATED_PER_DAY_MAX:
        wait = int(DAY.total_seconds() / 24)
        raise TooManyError(f"up to {CREATED_PER_DAY_MAX} invitations a day", retry_after_s=wait)
    try:
        with transaction.atomic():
            made = Invitation.objects.create(
                tenant=actor.tenant,
                email=email,
                role=role,
                invited_by=actor.name,
                expires_at=now + settings.INVITATION_LIFE,
            )
    except IntegrityError as error:
        raise ConflictError("this address is invited already", code="invitation_exists") from error
    _mail_soon()
    return made


@transaction.atomic
def invitation_resend(*, actor: Actor, invitation: Invitation) -> Invitation:
    """Mail a new link, which lasts a week again; the old one ends."""
    invitation = _locked_open(invitation)
    actor.demand_may_grant(MemberRole(invitation.role))
    if invitation.serial >= SENT_MAX:
        raise LimitError(f"it was sent {SENT_MAX} times: revoke it and invite again")
    now = timezone.now()
    sent_at = invitation.mailed_at or invitation.created_at
    if now - sent_at < RESEND_PAUSE:
        wait = int((RESEND_PAUSE - (now - sent_at)).total_seconds()) + 1
        raise TooManyError("it was sent a moment ago", retry_after_s=wait)
    invitation.serial += 1
    invitation.expires_at = now + settings.INVITATION_LIFE
    invitation.mailed_at, invitation.mail_attempts, invitation.mail_after = None, 0, now
    invitation.save()
    _mail_soon()
    return invitation


@transaction.atomic
def invitation_revoke(*, actor: Actor, invitation: Invitation) -> None:
    """End an invitation: its link opens nothing any more."""
    invitation = _locked_open(invitation)
    actor.demand_may_grant(MemberRole(invitation.role))
    invitation.revoked_at = timezone.now()
    invitation.save(update_fields=["revoked_at", "updated_at"])


def invitation_find(*, invitation_id: UUID, token: str) -> Invitation:
    """Return the open invitation that a link names; NotFoundError for every other link."""
    found = Invitation.objects.select_related("tenant").filter(pk=invitation_id).first()
    if found is None or found.state != "open" or not constant_time_compare(_token(found), token):
        raise NotFoundError("this invitation does not hold any more")
    return found


@transaction.atomic
def invitation_accept(
    *, invitation: Invitation, user: User, token: str, request_id: str = "", address: str = ""
) -> Membership:
    """Make `user`, whose address was invited, a member; the link has been used then."""
    Tenant.objects.select_for_update().get(pk=invitation.tenant_id)
    invitation = _locked_open(invitation_find(invitation_id=invitation.pk, token=token))
    if user.email != invitation.email:
        raise ForbiddenError(f"the invitation is for {invitation.email}", code="other_address")
    try:
        with transaction.atomic():
            EmailAddress.objects.update_or_create(
                user=user, email=user.email, defaults={"verified": True, "primary": True}
            )
            membership = Membership.objects.create(
                tenant=invitation.tenant, user=user, role=invitation.role
            )
    except IntegrityError as error:
        raise ConflictError("you are a member already", code="member_exists") from error
    invitation.accepted_at = timezone.now()
    invitation.save(update_fields=["accepted_at", "updated_at"])
    audit_write(
        tenant_id=invitation.tenant_id,
        action="weftkit.invitation.accept",
        initiator=f"user:{user.email}",
        target=f"invitations/{invitation.pk}",
        request_id=request_id,
        address=address,
    )
    webhook_emit(
        tenant=invitation.tenant_id,
        event_type="member.added",
        data={"email": user.email, "role": membership.role},
    )
    return membership


@transaction.atomic
def invitation_accept_as_new(
    *,
    invitation: Invitation,
    token: str,
    name: str,
    password: str,
    request_id: str = "",
    address: str = "",
) -> User:
    """Make the invited person's account and accept with it."""
    invitation = invitation_find(invitation_id=invitation.pk, token=token)
    try:
        user = User.objects.create_user(invitation.email, password, name=name)
    except (IntegrityError, ValidationError) as error:
        raise ConflictError("this address has an account: sign in", code="user_exists") from error
    invitation_accept(
        invitation=invitation, user=user, token=token, request_id=request_id, address=address
    )
    return user


def invitation_link(invitation: Invitation) -> str:
    """Return the address that the mail holds, and nothing else may show."""
    path = reverse("console:invitation", args=[invitation.pk, _token(invitation)])
    return f"{settings.CONSOLE_URL}{path}"


def invitations_mail(*, now: datetime | None = None) -> int:
    """Mail what was not mailed yet; return how many. May run beside itself, and be killed.

    A worker that is killed between sending and noting it sends the same link twice.
    """
    sent = 0
    while _mail_one(now or timezone.now()):
        sent += 1
    return sent


@transaction.atomic
def _mail_one(now: datetime) -> bool:
    waiting = Invitation.objects.filter(
        accepted_at=None,
        revoked_at=None,
        mailed_at=None,
        expires_at__gt=now,
        mail_after__lte=now,
        mail_attempts__lt=MAIL_ATTEMPTS_MAX,
    )
    found = waiting.select_for_update(skip_locked=True, of=("self",)).order_by("id").first()
    if found is None:
        return False
    tenant = " ".join(found.tenant.name.split())  # a subject is one line
    try:
        send_mail(
            f"[WeftKit] {tenant} invites you",
            TEXT.format(
                invited_by=found.invited_by.removeprefix("user:"),
                tenant=tenant,
                role=found.role,
                days=settings.INVITATION_LIFE.days,
                link=invitation_link(found),
            ),
            None,
            [found.email],
        )
        found.mailed_at = now
    except OSError as error:  # smtplib's errors are OSErrors too
        found.mail_attempts += 1
        found.mail_after = now + MAIL_PAUSE * 2**found.mail_attempts
        log.warning("an invitation could not be mailed", id=str(found.pk), error=str(error))
    found.save(update_fields=["mailed_at", "mail_attempts", "mail_after", "updated_at"])
    return True


def _mail_soon() -> None:
    def send() -> None:
        current_app.send_task(MAIL, retry=False, expires=60)

    transaction.on_commit(send, robust=True)


def _unended(tenant: Tenant) -> QuerySet[Invitation]:
    return Invitation.objects.filter(tenant=tenant, accepted_at=None, revoked_at=None)


def _locked_open(invitation: Invitation) -> Invitation:
    found = (
        Invitation.objects.select_for_update(of=("self",))
        .select_related("tenant")
        .get(pk=invitation.pk)
    )
    if found.accepted_at is not None or found.revoked_at is not None:
        raise ConflictError(f"the invitation is {found.state}", code="invitation_ended")
    return found


def _token(invitation: Invitation) -> str:
    value = f"{invitation.pk}:{invitation.serial}"
    return salted_hmac(SALT, value, algorithm="sha256").hexdigest()

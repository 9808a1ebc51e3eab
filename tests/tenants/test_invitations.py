"""Invitations: a mailed link that works once, for the invited address, for a week."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.core.mail.backends import locmem
from django.test import Client
from django.utils import timezone

from tenants.accounts.invitations import (
    CREATED_PER_DAY_MAX,
    OPEN_PER_TENANT_MAX,
    SENT_MAX,
    invitation_accept,
    invitation_create,
    invitation_find,
    invitation_link,
    invitation_resend,
    invitation_revoke,
    invitations_mail,
)
from tenants.accounts.models import Invitation, MemberRole, Membership, Tenant, User
from tenants.audit.models import AuditEvent
from tenants.core.errors import (
    ConflictError,
    InvalidError,
    LimitError,
    NotFoundError,
    TooManyError,
)
from tests.tenants.cast import PASSWORD, Cast, person, side_by_side, signed_in

ERIN = "erin@example.org"
NEW_PASSWORD = "a long and quiet evening"
LIST = "/api/v1/tenants/acme/invitations"


def invite(cast: Cast, email: str = ERIN, role: MemberRole = MemberRole.MEMBER) -> Invitation:
    return invitation_create(actor=cast.owner, email=email, role=role)


def path_of(invitation: Invitation) -> str:
    return urlsplit(invitation_link(invitation)).path


def test_an_invitation_is_mailed_once_and_its_link_is_nowhere_else(cast: Cast) -> None:
    answer = signed_in(cast.alice).post(
        LIST, {"email": "Erin@Example.org", "role": "member"}, "application/json"
    )
    assert (answer.status_code, answer.json()["state"]) == (201, "open")
    assert (invitations_mail(), invitations_mail()) == (1, 0)
    (letter,) = mail.outbox
    assert letter.to == [ERIN]
    invitation = Invitation.objects.get()
    link = invitation_link(invitation)
    assert link in letter.body
    token = link.rsplit("/", 1)[1]
    assert token not in answer.content.decode()
    assert token not in str(Invitation.objects.values().get())


def test_a_mail_server_that_is_away_is_asked_again_later(cast: Cast, settings: Any) -> None:
    invite(cast)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1  # nobody listens
    assert invitations_mail() == 1
    waiting = Invitation.objects.get()
    assert (waiting.mailed_at, waiting.mail_attempts) == (None, 1)
    settings.EMAIL_BACKEND = f"{locmem.__name__}.EmailBackend"
    assert invitations_mail() == 0
    assert invitations_mail(now=waiting.mail_after) == 1
    assert len(mail.outbox) == 1


def test_a_new_person_accepts_with_an_account_made_on_the_spot(cast: Cast) -> None:
    path = path_of(invite(cast))
    client = Client()
    assert b"Join acme" in client.get(path).content
    weak = client.post(path, {"name": "Erin", "password": "password"})
    assert weak.status_code == 422
    answer = client.post(path, {"name": "Erin", "password": NEW_PASSWORD})
    assert answer["Location"] == "/t/acme/"
    assert client.get("/t/acme/").status_code == 200
    erin = User.objects.get(email=ERIN)
    assert EmailAddress.objects.get(user=erin).verified
    assert Membership.objects.get(user=erin).role == MemberRole.MEMBER
    assert Client().get(path).status_code == 404
    accepted = AuditEvent.objects.get(body__action="weftkit.invitation.accept")
    assert accepted.tenant_id == cast.acme.pk


def test_an_existing_person_signs_in_and_accepts(cast: Cast) -> None:
    path = path_of(invite(cast, cast.charlie.email))
    client = Client()
    assert b"sign in to accept" in client.get(path).content
    assert client.post(path, {"password": NEW_PASSWORD}).status_code == 409
    words = {"login": cast.charlie.email, "password": PASSWORD, "next": path}
    assert client.post("/sign-in", words)["Location"] == path
    assert client.post(path)["Location"] == "/t/acme/"
    assert client.get("/t/acme/").status_code == 200
    assert client.get("/t/globex/").status_code == 200


def test_somebody_else_cannot_accept(cast: Cast) -> None:
    path = path_of(invite(cast))
    charlie = signed_in(cast.charlie)
    assert b"signed in as charlie@example.org" in charlie.get(path).content
    assert charlie.post(path).status_code == 403
    assert not Membership.objects.filter(user=cast.charlie, tenant=cast.acme).exists()


@pytest.mark.parametrize("end", ["revoked", "expired", "resent", "guessed"])
def test_a_link_that_ended_opens_nothing(cast: Cast, end: str) -> None:
    invitation = invite(cast)
    path = path_of(invitation)
    if end == "revoked":
        invitation_revoke(actor=cast.owner, invitation=invitation)
    elif end == "expired":
        Invitation.objects.update(expires_at=timezone.now())
    elif end == "resent":
        Invitation.objects.update(serial=2)
    else:
        path = path[:-1] + ("0" if path[-1] != "0" else "1")
    assert Client().get(path).status_code == 404
    assert Client().post(path, {"password": NEW_PASSWORD}).status_code == 404
    assert not User.objects.filter(email=ERIN).exists()


def test_sending_again_makes_a_new_link_and_not_at_once(cast: Cast) -> None:
    invitation = invite(cast)
    old = path_of(invitation)
    alice = signed_in(cast.alice)
    again = f"{LIST}/{invitation.pk}/resend"
    early = alice.post(again)
    assert (early.status_code, early.json()["code"]) == (429, "too_many_requests")
    Invitation.objects.update(created_at=timezone.now() - timedelta(minutes=2))
    assert alice.post(again).status_code == 200
    invitation.refresh_from_db()
    assert Client().get(old).status_code == 404
    assert Client().get(path_of(invitation)).status_code == 200


def test_two_who_accept_at_once_make_one_member(lasting_cast: Cast) -> None:
    invitation = invite(lasting_cast)
    erin = person("erin")
    token = invitation_link(invitation).rsplit("/", 1)[1]
    outcomes = side_by_side(
        *[lambda: invitation_accept(invitation=invitation, user=erin, token=token)] * 2
    )
    assert sorted(type(each).__name__ for each in outcomes) in (
        ["ConflictError", "Membership"],
        ["Membership", "NotFoundError"],
    )
    assert Membership.objects.filter(user=erin).count() == 1


def test_what_cannot_be_invited(cast: Cast) -> None:
    with pytest.raises(ConflictError) as member:
        invite(cast, cast.bob.email)
    assert member.value.code == "member_exists"
    with pytest.raises(InvalidError):
        invite(cast, "no address")
    first = invite(cast)
    with pytest.raises(ConflictError) as twice:
        invite(cast)
    assert twice.value.code == "invitation_exists"
    Invitation.objects.filter(pk=first.pk).update(expires_at=timezone.now())
    assert invite(cast).state == "open"
    with pytest.raises(NotFoundError):
        invitation_find(invitation_id=first.pk, token="x")


def test_a_tenant_has_so_many_open_invitations_and_no_more(cast: Cast) -> None:
    for index in range(OPEN_PER_TENANT_MAX):
        invite(cast, f"p{index}@example.org")
    with pytest.raises(LimitError):
        invite(cast)


def test_the_members_page_invites_and_shows_who_waits(cast: Cast) -> None:
    alice = signed_in(cast.alice)
    alice.post("/t/acme/members", {"email": ERIN, "role": "auditor"})
    page = alice.get("/t/acme/members").content.decode()
    assert ERIN in page
    assert ">open</span>" in page
    assert ERIN not in signed_in(cast.bob).get("/t/acme/members").content.decode()
    invitation = Invitation.objects.get()
    alice.post(f"/t/acme/members/invitations/{invitation.pk}", {"wish": "revoke"})
    assert Invitation.objects.get().state == "revoked"


def test_mail_to_strangers_is_bounded(cast: Cast) -> None:
    for index in range(CREATED_PER_DAY_MAX):
        invitation_revoke(actor=cast.owner, invitation=invite(cast, f"p{index}@example.org"))
    with pytest.raises(TooManyError):
        invite(cast)
    Invitation.objects.update(created_at=timezone.now() - timedelta(days=1))
    again = invite(cast)
    Invitation.objects.filter(pk=again.pk).update(
        serial=SENT_MAX, created_at=timezone.now() - timedelta(minutes=2)
    )
    with pytest.raises(LimitError):
        invitation_resend(actor=cast.owner, invitation=again)


def test_a_tenants_name_is_one_line_and_none_stops_the_mail(cast: Cast) -> None:
    answer = signed_in(cast.alice).patch(
        "/api/v1/tenants/acme", {"name": "Acme\nBcc: all"}, "application/json"
    )
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["name"])
    Tenant.objects.filter(pk=cast.acme.pk).update(name="Acme\nBcc: all")
    invite(cast)
    assert invitations_mail() == 1
    assert mail.outbox[0].subject == "[WeftKit] Acme Bcc: all invites you"

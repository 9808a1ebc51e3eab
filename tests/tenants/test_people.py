"""People: sign-up, proved addresses, passwords, second factors, providers, sessions."""

from __future__ import annotations

import re
import time
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from django.apps import apps
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core import mail
from django.test import Client

from tenants.accounts.models import MemberRole, Membership, Tenant, User
from tenants.accounts.second_factors import has_second_factor
from tenants.accounts.sign_ins import ATTEMPTS_MAX
from tenants.audit.models import AuditEvent
from tenants.iam.services import api_key_create
from tests.tenants.cast import PASSWORD, Cast, person, side_by_side, signed_in
from tests.tenants.oidc_provider import Provider, providing
from weftkit_site.settings.base import CACHES as BASE_CACHES

FACTORS = "/account/second-factors"
NEW = {
    "email": "Erin@example.org",
    "name": "Erin",
    "organisation": "erinco",
    "password1": "a long and quiet evening",
}


class CountingHasher(MD5PasswordHasher):
    """Counts how often a password is digested: the work that a stopwatch could see."""

    algorithm = "counting"
    count = 0

    def encode(self, password: str, salt: str) -> str:
        type(self).count += 1
        return super().encode(password, salt)


def sign_in(client: Client, user: User, password: str = PASSWORD) -> Any:
    return client.post("/sign-in", {"login": user.email, "password": password})


def link_in_mail(index: int = -1) -> str:
    found = re.search(r"https?://\S+", mail.outbox[index].body)
    assert found is not None
    return urlsplit(found[0]).path


def code_of(secret: str, ahead: int = 0) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30 + ahead))


def with_totp(user: User) -> str:
    secret = "JBSWY3DPEHPK3PXP"
    TOTP.activate(user, secret)
    return secret


# --- Sign-up -------------------------------------------------------------------------------------


def test_sign_up_makes_a_person_and_a_tenant_and_the_mails_link_opens_both(db: None) -> None:
    client = Client()
    answer = client.post("/sign-up", NEW)
    assert (answer.status_code, answer["Location"]) == (302, "/sign-in/email")
    erin = User.objects.get(email="erin@example.org")
    assert (erin.name, erin.memberships.get().role) == ("Erin", "owner")
    assert sign_in(Client(), erin, NEW["password1"])["Location"] == "/sign-in/email"
    path = link_in_mail(0)
    assert Client().get(path).status_code == 200
    assert not EmailAddress.objects.get(user=erin).verified
    assert client.post(path).status_code == 302
    assert EmailAddress.objects.get(user=erin).verified
    fresh = Client()
    assert sign_in(fresh, erin, NEW["password1"])["Location"] == "/"
    assert fresh.get("/")["Location"] == "/t/erinco/"
    assert fresh.get("/t/erinco/").status_code == 200


def test_sign_up_with_a_known_address_looks_the_same_and_mails_its_owner(cast: Cast) -> None:
    answer = Client().post("/sign-up", {**NEW, "email": "ALICE@example.org"})
    assert (answer.status_code, answer["Location"]) == (302, "/sign-in/email")
    assert not Tenant.objects.filter(handle="erinco").exists()
    (letter,) = mail.outbox
    assert letter.to == ["alice@example.org"]
    assert "already" in letter.body


@pytest.mark.parametrize(
    ("field", "value"),
    [("organisation", "acme"), ("organisation", "Erin Co"), ("password1", "password123")],
)
def test_sign_up_says_what_is_wrong_and_makes_nothing(cast: Cast, field: str, value: str) -> None:
    answer = Client().post("/sign-up", {**NEW, field: value})
    assert answer.status_code == 200
    assert answer.context["form"].errors.keys() == {field}
    assert not User.objects.filter(email="erin@example.org").exists()


def test_sign_up_can_be_closed(cast: Cast, settings: Any) -> None:
    settings.SIGN_UP = "closed"
    assert b"Sign-up is closed" in Client().get("/sign-up").content
    Client().post("/sign-up", NEW)
    assert not User.objects.filter(email="erin@example.org").exists()
    assert b"/sign-up" not in Client().get("/sign-in").content


def test_the_first_of_two_at_once_signs_up_where_only_the_first_may(
    transactional_db: None, settings: Any
) -> None:
    settings.SIGN_UP = "first"
    User.objects.create_user(settings.BOOTSTRAP_EMAIL)
    others = {**NEW, "email": "fay@example.org", "organisation": "fayco"}
    side_by_side(
        lambda: Client().post("/sign-up", NEW),
        lambda: Client().post("/sign-up", others),
    )
    assert User.objects.exclude(email=settings.BOOTSTRAP_EMAIL).count() == 1
    assert Tenant.objects.count() == 1
    assert b"Sign-up is closed" in Client().get("/sign-up").content


def test_a_person_without_a_tenant_makes_one_where_sign_up_is_open(db: None, settings: Any) -> None:
    client = signed_in(person("erin"))
    assert client.post("/", {"organisation": "erinco"})["Location"] == "/t/erinco/"
    settings.SIGN_UP = "closed"
    other = signed_in(person("fay"))
    assert b"not a member of any tenant" in other.get("/").content
    assert other.post("/", {"organisation": "fayco"}).status_code == 403
    assert not Tenant.objects.filter(handle="fayco").exists()


# --- Passwords -----------------------------------------------------------------------------------


def test_a_forgotten_password_is_replaced_by_mail_and_ends_other_sessions(cast: Cast) -> None:
    elsewhere = Client()
    sign_in(elsewhere, cast.alice)
    client = Client()
    assert client.post("/password/reset", {"email": cast.alice.email}).status_code == 302
    page = client.get(link_in_mail(), follow=True)
    words = {"password1": "a long and quiet evening", "password2": "a long and quiet evening"}
    assert client.post(page.redirect_chain[-1][0], words).status_code == 302
    assert sign_in(Client(), cast.alice).status_code == 200
    assert sign_in(Client(), cast.alice, "a long and quiet evening").status_code == 302
    assert elsewhere.get("/t/acme/")["Location"].startswith("/sign-in")
    assert b"password1" not in Client().get(link_in_mail(0), follow=True).content


def test_a_reset_for_nobody_looks_the_same(cast: Cast) -> None:
    known = Client().post("/password/reset", {"email": cast.alice.email})
    unknown = Client().post("/password/reset", {"email": "nobody@example.org"})
    assert (known.status_code, known["Location"]) == (unknown.status_code, unknown["Location"])


def test_mails_that_strangers_can_cause_are_limited(cast: Cast, settings: Any) -> None:
    # The cache of real installations: in the database, so for all processes.
    settings.CACHES = BASE_CACHES
    client = Client()
    statuses = [
        client.post("/password/reset", {"email": cast.alice.email}).status_code for _ in range(6)
    ]
    assert statuses == [302] * 5 + [429]
    assert len(mail.outbox) == 5


# --- Second factors ------------------------------------------------------------------------------


def test_an_authenticator_app_is_set_up_and_its_recovery_codes_are_shown_once(cast: Cast) -> None:
    client = Client()
    sign_in(client, cast.alice)
    client.post("/account/confirm", {"password": PASSWORD})
    page = client.get(f"{FACTORS}/app")
    assert b"data:image/svg+xml" in page.content
    secret = page.context["form"].secret
    answer = client.post(f"{FACTORS}/app", {"code": code_of(secret)})
    assert answer["Location"] == f"{FACTORS}/codes"
    codes = client.get(answer["Location"]).context["unused_codes"]
    assert len(set(codes)) == 10
    for address in ("codes", "app", ""):
        assert "no-store" in client.get(f"{FACTORS}/{address}".rstrip("/"))["Cache-Control"]
    again = client.get(f"{FACTORS}/codes").content.decode()
    assert not any(code in again for code in codes)
    stored = str(list(Authenticator.objects.values_list("data", flat=True)))
    assert secret not in stored
    fresh = Client()
    sign_in(fresh, cast.alice)
    used = {"code": codes[0]}
    assert fresh.post("/sign-in/second-factor", used)["Location"] == "/"
    other = Client()
    sign_in(other, cast.alice)
    assert other.post("/sign-in/second-factor", used).status_code == 200


def test_the_password_alone_opens_nothing_where_there_is_a_second_factor(cast: Cast) -> None:
    secret = with_totp(cast.alice)
    client = Client()
    assert sign_in(client, cast.alice)["Location"] == "/sign-in/second-factor"
    assert client.get("/t/acme/")["Location"].startswith("/sign-in")
    assert not AuditEvent.objects.filter(body__action="weftkit.session.start").exists()
    assert client.post("/sign-in/second-factor", {"code": "000000"}).status_code == 200
    done = client.post("/sign-in/second-factor", {"code": code_of(secret)})
    assert done["Location"] == "/"
    assert client.get("/t/acme/").status_code == 200
    starts = AuditEvent.objects.filter(body__action="weftkit.session.start")
    outcomes = [event.body["outcome"] for event in starts.order_by("event_id")]
    assert outcomes == ["failure", "success"]


def test_a_code_works_once(cast: Cast) -> None:
    code = code_of(with_totp(cast.alice))
    for expected in (302, 200):
        client = Client()
        sign_in(client, cast.alice)
        assert client.post("/sign-in/second-factor", {"code": code}).status_code == expected


def test_guesses_at_a_code_end_in_a_refusal_even_of_the_right_one(cast: Cast) -> None:
    secret = with_totp(cast.alice)
    client = Client()
    sign_in(client, cast.alice)
    wrong = {"code": "000000"}
    statuses = [
        client.post("/sign-in/second-factor", wrong).status_code
        for _ in range(ATTEMPTS_MAX["account and address"])
    ]
    assert set(statuses) == {200}
    refused = client.post("/sign-in/second-factor", {"code": code_of(secret)})
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0


def test_changes_of_security_ask_for_the_password_again(cast: Cast) -> None:
    client = Client()
    sign_in(client, cast.alice)
    answer = client.get(f"{FACTORS}/app")
    assert answer["Location"].startswith("/account/confirm")
    assert client.post(answer["Location"], {"password": PASSWORD})["Location"] == f"{FACTORS}/app"
    assert client.get(f"{FACTORS}/app").status_code == 200


def test_a_tenant_that_demands_a_second_factor_lets_in_only_who_has_one(cast: Cast) -> None:
    alice, bob = signed_in(cast.alice), signed_in(cast.bob)
    wish = {"requires_second_factor": True}

    def demand() -> Any:
        return alice.patch("/api/v1/tenants/acme", wish, content_type="application/json")

    assert demand().json()["code"] == "second_factor_missing"
    with_totp(cast.alice)
    assert demand().json()["requires_second_factor"] is True
    refused = bob.get("/api/v1/tenants/acme/instances")
    assert (refused.status_code, refused.json()["code"]) == (403, "second_factor_required")
    assert bob.get("/t/acme/").status_code == 403
    assert bob.get("/account").status_code == 200
    with_totp(cast.bob)
    assert has_second_factor(cast.bob)
    assert bob.get("/api/v1/tenants/acme/instances").status_code == 200
    assert bob.get("/t/acme/").status_code == 200


def test_what_a_person_does_to_their_security_is_told_to_their_tenants_and_to_them(
    lasting_cast: Cast,
) -> None:
    cast = lasting_cast
    client = Client()
    sign_in(client, cast.alice)
    client.post("/account/confirm", {"password": PASSWORD})
    secret = client.get(f"{FACTORS}/app").context["form"].secret
    client.post(f"{FACTORS}/app", {"code": code_of(secret)})
    client.post(f"{FACTORS}/app/remove")
    new = "a long and quiet evening"
    client.post("/account/password", {"oldpassword": PASSWORD, "password1": new, "password2": new})
    rows = AuditEvent.objects.filter(tenant_id=cast.acme.pk).order_by("event_id")
    told = [row.body["action"] for row in rows if "session" not in row.body["action"]]
    assert told == [
        "weftkit.second-factor.add",
        "weftkit.second-factor.remove",
        "weftkit.password.update",
    ]
    assert [letter.to for letter in mail.outbox] == [[cast.alice.email]] * 3
    assert len(client.get("/api/v1/sessions").json()) == 1


def test_two_who_use_one_code_at_the_same_moment_get_in_once(lasting_cast: Cast) -> None:
    code = code_of(with_totp(lasting_cast.alice))
    clients = [Client() for _ in range(4)]
    for client in clients:
        sign_in(client, lasting_cast.alice)

    def give(client: Client) -> Any:
        return lambda: client.post("/sign-in/second-factor", {"code": code}).status_code

    assert sorted(map(str, side_by_side(*map(give, clients)))) == ["200", "200", "200", "302"]


# --- Sessions ------------------------------------------------------------------------------------


def test_sessions_are_listed_and_end_when_they_are_revoked(cast: Cast) -> None:
    laptop, phone = (
        Client(headers={"User-Agent": "laptop"}),
        Client(headers={"User-Agent": "phone"}, REMOTE_ADDR="192.0.2.7"),
    )
    for client in (laptop, phone):
        sign_in(client, cast.alice)
    rows = laptop.get("/api/v1/sessions").json()
    assert [(row["agent"], row["address"], row["is_current"]) for row in rows] == [
        ("phone", "192.0.2.7", False),
        ("laptop", "127.0.0.1", True),
    ]
    bob = signed_in(cast.bob)
    assert bob.delete(f"/api/v1/sessions/{rows[0]['id']}").status_code == 404
    assert phone.get("/t/acme/").status_code == 200
    assert laptop.delete(f"/api/v1/sessions/{rows[0]['id']}").status_code == 204
    assert phone.get("/t/acme/").status_code == 302
    assert AuditEvent.objects.filter(body__action="weftkit.session.revoke").count() == 1


def test_all_sessions_but_this_one_end_at_once(cast: Cast) -> None:
    clients = [Client() for _ in range(3)]
    for client in clients:
        sign_in(client, cast.alice)
    assert clients[0].post("/account/sessions")["Location"] == "/account/sessions"
    page = clients[0].get("/account/sessions").content.decode()
    assert [client.get("/t/acme/").status_code for client in clients] == [200, 302, 302]
    assert "Signed out elsewhere: 2." in page
    assert page.count("this one") == 1


def test_a_key_has_no_sessions(cast: Cast) -> None:
    token = api_key_create(actor=cast.owner, name="k", is_own=True).token
    client = Client(headers={"Authorization": f"Bearer {token}"})
    assert client.get("/api/v1/sessions").status_code == 403


def test_a_person_changes_their_name(cast: Cast) -> None:
    client = signed_in(cast.alice)
    assert client.post("/account", {"name": "Alice L."}).status_code == 302
    assert "Alice L." in client.get("/account").content.decode()


# --- Providers -----------------------------------------------------------------------------------

CLAIMS = {"sub": "7", "email": "erin@example.org", "email_verified": True, "name": "Erin E."}


def by_provider(client: Client, provider: Provider) -> Any:
    """Sign in by the provider as a browser would; return the answer of the callback."""
    page = client.post("/sign-in/with/oidc?process=login")
    assert page.status_code == 200
    found = re.search(r'href="(http[^"]+/authorize[^"]+)"', page.content.decode())
    assert found is not None
    back = httpx.get(found[1].replace("&amp;", "&")).headers["Location"]
    parts = urlsplit(back)
    assert parts.path == "/sign-in/with/oidc/callback"
    return client.get(f"{parts.path}?{parts.query}")


def test_a_person_signs_in_by_an_openid_provider(db: None, settings: Any) -> None:
    with providing(**CLAIMS) as provider:
        settings.SOCIALACCOUNT_PROVIDERS = provider.settings
        settings.OIDC_SIGN_UP = True
        assert b"Sign in with Example" in Client().get("/sign-in").content
        client = Client()
        assert by_provider(client, provider)["Location"] == "/"
        erin = User.objects.get(email="erin@example.org")
        assert erin.name == "Erin E."
        assert not erin.has_usable_password()
        assert b"Name your organisation" in client.get("/").content
        assert by_provider(Client(), provider)["Location"] == "/"
        assert User.objects.count() == 1


def test_a_provider_opens_no_account_where_sign_up_by_it_is_off(db: None, settings: Any) -> None:
    settings.SIGN_UP = "closed"
    with providing(**CLAIMS) as provider:
        settings.SOCIALACCOUNT_PROVIDERS = provider.settings
        client = Client()
        assert b"Sign-up is closed" in by_provider(client, provider).content
        assert not User.objects.exists()


@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_provider_takes_over_an_account_only_if_its_addresses_are_trusted(
    cast: Cast, settings: Any, is_trusted: bool
) -> None:
    settings.OIDC_SIGN_UP = True
    settings.SOCIALACCOUNT_EMAIL_AUTHENTICATION = is_trusted
    settings.SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = is_trusted
    with providing(**{**CLAIMS, "email": cast.alice.email}) as provider:
        settings.SOCIALACCOUNT_PROVIDERS = provider.settings
        client = Client()
        by_provider(client, provider)
        assert (client.get("/t/acme/").status_code == 200) is is_trusted


def test_a_provider_does_not_replace_the_second_factor(cast: Cast, settings: Any) -> None:
    settings.SOCIALACCOUNT_EMAIL_AUTHENTICATION = True
    settings.SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
    with_totp(cast.alice)
    with providing(**{**CLAIMS, "email": cast.alice.email}) as provider:
        settings.SOCIALACCOUNT_PROVIDERS = provider.settings
        client = Client()
        assert by_provider(client, provider)["Location"] == "/sign-in/second-factor"
        assert client.get("/t/acme/").status_code == 302


# --- Members -------------------------------------------------------------------------------------


def test_an_owner_hands_the_tenant_over_and_may_leave_then(cast: Cast) -> None:
    alice = signed_in(cast.alice)
    address = "/api/v1/tenants/acme"
    refused = alice.post(f"{address}/leave")
    assert (refused.status_code, refused.json()["code"]) == (409, "last_owner")
    bobs = Membership.objects.get(user=cast.bob)
    moved = alice.post(f"{address}/transfer", {"member": str(bobs.pk)}, "application/json")
    assert moved.json()["role"] == "owner"
    roles = {m.user.email: m.role for m in Membership.objects.filter(tenant=cast.acme)}
    assert roles == {"alice@example.org": MemberRole.ADMIN, "bob@example.org": MemberRole.OWNER}
    assert alice.post(f"{address}/transfer", {"member": str(bobs.pk)}, "application/json").json()[
        "code"
    ] == ("forbidden")
    assert alice.post(f"{address}/leave").status_code == 204
    assert alice.get(address).status_code == 404


def test_who_gave_ownership_away_or_left_gets_the_first_answer_again(cast: Cast) -> None:
    alice, bob = signed_in(cast.alice), signed_in(cast.bob)
    address = "/api/v1/tenants/acme"
    bobs = Membership.objects.get(user=cast.bob)
    body, key = {"member": str(bobs.pk)}, {"Idempotency-Key": "over"}
    answers = [
        alice.post(f"{address}/transfer", body, "application/json", headers=key) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    # A key is of one request, and of one person.
    reused = alice.post(f"{address}/leave", content_type="application/json", headers=key)
    assert (reused.status_code, reused.json()["code"]) == (409, "idempotency_key_reused")
    refused = bob.post(f"{address}/leave", content_type="application/json", headers=key)
    assert (refused.status_code, refused.json()["code"]) == (409, "last_owner")
    key = {"Idempotency-Key": "out"}
    answers = [
        alice.post(f"{address}/leave", content_type="application/json", headers=key)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [204, 204]
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    key = {"Idempotency-Key": "again"}
    gone = alice.post(f"{address}/leave", content_type="application/json", headers=key)
    assert gone.status_code == 404
    left = AuditEvent.objects.filter(tenant_id=cast.acme.pk, action="weftkit.tenant.leave")
    assert [event.outcome for event in left.order_by("occurred_at")] == ["failure", "success"]


def test_other_sessions_are_ended_once_for_a_key(cast: Cast) -> None:
    first, second = Client(), Client()
    sign_in(first, cast.alice)
    sign_in(second, cast.alice)
    address, key = "/api/v1/sessions/revoke-others", {"Idempotency-Key": "mine"}
    assert first.post(address, content_type="application/json", headers=key).status_code == 204
    assert second.get("/api/v1/me").status_code == 401
    sign_in(second, cast.alice)
    again = first.post(address, content_type="application/json", headers=key)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (204, "true")
    assert second.get("/api/v1/me").status_code == 200


def test_numbers_beyond_all_sessions_and_passkeys_are_not_found(cast: Cast) -> None:
    client = Client()
    sign_in(client, cast.alice)
    client.post("/account/confirm", {"password": PASSWORD})
    assert client.delete(f"/api/v1/sessions/{10**30}").status_code == 404
    assert client.get(f"{FACTORS}/passkeys/{10**30}").status_code == 404
    assert client.post("/account/sessions", {"session": "9" * 9}).status_code == 302


@pytest.mark.parametrize(
    "email", ["alice@example.org", "nobody@example.org", "keyless@example.org"]
)
def test_every_refusal_of_a_password_costs_as_much_work(
    cast: Cast, settings: Any, email: str
) -> None:
    User.objects.create_user("keyless@example.org")
    settings.PASSWORD_HASHERS = [f"{__name__}.CountingHasher"]
    User.objects.filter(pk=cast.alice.pk).update(password=CountingHasher().encode("x", "salt"))
    CountingHasher.count = 0
    answer = Client().post("/sign-in", {"login": email, "password": "wrong"})
    assert answer.status_code == 200
    assert CountingHasher.count == 1


def test_people_of_an_older_version_sign_in_after_the_migration(cast: Cast) -> None:
    EmailAddress.objects.all().delete()
    assert sign_in(Client(), cast.alice)["Location"] == "/sign-in/email"
    EmailAddress.objects.all().delete()
    name = "tenants.accounts.migrations.0003_tenant_requires_second_factor_invitation"
    import_module(name).note_addresses(apps, None)
    assert sign_in(Client(), cast.alice)["Location"] == "/"
    assert EmailAddress.objects.filter(verified=True, primary=True).count() == 3

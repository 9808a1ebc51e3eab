"""API keys: what opens, what does not, and that nothing secret is stored."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole, Membership, User
from tenants.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    LimitError,
    NotFoundError,
)
from tenants.iam import services
from tenants.iam.actors import actor_of_key, actor_of_user
from tenants.iam.addresses import address_allowed, cidrs_clean
from tenants.iam.models import ApiKey, ApiKeySecret
from tenants.iam.services import (
    NewApiKey,
    api_key_authenticate,
    api_key_change,
    api_key_create,
    api_key_reroll,
    api_key_revoke,
    api_key_secrets_sweep,
)
from tests.tenants.cast import Cast

HERE = "192.0.2.7"


@pytest.fixture
def made(cast: Cast) -> NewApiKey:
    return api_key_create(actor=cast.owner, name="ci", role=MemberRole.ADMIN)


def test_a_key_opens_and_only_its_digest_is_stored(made: NewApiKey) -> None:
    assert api_key_authenticate(token=made.token, address=HERE) == made.api_key
    assert made.token not in str(list(ApiKey.objects.values_list()))
    assert made.token not in str(list(ApiKeySecret.objects.values_list()))
    assert made.token.startswith(f"wk_{made.api_key.key_id}_")


@pytest.mark.parametrize(
    "spoil", [lambda t: t[:-1] + "_", lambda t: t[:-1], lambda t: "", str.upper]
)
def test_anything_else_does_not_open(made: NewApiKey, spoil: object) -> None:
    assert callable(spoil)
    assert api_key_authenticate(token=spoil(made.token), address=HERE) is None


def test_a_revoked_or_expired_key_does_not_open(made: NewApiKey) -> None:
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert api_key_authenticate(token=made.token, address=HERE) is None
    ApiKey.objects.update(expires_at=timezone.now() + timedelta(minutes=1))
    assert api_key_authenticate(token=made.token, address=HERE) is not None
    api_key_revoke(api_key=made.api_key)
    assert api_key_authenticate(token=made.token, address=HERE) is None


def test_a_key_opens_from_its_networks_only(cast: Cast) -> None:
    made = api_key_create(
        actor=cast.owner, name="ci", role=MemberRole.MEMBER, cidrs=["192.0.2.0/24", "2001:db8::/32"]
    )
    for address, opens in (
        (HERE, True),
        ("::ffff:192.0.2.9", True),
        ("2001:db8::5", True),
        ("198.51.100.1", False),
        ("", False),
    ):
        assert (api_key_authenticate(token=made.token, address=address) is not None) is opens


def test_last_used_is_written_at_most_once_a_minute(made: NewApiKey) -> None:
    api_key_authenticate(token=made.token, address=HERE)
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    api_key_authenticate(token=made.token, address=HERE)
    assert ApiKey.objects.get().last_used_at == first
    ApiKey.objects.update(last_used_at=first - timedelta(minutes=2))
    api_key_authenticate(token=made.token, address=HERE)
    latest = ApiKey.objects.get().last_used_at
    assert latest is not None
    assert latest >= first


def test_nobody_mints_a_key_that_may_do_more(cast: Cast) -> None:
    admin = Actor(cast.acme, MemberRole.ADMIN, "user:admin@example.org")
    with pytest.raises(ForbiddenError):
        api_key_create(actor=admin, name="up", role=MemberRole.OWNER)
    assert api_key_create(actor=admin, name="same", role=MemberRole.ADMIN).api_key.role == "admin"


def test_a_key_that_is_expired_already_is_refused(cast: Cast) -> None:
    with pytest.raises(InvalidError):
        api_key_create(actor=cast.owner, name="x", role=MemberRole.ADMIN, expires_at=timezone.now())


def test_networks_are_kept_in_canonical_form_and_once() -> None:
    assert cidrs_clean(["10.0.0.0/8", " 10.0.0.0/8", "2001:DB8::1"], field="cidrs") == [
        "10.0.0.0/8",
        "2001:db8::1/128",
    ]
    for wrong in ("10.0.0.1/8", "everywhere", ""):
        with pytest.raises(InvalidError):
            cidrs_clean([wrong], field="cidrs")


def test_no_list_lets_everyone_in() -> None:
    assert address_allowed("203.0.113.9", [])


def test_a_tenant_has_a_bounded_number_of_live_keys(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "API_KEYS_MAX", 1)
    first = api_key_create(actor=cast.owner, name="a", role=MemberRole.MEMBER)
    with pytest.raises(LimitError):
        api_key_create(actor=cast.owner, name="b", role=MemberRole.MEMBER)
    api_key_revoke(api_key=first.api_key)
    assert api_key_create(actor=cast.owner, name="b", role=MemberRole.MEMBER).token


def test_a_rerolled_key_has_two_secrets_for_the_grace_and_never_three(
    cast: Cast, made: NewApiKey
) -> None:
    second = api_key_reroll(actor=cast.owner, api_key=made.api_key)
    assert api_key_authenticate(token=made.token, address=HERE) is not None
    assert api_key_authenticate(token=second.token, address=HERE) == made.api_key
    third = api_key_reroll(actor=cast.owner, api_key=made.api_key)
    assert made.api_key.secrets.count() == 2
    assert api_key_authenticate(token=made.token, address=HERE) is None
    assert api_key_authenticate(token=second.token, address=HERE) is not None
    ApiKeySecret.objects.filter(expires_at__isnull=False).update(expires_at=timezone.now())
    assert api_key_authenticate(token=second.token, address=HERE) is None
    assert api_key_authenticate(token=third.token, address=HERE) is not None
    assert api_key_secrets_sweep() == 1
    assert made.api_key.secrets.count() == 1


def test_without_grace_the_old_secret_ends_at_once(cast: Cast, made: NewApiKey) -> None:
    new = api_key_reroll(actor=cast.owner, api_key=made.api_key, grace=timedelta(0))
    assert api_key_authenticate(token=made.token, address=HERE) is None
    assert api_key_authenticate(token=new.token, address=HERE) is not None


def test_a_disabled_key_does_not_open_until_it_is_enabled(made: NewApiKey) -> None:
    api_key_change(api_key=made.api_key, changes={"is_enabled": False})
    assert api_key_authenticate(token=made.token, address=HERE) is None
    api_key_change(api_key=made.api_key, changes={"is_enabled": True, "environment": "prod"})
    found = api_key_authenticate(token=made.token, address=HERE)
    assert found is not None
    assert found.environment == "prod"


def test_a_revoked_key_is_neither_changed_nor_rerolled(cast: Cast, made: NewApiKey) -> None:
    api_key_revoke(api_key=made.api_key)
    with pytest.raises(ConflictError):
        api_key_change(api_key=made.api_key, changes={"is_enabled": True})
    with pytest.raises(ConflictError):
        api_key_reroll(actor=cast.owner, api_key=made.api_key)


def test_an_admin_gets_no_new_secret_of_an_owners_key(cast: Cast) -> None:
    owners = api_key_create(actor=cast.owner, name="o", role=MemberRole.OWNER)
    admin = Actor(cast.acme, MemberRole.ADMIN, "user:admin@example.org")
    with pytest.raises(ForbiddenError):
        api_key_reroll(actor=admin, api_key=owners.api_key)


def test_a_members_key_may_what_the_member_may_and_ends_with_the_membership(cast: Cast) -> None:
    bob = actor_of_user(user=cast.bob, tenant="acme")
    made = api_key_create(actor=bob, name="mine", is_own=True)
    key = api_key_authenticate(token=made.token, address=HERE)
    assert key is not None
    assert actor_of_key(api_key=key, tenant="acme").role is MemberRole.MEMBER
    with pytest.raises(NotFoundError):
        actor_of_key(api_key=key, tenant="globex")
    Membership.objects.filter(user=cast.bob).update(role=MemberRole.BILLING)
    key = api_key_authenticate(token=made.token, address=HERE)
    assert key is not None
    assert not actor_of_key(api_key=key, tenant="acme").may("instances.create")
    with pytest.raises(ForbiddenError):
        api_key_reroll(actor=cast.owner, api_key=key)
    User.objects.filter(pk=cast.bob.pk).update(is_active=False)
    assert api_key_authenticate(token=made.token, address=HERE) is None
    User.objects.filter(pk=cast.bob.pk).update(is_active=True)
    Membership.objects.filter(user=cast.bob).delete()
    assert api_key_authenticate(token=made.token, address=HERE) is None


def test_the_environment_is_a_short_word(cast: Cast) -> None:
    for wrong in ("Prod", "a b", "-x", "x" * 33, "prod\n"):
        with pytest.raises(InvalidError):
            api_key_create(actor=cast.owner, name="x", role=MemberRole.MEMBER, environment=wrong)

"""API keys: what opens, what does not, and that nothing secret is stored."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from tenants.accounts.actors import Actor
from tenants.accounts.models import MemberRole
from tenants.core.errors import ForbiddenError, InvalidError, LimitError
from tenants.iam import services
from tenants.iam.addresses import address_allowed, cidrs_clean
from tenants.iam.models import ApiKey
from tenants.iam.services import NewApiKey, api_key_authenticate, api_key_create, api_key_revoke
from tests.tenants.cast import Cast

HERE = "192.0.2.7"


@pytest.fixture
def made(cast: Cast) -> NewApiKey:
    return api_key_create(actor=cast.owner, name="ci", role=MemberRole.ADMIN)


def test_a_key_opens_and_only_its_digest_is_stored(made: NewApiKey) -> None:
    assert api_key_authenticate(token=made.token, address=HERE) == made.api_key
    assert made.token not in str(ApiKey.objects.values_list().get())
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

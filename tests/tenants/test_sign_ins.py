"""Nobody guesses passwords without end, and the refusal tells nothing about the account."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from tenants.accounts.models import SignInCount
from tenants.accounts.sign_ins import (
    ATTEMPTS_MAX,
    sign_in_count,
    sign_ins_forget,
)
from tenants.core.errors import TooManyError
from tests.tenants.cast import PASSWORD, Cast, side_by_side

ALICE = "alice@example.org"
PAIR_MAX = ATTEMPTS_MAX["account and address"]


def sign_in(email: str = ALICE, password: str = "wrong", address: str = "192.0.2.1") -> Any:
    words = {"login": email, "password": password}
    return Client(REMOTE_ADDR=address).post("/sign-in", words)


@pytest.mark.parametrize("email", [ALICE, "nobody@example.org"])
def test_guesses_at_one_account_end_in_a_refusal_that_is_alike_for_all(
    cast: Cast, email: str
) -> None:
    answers = [sign_in(email) for _ in range(PAIR_MAX + 1)]
    assert [answer.status_code for answer in answers] == [200] * PAIR_MAX + [429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 901
    assert b"Too many attempts to sign in. Try again in 1" in answers[-1].content


def test_the_right_password_is_refused_too_but_not_from_elsewhere(cast: Cast) -> None:
    for _ in range(PAIR_MAX):
        sign_in()
    assert sign_in(password=PASSWORD).status_code == 429
    assert sign_in(email=" ALICE@example.org", password=PASSWORD).status_code == 429
    assert sign_in(password=PASSWORD, address="192.0.2.2").status_code == 302


def test_guesses_at_many_accounts_from_one_network_are_refused(cast: Cast) -> None:
    for index in range(ATTEMPTS_MAX["address"]):
        sign_in_count(email=f"p{index}@example.org", address=f"2001:db8::{index:x}")
    with pytest.raises(TooManyError):
        sign_in_count(email=ALICE, address="2001:db8::ffff")
    sign_in_count(email=ALICE, address="2001:db8:0:1::1")


def test_guesses_at_one_account_from_many_addresses_are_refused(cast: Cast) -> None:
    for index in range(ATTEMPTS_MAX["account"]):
        sign_in_count(email=ALICE, address=f"198.51.100.{index}")
    with pytest.raises(TooManyError) as refused:
        sign_in_count(email=ALICE, address="203.0.113.1")
    assert (refused.value.status, refused.value.code) == (429, "too_many_requests")
    assert 0 < refused.value.retry_after_s <= 901


def test_guesses_at_the_same_moment_do_not_slip_through(lasting_cast: Cast) -> None:
    outcomes = side_by_side(
        *[lambda: sign_in_count(email=ALICE, address="192.0.2.1") for _ in range(PAIR_MAX + 5)]
    )
    assert sum(isinstance(outcome, TooManyError) for outcome in outcomes) == 5


def test_a_success_forgets_the_accounts_failures_and_counts_not_against_the_address(
    cast: Cast,
) -> None:
    for _ in range(3):
        for _ in range(PAIR_MAX - 1):
            sign_in()
        assert sign_in(password=PASSWORD).status_code == 302
    (left,) = SignInCount.objects.all()
    assert left.attempts == 3 * (PAIR_MAX - 1)


def test_the_count_begins_anew_after_its_window(cast: Cast) -> None:
    for _ in range(PAIR_MAX):
        sign_in()
    SignInCount.objects.update(ends_at=timezone.now())
    assert sign_in(password=PASSWORD).status_code == 302


def test_nobody_is_named_in_the_counts(cast: Cast) -> None:
    sign_in()
    stored = str(list(SignInCount.objects.values_list("key", flat=True)))
    assert "alice" not in stored
    assert "192.0.2" not in stored


def test_counts_and_sessions_whose_time_is_over_are_forgotten(cast: Cast) -> None:
    sign_in(password=PASSWORD)
    sign_in()
    assert sign_ins_forget() == 0
    past = timezone.now() - timedelta(seconds=1)
    SignInCount.objects.update(ends_at=past)
    Session.objects.update(expire_date=past)
    assert sign_ins_forget() == 4

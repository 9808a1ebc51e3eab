"""JSON Web Tokens: only HS256, only in time, only unambiguous."""

from __future__ import annotations

import base64
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.auth import verify_jwt
from engines.kit.auth.jwt import Claims
from engines.kit.errors import Reason, RequestError

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_700_000_000.0
GOOD = {"sub": "app", "exp": NOW + 60}


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token(
    claims: object, header: object = None, secret: bytes = SECRET, hash_name: str = "sha256"
) -> str:
    head = encode(json.dumps(header or {"alg": "HS256", "typ": "JWT"}).encode())
    body = encode(claims if isinstance(claims, bytes) else json.dumps(claims).encode())
    return (
        f"{head}.{body}.{encode(hmac.new(secret, f'{head}.{body}'.encode(), hash_name).digest())}"
    )


def refusal(text: str, now: float = NOW) -> Reason:
    with pytest.raises(RequestError) as caught:
        verify_jwt(text, SECRET, now)
    return caught.value.reason


def test_a_good_token_gives_its_claims() -> None:
    values = GOOD | {"roles": ["read", "write"], "other": {"x": 1}}
    assert verify_jwt(token(values), SECRET, NOW) == Claims(
        subject="app", expires_at=NOW + 60, roles=("read", "write"), values=values
    )
    assert verify_jwt(token(GOOD), SECRET, NOW).roles is None


def test_time_is_honoured_to_the_second_and_leeway_extends_it() -> None:
    assert refusal(token(GOOD), NOW + 60) is Reason.EXPIRED
    assert verify_jwt(token(GOOD), SECRET, NOW + 59.9).subject == "app"
    assert verify_jwt(token(GOOD), SECRET, NOW + 61, leeway_s=5).subject == "app"
    early = token(GOOD | {"nbf": NOW + 10})
    assert refusal(early) is Reason.UNAUTHENTICATED
    assert verify_jwt(early, SECRET, NOW + 10).subject == "app"
    assert verify_jwt(early, SECRET, NOW + 6, leeway_s=5).subject == "app"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"}, {"alg": "None"}, {"alg": "HS384"}, {"alg": "RS256"}, {"alg": "hs256"},
        {"typ": "JWT"}, {"alg": ["HS256"]}, {"alg": "HS256", "crit": ["exp"]},
    ],
)  # fmt: skip
def test_every_algorithm_but_hs256_is_refused_even_if_well_signed(header: object) -> None:
    assert refusal(token(GOOD, header)) is Reason.UNAUTHENTICATED


def test_an_unsigned_token_is_refused() -> None:
    head = encode(b'{"alg":"none"}')
    body = encode(json.dumps(GOOD).encode())
    for signature in ("", encode(b""), encode(bytes(32))):
        assert refusal(f"{head}.{body}.{signature}") is Reason.UNAUTHENTICATED


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW + 60}, {"sub": "app"}, GOOD | {"sub": ""}, GOOD | {"sub": 3},
        GOOD | {"exp": True}, GOOD | {"exp": "soon"}, GOOD | {"exp": None}, GOOD | {"nbf": None},
        GOOD | {"exp": float("inf")}, GOOD | {"exp": float("nan")}, GOOD | {"exp": 10**400},
        GOOD | {"roles": "read"}, GOOD | {"roles": [1]}, [], "x", b"{", b"\xff",
        b'{"sub":"a","sub":"b","exp":2e9}', b"[" * 3000,
    ],
    ids=lambda claims: str(claims)[:40],
)  # fmt: skip
def test_claims_that_prove_nothing_are_refused(claims: object) -> None:
    assert refusal(token(claims)) is Reason.UNAUTHENTICATED


def test_the_wrong_secret_and_an_empty_one_are_refused() -> None:
    assert refusal(token(GOOD, secret=b"another")) is Reason.UNAUTHENTICATED
    with pytest.raises(RequestError):
        verify_jwt(token(GOOD, secret=b""), b"", NOW)


def test_an_endless_token_is_refused_unread() -> None:
    assert refusal(token(GOOD | {"x": "y" * 9000})) is Reason.LIMIT


@given(st.data())
def test_a_token_with_any_character_changed_is_refused(data: st.DataObject) -> None:
    good = token(GOOD)
    index = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.sampled_from("AZaz09-_.=+ ").filter(lambda c: c != good[index]))
    assert refusal(good[:index] + other + good[index + 1 :]) is Reason.UNAUTHENTICATED


def test_a_signature_has_one_spelling() -> None:
    good = token(GOOD)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # The last of 43 characters carries four bits, and two that say nothing.
    twin = good[:-1] + alphabet[alphabet.index(good[-1]) + 1]
    assert base64.urlsafe_b64decode(twin[-43:] + "=") == base64.urlsafe_b64decode(good[-43:] + "=")
    assert refusal(twin) is Reason.UNAUTHENTICATED


def test_a_signature_of_another_hash_is_refused() -> None:
    assert refusal(token(GOOD, hash_name="sha512")) is Reason.UNAUTHENTICATED

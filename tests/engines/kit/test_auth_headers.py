"""Bearer and basic authorisation headers."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.auth import basic_credentials, bearer_token
from engines.kit.errors import Reason, RequestError


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize("header", ["Bearer abc", "bearer  abc ", "BEARER abc"])
def test_a_bearer_token_is_found_in_any_case(header: str) -> None:
    assert bearer_token(header) == "abc"


def test_another_scheme_is_none() -> None:
    assert bearer_token("Basic abc") is None
    assert basic_credentials("Bearer abc") is None
    assert bearer_token("") is None


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer a b", "Bearer é"])
def test_a_bearer_header_without_one_token_is_malformed(header: str) -> None:
    with pytest.raises(RequestError) as caught:
        bearer_token(header)
    assert caught.value.reason is Reason.MALFORMED


@given(st.text(alphabet=st.characters(exclude_characters=":", codec="utf-8")), st.text())
def test_basic_returns_what_a_client_encoded(username: str, password: str) -> None:
    password = password.encode("utf-8", "ignore").decode()
    header = basic(f"{username}:{password}".encode())
    assert basic_credentials(header) == (username, password)


@pytest.mark.parametrize(
    "header", ["Basic ", "Basic !!!", "Basic YQ", basic(b"ab"), basic(b"\xff:")]
)
def test_a_basic_header_that_is_none_is_malformed(header: str) -> None:
    with pytest.raises(RequestError) as caught:
        basic_credentials(header)
    assert caught.value.reason is Reason.MALFORMED


def test_a_header_over_the_limit_is_refused_before_it_is_read() -> None:
    for read in (bearer_token, basic_credentials):
        with pytest.raises(RequestError) as caught:
            read("Bearer " + "x" * 8192)
        assert caught.value.reason is Reason.LIMIT

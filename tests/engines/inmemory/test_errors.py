"""Reasons as error replies."""

from __future__ import annotations

from engines.inmemory.errors import NATIVE, to_native
from engines.kit.errors import Reason, RequestError, rate_error


def test_every_reason_has_a_word_in_capitals() -> None:
    assert set(NATIVE) == set(Reason)
    assert all(native.code.isupper() and native.code.isalpha() for native in NATIVE.values())


def test_a_rate_refusal_names_class_limit_and_when_to_retry() -> None:
    assert to_native(rate_error("read", 20, 0.35)) == (
        b"-ERR rate limit exceeded: 20 read units per second, retry after 350 ms\r\n"
    )


def test_the_words_of_redis_are_used_where_it_has_them() -> None:
    assert to_native(RequestError(Reason.UNAUTHENTICATED, "x")) == (
        b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    )
    assert to_native(RequestError(Reason.CONNECTIONS, "x")) == (
        b"-ERR max number of clients reached\r\n"
    )


def test_an_error_is_one_line_whatever_its_text() -> None:
    assert to_native(RequestError(Reason.DENIED, "a\r\nb\n+OK")) == b"-NOPERM a b +OK\r\n"

"""Reasons as SQLSTATEs, refusals as ErrorResponse."""

from __future__ import annotations

from engines.kit.errors import Reason, RequestError, rate_error
from engines.relational import wire
from engines.relational.errors import NATIVE, to_native


def test_every_reason_has_a_code_of_five_characters() -> None:
    assert set(NATIVE) == set(Reason)
    assert {len(native.code) for native in NATIVE.values()} == {5}


def test_the_codes_of_the_api_reference_are_used() -> None:
    named = {"UNAUTHENTICATED": "28P01", "DENIED": "42501", "CONNECTIONS": "53300",
             "TIMEOUT": "57014", "BACKEND": "08000", "RATE": "53400", "QUOTA": "53100"}  # fmt: skip
    assert {name: NATIVE[Reason[name]].code for name in named} == named


def test_a_rate_refusal_names_class_limit_and_when_to_retry() -> None:
    message = to_native(rate_error("read", 20, 0.35))
    assert message[:1] == b"E"
    assert wire.fields(message[5:]) == {
        "S": "ERROR",
        "V": "ERROR",
        "C": "53400",
        "M": "rate limit exceeded: 20 read units per second",
        "D": "class=read limit=20 retry_after_ms=350",
        "H": "Retry after 350 ms, or choose a larger plan.",
    }


def test_a_session_ends_with_fatal_and_the_codes_own_text() -> None:
    fields = wire.fields(to_native(RequestError(Reason.SHUTDOWN, "x"), "FATAL")[5:])
    assert fields["S"] == "FATAL"
    assert fields["C"] == "57P01"
    assert fields["M"] == "terminating connection due to administrator command"


def test_a_code_that_the_server_gave_passes() -> None:
    error = RequestError(Reason.BACKEND, "no such database", sqlstate="3D000")
    assert wire.fields(to_native(error)[5:])["C"] == "3D000"

"""First bytes, StartupMessage, CancelRequest and message framing."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.contract import Preamble
from engines.kit.errors import Reason, RequestError
from engines.relational import wire

SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSSENC_REQUEST = struct.pack("!II", 8, 80877104)


def startup(code: int, pairs: bytes) -> bytes:
    return struct.pack("!I", code) + pairs


@pytest.mark.parametrize(
    ("data", "is_tls_available", "expected"),
    [
        (SSL_REQUEST, True, Preamble(consume=8, reply=b"S", tls=True)),
        (SSL_REQUEST, False, Preamble(consume=8, reply=b"N", again=True)),
        (GSSENC_REQUEST, True, Preamble(consume=8, reply=b"N", again=True)),
        # What follows in clear is not consumed: it would break the handshake, not slip into it.
        (SSL_REQUEST + b"Q\0\0\0\x04", True, Preamble(consume=8, reply=b"S", tls=True)),
        (SSL_REQUEST[:5], True, Preamble(needs=8)),
        (b"\x16\x03\x01", True, Preamble(tls=True)),
        (b"\x16\x03\x01", False, Preamble()),
        (struct.pack("!II", 20, 196608), True, Preamble()),
        (b"GET / HT", True, Preamble()),
    ],
)
def test_first_bytes_decide(data: bytes, is_tls_available: bool, expected: Preamble) -> None:
    assert wire.preamble(data, is_tls_available) == expected


def test_startup_parameters_and_protocol_options_are_told_apart() -> None:
    parsed = wire.parse_startup(startup(196610, b"user\0a\0_pq_.x\0y\0options\0-c a=b\0\0"))
    assert parsed == wire.Startup(2, {"user": "a", "options": "-c a=b"}, ("_pq_.x",))


def test_names_in_any_encoding_come_out_as_they_went_in() -> None:
    parsed = wire.parse_startup(startup(196608, b"user\0caf\xe9\0\0"))
    assert isinstance(parsed, wire.Startup)
    sent = wire.startup_message(parsed.parameters)
    assert sent[8:] == b"user\0caf\xe9\0\0"
    assert struct.unpack("!II", sent[:8]) == (len(sent), 196608)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.MALFORMED),
        (startup(2 << 16, b"\0"), Reason.UNSUPPORTED),
        (startup(80877103, b""), Reason.UNSUPPORTED),  # a second SSLRequest, inside of TLS
        (startup(196608, b"user\0a\0"), Reason.MALFORMED),
        (startup(196608, b"user\0\0"), Reason.MALFORMED),
        (startup(196608, b"\0x\0\0"), Reason.MALFORMED),
        (startup(80877102, b"1234"), Reason.MALFORMED),
        (startup(80877102, bytes(260)), Reason.MALFORMED),
    ],
)
def test_what_is_no_startup_is_refused(body: bytes, reason: Reason) -> None:
    with pytest.raises(RequestError) as refused:
        wire.parse_startup(body)
    assert refused.value.reason is reason


def test_a_cancel_request_carries_the_token() -> None:
    key = bytes(range(1, 9))
    assert wire.parse_startup(wire.cancel_request(key)[4:]) == wire.Cancel(0x0102030405060708)


@pytest.mark.parametrize("length", [0, 7, 10_001, 0xFFFFFFFF])
def test_the_startup_length_is_checked_before_its_body_is_read(length: int) -> None:
    with pytest.raises(RequestError, match="invalid length of startup packet"):
        wire.startup_length(struct.pack("!I", length))


def test_the_length_of_a_message_is_checked_before_its_body_is_read() -> None:
    assert wire.header(b"p\0\0\0\x08", 10) == (b"p", 4)
    for length in (3, 15, 0xFFFFFFFF):
        with pytest.raises(RequestError, match="invalid message length"):
            wire.header(b"p" + struct.pack("!I", length), 10)


@given(st.lists(st.tuples(st.sampled_from([b"R", b"S", b"Z"]), st.binary(max_size=20))), st.data())
def test_messages_are_split_alike_at_every_cut(
    messages: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(wire.message(kind, body) for kind, body in messages)
    cut = data.draw(st.integers(0, len(stream)))
    first, rest = wire.split(stream[:cut])
    second, end = wire.split(rest + stream[cut:])
    assert first + second == messages
    assert end == b""


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_the_protocols_error(data: bytes) -> None:
    wire.preamble(data, True)
    wire.fields(data)
    for read in (wire.parse_startup, wire.split):
        with contextlib.suppress(RequestError):
            read(data)


def test_error_fields_survive_the_round_trip_and_hold_no_terminators() -> None:
    message = wire.error_response({"S": "ERROR", "M": "a\0b", "D": ""})
    assert wire.fields(message[5:]) == {"S": "ERROR", "M": "ab"}
    assert wire.header(message[:5], 100) == (b"E", len(message) - 5)

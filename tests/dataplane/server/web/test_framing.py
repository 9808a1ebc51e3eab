"""Bytes to requests: however they are cut, within bounds, and never two ways."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.server.web.framing import (
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    TARGET_BYTES_MAX,
    BodyRoom,
    FramingError,
    RequestReader,
)

BODY_MAX = 256 * 1024
ROOM = 1024 * 1024


def reader(room: BodyRoom | None = None) -> RequestReader:
    return RequestReader(
        body_bytes_max=BODY_MAX,
        room=room or BodyRoom(ROOM),
        address=ip_address("127.0.0.1"),
        server_name="name",
        connection_id="c1",
    )


def post(body: bytes, headers: str = "") -> bytes:
    return (
        f"POST /x?y HTTP/1.1\r\nHost: h\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode()
        + body
    )


def chunked(*parts: bytes, trailer: bytes = b"") -> bytes:
    head = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + chunks + b"0\r\n" + trailer + b"\r\n"


def read(data: bytes, cuts: list[int] | None = None) -> list[tuple[str, str, bytes]]:
    found = reader()
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    start = 0
    for end in ends:
        if end > start:
            found.feed(data[start:end])
        start = end
    return [(item.call.method, item.call.target, item.call.body) for item in found.ready]


@given(
    bodies=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    is_chunked=st.booleans(),
    cuts=st.lists(st.integers(min_value=0, max_value=5000), max_size=12),
)
def test_requests_are_the_same_however_their_bytes_are_cut(
    bodies: list[bytes], is_chunked: bool, cuts: list[int]
) -> None:
    frame = (lambda body: chunked(*filter(None, [body[:7], body[7:]]))) if is_chunked else post
    data = b"".join(frame(body) for body in bodies)
    assert read(data, cuts) == read(data)
    assert [body for _, _, body in read(data, cuts)] == bodies


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)), max_size=6),
    st.lists(st.integers(0, 500), max_size=5),
)
def test_mangled_requests_are_refused_or_read_and_never_break_the_reader(
    body: bytes, changes: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = bytearray(post(body, "x-a: 1\r\n") + chunked(body or b"x"))
    for position, change in changes:
        position %= len(data)
        data[position : position + len(change)] = change
    try:
        read(bytes(data), cuts)
    except FramingError as fault:
        assert fault.status in {400, 413, 414, 417, 431, 505}


@given(st.binary(max_size=400))
def test_noise_is_refused(data: bytes) -> None:
    try:
        found = read(data)
    except FramingError as fault:
        assert fault.status in {400, 431}
    else:
        assert found == []


def test_a_call_says_all_that_is_known() -> None:
    found = reader()
    found.feed(post(b"body", "X-Amz-Target: T\r\nx-Own: \xe9\r\n"))
    (received,) = found.ready
    call = received.call
    assert call.header("x-amz-target") == "T"
    assert call.headers[0] == ("host", "h")
    assert (call.server_name, call.connection_id, str(call.address)) == ("name", "c1", "127.0.0.1")
    assert received.keeps_alive
    assert not received.is_http_10


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"POST / HTTP/1.1\nhost: h\n\n", 400),
        (b"POST / HTTP/2.0\r\nhost: h\r\n\r\n", 505),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400),
        (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999999999999\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n"
            b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: h\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", 400),
        (b"CONNECT h:80 HTTP/1.1\r\nhost: h\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: h\r\nexpect: tea\r\n\r\n", 417),
        (b"POST /" + b"x" * TARGET_BYTES_MAX + b" HTTP/1.1\r\nhost: h\r\n\r\n", 414),
        (b"POST / HTTP/1.1\r\nhost: h\r\nx: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nhost: h\r\n" + b"x: y\r\n" * HEADERS_MAX + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % (BODY_MAX + 1), 413),
        (chunked(b"x" * BODY_MAX, b"y"), 413),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_status(data: bytes, status: int) -> None:
    with pytest.raises(FramingError) as refused:
        reader().feed(data)
    assert refused.value.status == status


def test_a_header_that_never_ends_is_refused_before_it_is_kept() -> None:
    found = reader()
    found.feed(b"POST / HTTP/1.1\r\nx: ")
    with pytest.raises(FramingError) as refused:
        for _ in range(HEAD_BYTES_MAX // 1024 + 2):
            found.feed(b"y" * 1024)
    assert refused.value.status == 431


def test_trailers_are_no_headers_and_are_bounded() -> None:
    found = reader()
    found.feed(chunked(b"abc", trailer=b"authorization: mine\r\n"))
    assert [name for name, _ in found.ready[0].call.headers] == ["host", "transfer-encoding"]
    with pytest.raises(FramingError) as refused:
        found.feed(chunked(b"abc", trailer=b"x: y\r\n" * HEAD_BYTES_MAX))
    assert refused.value.status == 431


def test_a_body_of_the_largest_size_is_read() -> None:
    found = reader()
    found.feed(post(b"x" * BODY_MAX))
    assert len(found.ready[0].call.body) == BODY_MAX


def test_large_bodies_share_a_room_and_give_it_back() -> None:
    room = BodyRoom(BODY_MAX + 100)
    one, two = reader(room), reader(room)
    one.feed(post(b"x" * BODY_MAX))
    assert room.left == 100
    with pytest.raises(FramingError) as refused:
        two.feed(post(b"x" * BODY_MAX))
    assert refused.value.status == 503
    one.drop()
    two.drop()
    assert room.left == BODY_MAX + 100


def test_nothing_is_read_behind_the_last_request() -> None:
    found = reader()
    found.feed(post(b"", "connection: close\r\n") + post(b"x"))
    found.feed(post(b"y"))
    assert [(item.call.body, item.keeps_alive) for item in found.ready] == [(b"", False)]


def test_http_10_is_kept_alive_only_on_demand() -> None:
    found = reader()
    found.feed(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n")
    assert [(item.is_http_10, item.keeps_alive) for item in found.ready] == [
        (True, True),
        (True, False),
    ]

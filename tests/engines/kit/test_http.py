"""The HTTP layer behind a real uvicorn (httptools, uvloop), with httpx and with bare sockets."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import zlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.kit.errors import LocalError, Reason, RequestError, rate_error
from engines.kit.http import Application, Request, Response, Router
from engines.kit.http.application import UNREAD_BYTES_MAX, Handle
from tests.servers import wait_until

BODY_BYTES_MAX = 100_000
STATUSES = {
    Reason.NOT_FOUND: 404, Reason.UNSUPPORTED: 415, Reason.LIMIT: 413, Reason.MALFORMED: 400,
    Reason.RATE: 429, Reason.INTERNAL: 500,
}  # fmt: skip


@dataclass
class Probe:
    """The application under test, and what its handlers saw."""

    url: str = ""
    address: tuple[str, int] = ("", 0)
    closed: list[str] = field(default_factory=list)
    # Kept, so that a generator is not closed only because nobody holds it any more.
    generators: list[AsyncGenerator[bytes, None]] = field(default_factory=list)


def refuse(error: RequestError, request: Request) -> Response:
    status = 405 if getattr(error, "allowed", ()) else STATUSES[error.reason]
    return Response.json({"error": error.message, "reason": error.reason}, status)


def make_router(probe: Probe) -> Router[Handle]:
    async def echo(request: Request) -> Response:
        return Response(200, await request.body(BODY_BYTES_MAX), "application/octet-stream")

    async def measure(request: Request) -> Response:
        sizes = [len(piece) async for piece in request.stream(10 * 2**20)]
        return Response.json({"total": sum(sizes), "largest": max(sizes, default=0)})

    async def show(request: Request) -> Response:
        return Response.json(
            {
                "params": request.params,
                "template": request.template,
                "query": request.query_map(),
                "first": request.query("a", "none"),
                "header": request.header("X-Probe"),
                "id": request.request_id,
            }
        )

    async def count(request: Request) -> Response:
        async def numbers() -> AsyncGenerator[bytes, None]:
            try:
                for number in range(int(request.params["count"])):
                    yield b"%d\n" % number
            finally:
                probe.closed.append("count")

        probe.generators.append(numbers())
        return Response(200, probe.generators[-1], "text/plain")

    async def fail(request: Request) -> Response:
        errors: dict[str, Exception] = {
            "rate": rate_error("read", 5, 1.2),
            "bug": ZeroDivisionError("secret detail"),
        }
        raise errors[request.params["how"]]

    async def stream_that_fails(request: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            try:
                for _ in range(int(request.params["after"])):
                    yield b"x"
                raise RequestError(Reason.NOT_FOUND, "gone")
            finally:
                probe.closed.append("failing")

        return Response(200, pieces())

    async def ignore(request: Request) -> Response:
        return Response(202)

    router: Router[Handle] = Router()
    router.add(("POST", "PUT"), "/echo", echo)
    router.add("POST", "/measure", measure)
    router.add("GET", "/v1/{name}", show)
    router.add("GET", "/v1/{name}/of/{key:rest}", show)
    router.add("GET", "/v1/fixed", ignore)
    router.add("GET", "/count/{count}", count)
    router.add("GET", "/fail/{how}", fail)
    router.add("GET", "/failing/{after}", stream_that_fails)
    router.add(("POST", "OPTIONS"), "/ignore", ignore)
    return router


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    probe = Probe()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        Application(make_router(probe), refuse),
        http="httptools", loop="uvloop", log_config=None, lifespan="on", ws="none",
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started, "uvicorn serves")
        probe.address = listener.getsockname()[:2]
        probe.url = "http://{}:{}".format(*probe.address)
        yield probe
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture
def client(probe: Probe) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=probe.url, timeout=10) as client:
        yield client


def exchange(probe: Probe, data: bytes) -> bytes:
    """Send bytes and return all that comes back until the server closes."""
    with socket.create_connection(probe.address, timeout=10) as connection:
        connection.sendall(data)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def test_path_parameters_are_decoded_after_the_path_is_split(client: httpx.Client) -> None:
    shown = client.get("/v1/a%2Fb%20%C3%A9/of/x//y%2Fz/").json()
    assert shown["params"] == {"name": "a/b é", "key": "x//y/z/"}
    assert shown["template"] == "/v1/{name}/of/{key:rest}"


def test_query_and_headers_are_read(client: httpx.Client) -> None:
    shown = client.get(
        "/v1/n?a=1&b=&a=2%26+x", headers=[("x-probe", "one"), ("X-Probe", "two")]
    ).json()
    assert shown["query"] == {"a": ["1", "2& x"], "b": [""]}
    assert shown["first"] == "1"
    assert shown["header"] == "one, two"
    assert client.get("/v1/n").json()["first"] == "none"


def test_a_fixed_segment_wins_over_a_parameter(client: httpx.Client) -> None:
    assert client.get("/v1/fixed").status_code == 202
    assert client.get("/v1/fixed/of/x").json()["params"] == {"name": "fixed", "key": "x"}


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/a/b", "/v1/a/of", "/v1/a/of/", "/echo/"])
def test_an_unknown_path_is_404_in_the_engines_words(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["reason"] == "not_found"


def test_a_wrong_method_is_405_with_the_right_ones(client: httpx.Client) -> None:
    answer = client.delete("/echo")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "OPTIONS, POST, PUT"
    assert client.post("/v1/x").headers["allow"] == "GET, HEAD, OPTIONS"
    assert client.head("/echo").status_code == 405


def test_options_is_answered_by_the_route_or_by_its_own_handler(client: httpx.Client) -> None:
    answer = client.options("/v1/x")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "content-length" not in answer.headers
    assert client.options("/ignore").status_code == 202
    assert client.options("/nowhere").status_code == 404


def test_head_has_the_headers_of_get_and_no_body(client: httpx.Client, probe: Probe) -> None:
    got, head = client.get("/v1/x"), client.head("/v1/x")
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"]
    probe.closed.clear()
    assert client.head("/count/5").content == b""
    assert probe.closed == ["count"]


def test_a_sane_request_id_is_kept_and_any_other_replaced(client: httpx.Client) -> None:
    kept = client.get("/v1/x", headers={"x-request-id": "trace-1.2:3_4"})
    assert kept.headers["x-request-id"] == kept.json()["id"] == "trace-1.2:3_4"
    for bad in ("", "a b", "x" * 65, "a\tb", '"'):
        answer = client.get("/v1/x", headers={"x-request-id": bad})
        assert len(answer.headers["x-request-id"]) == 32
    assert client.get("/nowhere").headers["x-request-id"]


@pytest.mark.parametrize("size", [0, 1, 70_000, BODY_BYTES_MAX])
def test_bodies_up_to_the_limit_arrive_whole_plain_chunked_and_gzipped(
    client: httpx.Client, size: int
) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    assert client.post("/echo", content=body).content == body
    chunks = (body[start : start + 7000] for start in range(0, size, 7000))
    assert client.post("/echo", content=chunks).content == body
    packed = gzip.compress(body)
    headers = {"content-encoding": "gzip"}
    assert client.post("/echo", content=packed, headers=headers).content == body


def test_a_body_that_deflate_cannot_shrink_may_still_fill_the_limit(client: httpx.Client) -> None:
    body = b"".join(zlib.crc32(b"%d" % number).to_bytes(4) for number in range(25_000))
    assert len(body) == BODY_BYTES_MAX
    packed = gzip.compress(body, compresslevel=0)
    assert len(packed) > BODY_BYTES_MAX
    answer = client.post("/echo", content=packed, headers={"content-encoding": "gzip"})
    assert answer.content == body


def test_gzip_members_may_follow_each_other(client: httpx.Client) -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    answer = client.post("/echo", content=packed, headers={"content-encoding": "x-gzip"})
    assert answer.content == b"one two"


def test_one_byte_over_the_limit_is_413_however_it_is_sent(client: httpx.Client) -> None:
    body = b"x" * (BODY_BYTES_MAX + 1)
    assert client.post("/echo", content=body).status_code == 413
    assert client.post("/echo", content=iter([body[:50_000], body[50_000:]])).status_code == 413
    packed = gzip.compress(body)
    headers = {"content-encoding": "gzip"}
    answer = client.post("/echo", content=packed, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"] == f"the body is larger than {BODY_BYTES_MAX} bytes"


def test_a_bomb_is_refused_piece_by_piece(client: httpx.Client) -> None:
    packed = gzip.compress(bytes(200 * 2**20), compresslevel=9)
    assert len(packed) < 250_000
    headers = {"content-encoding": "gzip"}
    assert client.post("/measure", content=packed, headers=headers).status_code == 413
    # Within the limit, no piece is ever larger than 64 KiB.
    honest = gzip.compress(bytes(9 * 2**20))
    answer = client.post("/measure", content=honest, headers=headers).json()
    assert answer == {"total": 9 * 2**20, "largest": 64 * 1024}


def test_an_endless_row_of_empty_gzip_members_is_refused(client: httpx.Client) -> None:
    empty = gzip.compress(b"")
    answer = client.post(
        "/echo", content=iter([empty * 1000] * 6), headers={"content-encoding": "gzip"}
    )
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "packed",
    [b"x", gzip.compress(b"abc")[:-1], gzip.compress(b"abc") + b"x", zlib.compress(b"abc")],
    ids=["garbage", "cut", "trailing", "zlib"],
)
def test_broken_gzip_is_400(client: httpx.Client, packed: bytes) -> None:
    answer = client.post("/echo", content=packed, headers={"content-encoding": "gzip"})
    assert answer.status_code == 400
    assert "gzip" in answer.json()["error"]


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_other_encodings_are_415(client: httpx.Client, encoding: str) -> None:
    answer = client.post("/echo", content=b"x", headers={"content-encoding": encoding})
    assert answer.status_code == 415


def test_a_limit_is_checked_before_the_body_is_sent(probe: Probe) -> None:
    received = exchange(
        probe,
        b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
        b"content-length: 99999999999\r\n\r\n",
    )
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in received
    assert b"connection: close" in received


def test_a_client_that_waits_is_told_to_continue(probe: Probe) -> None:
    with socket.create_connection(probe.address, timeout=10) as connection:
        connection.sendall(
            b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n"
            b"connection: close\r\n\r\n"
        )
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hi")
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.endswith(b"\r\n\r\nhi")


def test_a_small_body_that_nobody_reads_keeps_the_connection(probe: Probe) -> None:
    body = b"POST /ignore HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nGET /"
    last = b"GET /v1/last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    received = exchange(probe, body * 3 + last)
    assert received.count(b"HTTP/1.1 202 ") == 3
    assert b'"name":"last"' in received


def test_a_large_body_that_nobody_reads_ends_the_connection(client: httpx.Client) -> None:
    small = client.post("/ignore", content=b"x" * UNREAD_BYTES_MAX)
    large = client.post("/ignore", content=b"x" * (UNREAD_BYTES_MAX + 1))
    assert "connection" not in small.headers
    assert large.headers["connection"] == "close"


def test_requests_share_a_connection(probe: Probe) -> None:
    one = b"GET /v1/%d HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    received = exchange(probe, b"".join(one % number for number in range(20)) + last)
    assert received.count(b"HTTP/1.1 200 OK") == 20
    assert received.count(b"HTTP/1.1 404 ") == 1
    assert received.index(b'"name":"3"') < received.index(b'"name":"4"')


def test_a_response_is_streamed_and_its_generator_closed(
    client: httpx.Client, probe: Probe
) -> None:
    probe.closed.clear()
    answer = client.get("/count/20000")
    assert answer.text == "".join(f"{number}\n" for number in range(20000))
    assert answer.headers["transfer-encoding"] == "chunked"
    assert probe.closed == ["count"]
    assert client.get("/count/0").content == b""


def test_an_error_before_the_first_piece_is_answered(client: httpx.Client) -> None:
    answer = client.get("/failing/0")
    assert answer.status_code == 404
    assert answer.json()["error"] == "gone"


def test_an_error_after_the_first_piece_cuts_the_connection(
    client: httpx.Client, probe: Probe
) -> None:
    probe.closed.clear()
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/failing/3")
    assert probe.closed == ["failing"]


def test_a_rate_refusal_says_when_to_come_back(client: httpx.Client) -> None:
    answer = client.get("/fail/rate")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"


def test_a_bug_is_an_internal_error_without_its_details(client: httpx.Client) -> None:
    answer = client.get("/fail/bug")
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error", "reason": "internal"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/%FF", 400),
        ("/v1/%zz", 200),
        ("/v1/x?a=%FF", 400),
        ("/v1/x?" + "&".join(["a=1"] * 1001), 413),
        ("/v1/" + "x" * 9000, 413),
    ],
)
def test_malformed_paths_and_queries_are_refused(probe: Probe, path: str, status: int) -> None:
    received = exchange(
        probe, f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
    )
    assert received.startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_broken_http_is_400_and_ends_the_connection(probe: Probe, data: bytes) -> None:
    assert b"400 Bad Request" in exchange(probe, data)


def test_a_client_that_leaves_in_its_body_harms_nobody(probe: Probe, client: httpx.Client) -> None:
    with socket.create_connection(probe.address, timeout=10) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
    assert client.get("/v1/x").status_code == 200


# What follows needs no server.


def test_routes_that_collide_are_our_own_fault() -> None:
    router: Router[int] = Router()
    router.add("GET", "/a/{b}", 1)
    for method, template in [
        ("GET", "/a/{b}"), ("POST", "/a/{c}"), ("GET", "a"), ("GET", "/{x:rest}/y"),
    ]:  # fmt: skip
        with pytest.raises(LocalError):
            router.add(method, template, 2)
    router.add("POST", "/a/{b}", 3)
    assert router.find("POST", b"/a/x").handler == 3


def test_a_dead_end_of_fixed_segments_is_left_again() -> None:
    router: Router[str] = Router()
    for template in ("/a/b/c", "/a/{x}/d", "/{y}/b/e", "/{all:rest}"):
        router.add("GET", template, template)
    found = {
        path: router.find("GET", path.encode()).handler
        for path in ("/a/b/c", "/a/b/d", "/a/b/e", "/a/b/f", "/x")
    }
    assert found == {
        "/a/b/c": "/a/b/c", "/a/b/d": "/a/{x}/d", "/a/b/e": "/{y}/b/e", "/a/b/f": "/{all:rest}",
        "/x": "/{all:rest}",
    }  # fmt: skip


@given(st.binary(max_size=60))
def test_any_path_is_found_or_refused(path: bytes) -> None:
    router: Router[int] = Router()
    router.add("GET", "/v1/{name}/of/{key:rest}", 1)
    for raw in (path, b"/v1/" + path, b"/v1/x/of/" + path):
        try:
            match = router.find("GET", raw)
        except RequestError as error:
            assert error.reason in (Reason.NOT_FOUND, Reason.MALFORMED)
        else:
            assert all(match.params.values())


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(1, 40), st.integers(0, 1200))
async def test_gzip_bodies_cut_anywhere_inflate_to_themselves_or_hit_the_limit(
    members: list[bytes], step: int, limit: int
) -> None:
    packed = b"".join(gzip.compress(member, mtime=0) for member in members) or gzip.compress(b"")
    pieces = [packed[start : start + step] for start in range(0, len(packed), step)]
    messages = iter(
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    )

    async def receive() -> dict[str, object]:
        return next(messages)

    scope = {"method": "POST", "path": "/", "headers": [(b"content-encoding", b"gzip")]}
    expected = b"".join(members)
    request = Request(scope, receive)
    if len(expected) <= limit:
        assert await request.body(limit) == expected
        assert request.unread_bytes() == 0
    else:
        with pytest.raises(RequestError) as caught:
            await request.body(limit)
        assert caught.value.reason is Reason.LIMIT


def test_a_header_that_would_break_the_framing_is_our_own_fault() -> None:
    for name, value in (("x", "a\r\nb"), ("x\n", "a"), ("x", "a\0")):
        with pytest.raises(LocalError):
            Response(headers={name: value})


def test_json_is_compact_and_refuses_nan() -> None:
    assert Response.json({"a": [1, "é"]}).body == '{"a":[1,"é"]}'.encode()
    assert json.loads("null") is None
    with pytest.raises(ValueError, match="JSON compliant"):
        Response.json(float("nan"))


async def test_websockets_are_turned_away_and_lifespan_is_answered() -> None:
    sent: list[dict[str, object]] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> dict[str, object]:
        return next(events)

    application = Application(Router(), refuse)
    await application({"type": "websocket"}, receive, send)
    await application({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == [
        "websocket.close", "lifespan.startup.complete", "lifespan.shutdown.complete",
    ]  # fmt: skip

"""The HTTP front in a real worker, over raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.kit.records import InstanceRecord, Status
from tests.dataplane.certificates import Authority
from tests.dataplane.plane import ControlDatabase, Plane, elapsed, instance, key, metric, until
from tests.dataplane.server.web.http_client import Caller, Front
from tests.dataplane.whole_engine import BODY_BYTES_MAX, ENGINE, REFUSED
from tests.servers import PostgresServer, RedisServer, temporary_home

BOUNDS = {
    "linger_s": 0.5, "head_timeout_s": 0.6, "body_timeout_s": 1.0, "keep_alive_s": 2.0,
    "handshake_timeout_s": 1.0, "spare_after_s": 60.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def served(postgres: PostgresServer, redis: RedisServer) -> Iterator[tuple[Plane, Path]]:
    with temporary_home("wkd") as home:
        authority = Authority(home)
        certificate, private_key = authority.issue("localhost")
        database = ControlDatabase(postgres, "dataplane_front")
        plane = Plane(
            home,
            database,
            redis,
            engine=ENGINE,
            bounds=BOUNDS,
            tls={"cert": certificate, "key": private_key},
            cells=f"local={postgres.dsn('dataplane_front')}",
        )
        plane.start()
        yield plane, authority.ca
        plane.close()


@pytest.fixture
async def front(served: tuple[Plane, Path]) -> AsyncIterator[Front]:
    plane, _ = served
    plane.begin_test()
    credential, password = key()
    record = await plane.know(instance(credential, engine="whole", cell="local"))
    front = Front(plane, record, Caller(credential, password))
    yield front
    await front.close()
    await plane.close_parts()


async def test_a_request_arrives_as_it_was_sent(front: Front) -> None:
    client = await front.open()
    body = bytes(range(256))
    answer = await client.ask(front.caller.request("/echo?a=%20b", body, headers="X-One: 1\r\n"))
    said = answer.json
    assert answer.status == 200
    assert answer.headers["x-own"] == "yes"
    assert answer.headers["date"].endswith(" GMT")
    assert (said["method"], said["target"]) == ("POST", "/echo?a=%20b")
    assert ["x-one", "1"] in said["headers"]
    assert said["sha256"] == hashlib.sha256(body).hexdigest()
    assert (said["address"], said["server_name"]) == ("127.0.0.1", "")
    assert said["instance"] == front.record.handle


async def test_a_connection_serves_many_requests_and_keeps_their_order(front: Front) -> None:
    client = await front.open()
    client.send(b"".join(front.caller.request("/answer", b"%d" % n) for n in range(200)))
    assert [(await client.answer()).body for _ in range(200)] == [b"%d" % n for n in range(200)]


async def test_a_request_may_come_byte_by_byte(front: Front) -> None:
    client = await front.open()
    client.writer.transport.get_extra_info("socket").setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )
    for byte in front.caller.request("/answer", b"whole"):
        client.send(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.answer()).body == b"whole"


async def test_answers_may_be_chunked(front: Front) -> None:
    client = await front.open()
    body = bytes(200_000)
    answer = await client.ask(front.caller.request("/chunked", body))
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers
    assert answer.body == body
    old = await client.ask(front.caller.request("/answer", b"x", version="1.0"))
    assert old.headers["connection"] == "close"


async def test_head_has_a_length_and_no_body(front: Front) -> None:
    client = await front.open()
    client.send(front.caller.request("/big?1000", method="HEAD"))
    answer = await client.answer(has_body=False)
    assert answer.headers["content-length"] == "1000"
    assert (await client.ask(front.caller.request("/answer", b"next"))).body == b"next"


async def test_who_expects_it_is_told_to_continue_after_the_answers_before(front: Front) -> None:
    client = await front.open()
    request = front.caller.request("/answer", b"late", headers="Expect: 100-continue\r\n")
    client.send(front.caller.request("/answer", b"first") + request[:-4])
    assert (await client.answer()).body == b"first"
    assert (await client.answer()).status == 100
    client.send(b"late")
    assert (await client.answer()).body == b"late"


async def test_connection_close_is_heeded(front: Front) -> None:
    client = await front.open()
    answer = await client.ask(front.caller.request("/echo", headers="connection: close\r\n"))
    assert answer.headers["connection"] == "close"
    assert await client.is_over()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"POST /open HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999\r\n\r\n", 413),
    ],
)
async def test_what_is_no_request_gets_the_engines_refusal_and_the_end(
    front: Front, data: bytes, status: int
) -> None:
    client = await front.open()
    client.send(b"GET /open HTTP/1.1\r\nhost: h\r\n\r\n" + data)
    assert (await client.answer()).body == b"open"
    answer = await client.answer()
    assert (answer.status, answer.headers["x-status"]) == (status, str(status))
    assert answer.body == REFUSED.encode()
    assert answer.headers["connection"] == "close"
    assert await client.is_over()
    await until(lambda: bool(front.plane.logged("request_refused")), "it is logged")
    assert front.plane.logged("request_refused")[-1]["status"] == status


async def test_the_refusal_of_a_large_body_reaches_who_is_still_sending(front: Front) -> None:
    client = await front.open()
    client.send(front.caller.request("/answer", bytes(8 * BODY_BYTES_MAX)))
    assert (await client.answer()).status == 413


async def test_a_body_that_grows_over_the_bound_is_refused(front: Front) -> None:
    client = await front.open()
    head = front.caller.request("/answer", length=0).replace(
        b"content-length: 0", b"transfer-encoding: chunked"
    )
    client.send(head + b"%x\r\n" % (2 * BODY_BYTES_MAX) + bytes(2 * BODY_BYTES_MAX))
    assert (await client.answer()).status == 413


async def test_a_body_of_the_largest_size_is_served(front: Front) -> None:
    client = await front.open()
    answer = await client.ask(front.caller.request("/echo", bytes(BODY_BYTES_MAX)))
    assert answer.json["body_bytes"] == BODY_BYTES_MAX


@pytest.mark.parametrize(
    "part", [b"POST /echo HT", b"POST /open HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc"]
)
async def test_a_request_that_comes_too_slowly_is_given_up(front: Front, part: bytes) -> None:
    client, watch = await front.open(), elapsed()
    client.send(part)
    assert (await client.answer()).status == 408
    assert 0.5 < watch() < 3
    assert await client.is_over()


async def test_a_trickle_does_not_stretch_the_time(front: Front) -> None:
    client, watch = await front.open(), elapsed()
    answer = asyncio.create_task(client.answer())
    client.send(b"POST /open HTTP/1.1\r\n")
    while not answer.done():
        client.send(b"x-a: b\r\n")
        await asyncio.wait([answer], timeout=0.05)
    assert (await answer).status == 408
    assert watch() < 2


async def test_a_connection_without_requests_ends(front: Front) -> None:
    client = await front.open()
    assert (await client.ask(front.caller.request("/answer", b"x"))).status == 200
    assert await client.is_over()


async def test_a_client_that_does_not_take_its_answers_is_left(front: Front) -> None:
    client = await front.open()
    client.send(front.caller.request("/big?100000000"))
    before = await client.reader.readexactly(10)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    assert before == b"HTTP/1.1 2"
    await until(
        lambda: metric(front.plane.admin("/metrics")[1], "weftkit_connections_open") == 0,
        "the connection is gone",
    )


async def test_a_client_that_leaves_stops_nothing_that_has_begun(front: Front) -> None:
    client, other = await front.open(), await front.open()
    name = f"t{hashlib.sha256(front.record.handle.encode()).hexdigest()[:8]}"
    statement = f"CREATE TABLE {name} AS SELECT 1 AS n FROM pg_sleep(0.3)"
    client.send(front.caller.request("/sql", statement.encode()))
    await asyncio.sleep(0)
    sock = client.writer.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await until(
        lambda: (
            front.plane.database.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
            != []
        ),
        "the statement runs",
    )
    client.writer.transport.abort()

    def is_there() -> bool:
        return front.plane.database.rows(f"SELECT to_regclass('{name}')") != [(None,)]

    await until(is_there, "it was finished")
    assert (await other.ask(front.caller.request("/answer", b"y"))).body == b"y"


async def test_half_closed_clients_get_their_answers(front: Front) -> None:
    client = await front.open()
    client.send(front.caller.request("/answer", b"1") + front.caller.request("/answer", b"2"))
    client.writer.write_eof()
    assert [(await client.answer()).body for _ in range(2)] == [b"1", b"2"]
    assert await client.is_over()


async def test_a_fault_of_the_engine_is_an_error_of_one_request(front: Front) -> None:
    client = await front.open()
    assert (await client.ask(front.caller.request("/fail"))).status == 500
    await until(lambda: bool(front.plane.logged("request_failed")), "it is logged")
    fresh = await front.open()
    assert (await fresh.ask(front.caller.request("/answer", b"x"))).status == 200


async def test_tls_and_plain_share_the_port(front: Front, served: tuple[Plane, Path]) -> None:
    context = ssl.create_default_context(cafile=served[1])
    client = await front.open(tls=context, server_name="localhost")
    answer = await client.ask(front.caller.request("/echo", bytes(300_000)))
    assert answer.json["server_name"] == "localhost"
    assert answer.json["body_bytes"] == 300_000
    client.send(b"nonsense\r\n\r\n")
    assert (await client.answer()).status == 400


async def test_wrong_passwords_are_refused_and_counted(front: Front) -> None:
    client = await front.open()
    credential, _ = key()
    stranger = Caller(credential, "wrong")
    before = metric(front.plane.admin("/metrics")[1], "weftkit_sign_ins_total", outcome="failed")
    assert (await client.ask(stranger.request("/echo"))).body == b"unauthenticated"

    def is_counted() -> bool:
        text = front.plane.admin("/metrics")[1]
        return metric(text, "weftkit_sign_ins_total", outcome="failed") == before + 1

    await until(is_counted, "the failure is counted")
    # The connection is still good for who can prove themselves.
    assert (await client.ask(front.caller.request("/answer", b"x"))).body == b"x"


async def test_a_suspended_instance_refuses_and_closes_idle_connections(front: Front) -> None:
    client = await front.open()
    assert (await client.ask(front.caller.request("/answer", b"x"))).status == 200
    front.plane.database.publish(
        InstanceRecord.from_json({**front.record.to_json(), "status": Status.SUSPENDED.value})
    )
    assert await client.is_over()
    late = await front.open()
    assert (await late.ask(front.caller.request("/answer", b"x"))).body == b"suspended"


async def test_a_revoked_credential_is_refused_on_a_connection_that_it_opened(
    front: Front,
) -> None:
    client = await front.open()
    assert (await client.ask(front.caller.request("/answer", b"x"))).status == 200
    front.plane.database.publish(
        InstanceRecord.from_json({**front.record.to_json(), "credentials": []})
    )
    assert await client.is_over()


async def test_connections_are_counted_against_the_plan_and_given_back(front: Front) -> None:
    record = front.record.to_json()
    record["limits"]["connections"] = 2
    await front.plane.know(InstanceRecord.from_json(record))
    clients = [await front.open() for _ in range(3)]
    seen = [(await client.ask(front.caller.request("/answer", b"x"))).body for client in clients]
    assert seen == [b"x", b"x", b"connections"]
    # The same connection again is not one more.
    assert (await clients[0].ask(front.caller.request("/answer", b"x"))).body == b"x"
    await clients[0].close()

    async def has_room() -> bool:
        return (await clients[2].ask(front.caller.request("/answer", b"x"))).body == b"x"

    async with asyncio.timeout(5):
        while not await has_room():
            pass


async def test_bytes_and_units_reach_the_meter(front: Front) -> None:
    client = await front.open()
    request = front.caller.request("/answer", bytes(5000))
    answer = await client.ask(request)
    assert answer.status == 200
    await until(
        lambda: front.plane.database.usage(front.record)["bytes_in"] == len(request),
        "the bytes are counted",
    )
    assert front.plane.database.usage(front.record)["bytes_out"] > 5000


async def test_requests_are_measured_by_operation(front: Front) -> None:
    client = await front.open()
    assert (await client.ask(front.caller.request("/answer", b"x"))).status == 200

    def is_shown() -> bool:
        text = front.plane.admin("/metrics")[1]
        labels = {"engine": "whole", "operation": "answer"}
        return (
            metric(text, "weftkit_http_requests_total", status="200", **labels) > 0
            and metric(text, "weftkit_http_request_seconds_count", **labels) > 0
        )

    await until(is_shown, "the request is measured")


async def test_anonymous_access_is_off(front: Front) -> None:
    client = await front.open()
    request = b"POST /echo HTTP/1.1\r\nhost: h\r\nauthorization: anybody x\r\n"
    answer = await client.ask(request + b"content-length: 0\r\n\r\n")
    assert answer.body == b"unauthenticated"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.sampled_from(
            [b"POST /open HTTP/1.1\r\n", b"host: h\r\n", b"\r\n", b"content-length: 3\r\n", b"abc",
             b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\xff\x00", b":",
             b"expect: 100-continue\r\n", b"connection: close\r\n", b"GET /open HTTP/1.0\r\n\r\n"]
        ),
        max_size=14,
    )
)  # fmt: skip
def test_noise_never_harms_the_next_client(served: tuple[Plane, Path], parts: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", served[0].port), timeout=10) as client:
        client.sendall(b"".join(parts))
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(65536):
                pass
    with socket.create_connection(("127.0.0.1", served[0].port), timeout=10) as client:
        client.sendall(b"GET /open HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        data = b""
        while part := client.recv(65536):
            data += part
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        assert data.endswith(b"open")
    log = served[0].log_text()
    assert "http_connection_failed" not in log

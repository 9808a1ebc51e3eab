"""Streams cut into pieces, and streams that nobody reads."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import struct
import threading
from collections.abc import Callable

import psycopg
import pytest
import redis

from tests.servers import wait_until
from tests.stack import Connection
from tests.torture import raw
from tests.torture.splitter import Cut, one_byte, ragged, split
from tests.torture.watch import MEBIBYTE, Watch

pytestmark = pytest.mark.stack

CUTS = (one_byte, ragged)
SEED = 20
GROWTH_BYTES_MAX = 32 * MEBIBYTE
# Looks at the worker in a row that find it idle, while there is more to send.
STALLED_LOOKS = 20

ROWS = 2000
ROW_BYTES = 100_000
VALUES = 200
VALUE = random.Random(SEED).randbytes(MEBIBYTE)


def relational_session(row: Connection, sslmode: str) -> list[object]:
    """Use much of the protocol; return what came out."""
    rows = [(n, "é" * (n % 50), n / 4) for n in range(100)]
    seen: list[object] = []
    with psycopg.connect(row.uri, sslmode=sslmode, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE cut (n int, t text, f float8)")
        with connection.cursor() as cursor:
            with cursor.copy("COPY cut FROM STDIN") as copy:
                for values in rows:
                    copy.write_row(values)
            with cursor.copy("COPY cut TO STDOUT (FORMAT binary)") as copy:
                seen.append(b"".join(copy))
        with connection.pipeline():
            cursors = [
                connection.execute("SELECT t, %s::bytea FROM cut WHERE n = %s", (bytes(n), n))
                for n in range(60)
            ]
            seen += [cursor.fetchall() for cursor in cursors]
        with pytest.raises(psycopg.errors.DivisionByZero) as caught:
            connection.execute("SELECT 1 / 0")
        seen.append(str(caught.value))
        with connection.transaction():
            seen.append(connection.execute("SELECT * FROM cut ORDER BY n").fetchall())
        connection.execute("LISTEN piece")
        connection.execute("NOTIFY piece, 'by piece'")
        seen += [each.payload for each in connection.notifies(timeout=10, stop_after=1)]
    return seen


def inmemory_session(row: Connection, protocol: int) -> list[object]:
    """Use much of the protocol; return what came out."""
    seen: list[object] = []
    with redis.Redis.from_url(row.uri, protocol=protocol) as client:
        client.flushall()
        client.set("blob", bytes(range(256)) * 8)
        client.hset("hash", mapping={f"field{n}": n for n in range(50)})
        client.zadd("scores", {f"member{n}": n / 8 for n in range(50)})
        with client.pipeline(transaction=True) as pipeline:
            for n in range(50):
                pipeline.set(f"key{n}", "\r\n" * n).get(f"key{n}").lpush("hash", "wrong type")
            seen += map(str, pipeline.execute(raise_on_error=False))
        seen += [client.get("blob"), client.hgetall("hash"), client.dbsize()]
        seen += [client.zrange("scores", 0, -1, withscores=True)]
        seen += [client.eval("return {1, 'two', {3}, false}", 0)]
        with client.pubsub() as listener:
            listener.subscribe("piece")
            seen.append(listener.get_message(timeout=10))
            client.publish("piece", b"\r\n+OK\r\n")
            seen.append(listener.get_message(timeout=10))
    return seen


@pytest.mark.parametrize("sslmode", ["disable", "require"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_relational_session_in_pieces_is_the_same(
    relational: Connection, cut: Cut, sslmode: str
) -> None:
    whole = relational_session(relational, sslmode)
    with split(relational, cut, SEED) as reached:
        assert relational_session(reached, sslmode) == whole


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("cut", CUTS)
def test_an_inmemory_session_in_pieces_is_the_same(
    inmemory: Connection, cut: Cut, protocol: int
) -> None:
    whole = inmemory_session(inmemory, protocol)
    with split(inmemory, cut, SEED) as reached:
        assert inmemory_session(reached, protocol) == whole


def wait_stalled(watch: Watch, connection: socket.socket) -> None:
    """Wait until the worker has something to send and does nothing."""
    looks = ticks = 0
    readable, _, _ = select.select([connection], [], [], raw.SECONDS_MAX)
    assert readable

    def is_stalled() -> bool:
        nonlocal looks, ticks
        now = watch.cpu_ticks()
        looks, ticks = (looks + 1 if now == ticks else 0), now
        return looks >= STALLED_LOOKS

    wait_until(is_stalled, "the worker waits for the client to read")


@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "tls"])
def test_a_result_that_nobody_reads_stays_at_its_server(
    relational: Connection, watch: Watch, is_secured: bool
) -> None:
    with raw.sign_in(relational, is_secured=is_secured) as connection:
        query = f"COPY (SELECT n || repeat('x', {ROW_BYTES}) FROM generate_series(1, {ROWS}) n)"
        connection.sendall(raw.message(b"Q", query.encode() + b" TO STDOUT\0"))
        wait_stalled(watch, connection)
        assert watch.growth_max() < GROWTH_BYTES_MAX
        raw.read_until(connection, b"H")
        for number in range(1, ROWS + 1):
            kind, body = raw.read_message(connection)
            assert kind == b"d"
            assert body == b"%d" % number + b"x" * ROW_BYTES + b"\n"
        assert raw.read_until(connection, raw.READY_FOR_QUERY) == b"I"
    assert watch.growth_max() < GROWTH_BYTES_MAX


@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "tls"])
def test_replies_that_nobody_reads_stay_at_their_server(
    inmemory: Connection, watch: Watch, is_secured: bool
) -> None:
    with raw.sign_in(inmemory, is_secured=is_secured) as connection:
        connection.sendall(raw.command(b"SET", b"large", VALUE))
        assert raw.read_exactly(connection, 5) == b"+OK\r\n"
        connection.sendall(raw.command(b"GET", b"large") * VALUES)
        wait_stalled(watch, connection)
        assert watch.growth_max() < GROWTH_BYTES_MAX
        for _ in range(VALUES):
            assert raw.read_exactly(connection, 10) == b"$%d\r\n" % len(VALUE)
            assert raw.read_exactly(connection, len(VALUE) + 2) == VALUE + b"\r\n"
        connection.sendall(raw.command(b"PING"))
        assert raw.read_exactly(connection, 7) == b"+PONG\r\n"
    assert watch.growth_max() < GROWTH_BYTES_MAX


def ask_selected(number: int) -> bytes:
    """Return a request in the extended protocol whose answer is 10 kB."""
    text = f"SELECT '{number}' || repeat('y', 10000)".encode()
    return (
        raw.message(b"P", b"\0" + text + b"\0\0\0")
        + raw.message(b"B", bytes(8))
        + raw.message(b"E", bytes(5))
        + raw.message(b"S")
    )


def ask_got(number: int) -> bytes:
    """Return a command whose answer is 10 kB and a line of its own."""
    return raw.command(b"GETRANGE", b"page", b"0", b"9999") + raw.command(b"ECHO", b"%d" % number)


def read_selected(connection: socket.socket, number: int) -> None:
    """Read the answer to `ask_selected(number)`."""
    value = b"%d" % number + b"y" * 10000
    row = raw.read_until(connection, b"D")
    assert row == struct.pack("!HI", 1, len(value)) + value
    raw.read_until(connection, raw.READY_FOR_QUERY)


def read_got(connection: socket.socket, number: int) -> None:
    """Read the answers to `ask_got(number)`."""
    digits = b"%d" % number
    answer = b"$10000\r\n%b\r\n$%d\r\n%b\r\n" % (b"y" * 10000, len(digits), digits)
    assert raw.read_exactly(connection, len(answer)) == answer


Ask, Read = Callable[[int], bytes], Callable[[socket.socket, int], None]
PIPELINES: dict[str, tuple[Ask, Read]] = {
    "relational": (ask_selected, read_selected),
    "inmemory": (ask_got, read_got),
}


@pytest.mark.parametrize("engine", PIPELINES)
def test_requests_whose_answers_nobody_reads_are_held_back(
    relational: Connection, inmemory: Connection, watch: Watch, engine: str
) -> None:
    """The client asks for 100 MB without reading, and for more until its own writes block."""
    row = {"relational": relational, "inmemory": inmemory}[engine]
    ask, read = PIPELINES[engine]
    count = 10_000
    with raw.sign_in(row) as connection:
        if engine == "inmemory":
            connection.sendall(raw.command(b"SET", b"page", b"y" * 10000))
            assert raw.read_exactly(connection, 5) == b"+OK\r\n"
        requests = b"".join(map(ask, range(count)))
        asking = threading.Thread(target=connection.sendall, args=(requests,))
        asking.start()
        wait_stalled(watch, connection)
        assert watch.growth_max() < GROWTH_BYTES_MAX
        for number in range(count):
            read(connection, number)
        asking.join()
    assert watch.growth_max() < GROWTH_BYTES_MAX


def test_a_large_upload_is_passed_on_as_it_comes(
    relational: Connection, inmemory: Connection, watch: Watch
) -> None:
    value = VALUE * 24  # the plan's memory holds the whole of it several times
    digest = hashlib.md5(value).hexdigest()
    with redis.Redis.from_url(inmemory.uri) as client:
        for _ in range(4):
            client.set("upload", value)
            assert hashlib.md5(client.getdel("upload") or b"").hexdigest() == digest
    with psycopg.connect(relational.uri) as connection:
        for _ in range(4):
            row = connection.execute("SELECT md5(%b)", (value,)).fetchone()
            assert row == (digest,)
    assert watch.growth_max() < GROWTH_BYTES_MAX

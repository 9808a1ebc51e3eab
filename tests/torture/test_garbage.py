"""Bytes that are no protocol, or nearly one: an error or a hang-up, and nothing else happens."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis

from tests.stack import Connection
from tests.torture import raw
from tests.torture.watch import MEBIBYTE, Watch

pytestmark = pytest.mark.stack

SEED = 3
GROWTH_BYTES_MAX = 32 * MEBIBYTE
STRANGERS = 4_000
MEMBERS = 1_000
# Lengths that no message may have, in PostgreSQL's four bytes and in Redis' digits.
LENGTHS = (0, 1, 3, 4, 7, 10_001, 65_536, 2**30, 2**31 - 1, 2**31, 2**32 - 5, 2**32 - 1)
NUMBERS = (-(2**63), -2, -1, 0, 11, 16_385, 1_048_577, 2**29 + 1, 2**31, 2**63 - 1, 10**30)

# Makes the bytes of one case.
Case = Callable[[random.Random, Connection], bytes]


def noise(dice: random.Random, row: Connection) -> bytes:
    """Nothing but random bytes."""
    return dice.randbytes(dice.choice((1, 4, 8, 9, 64, 600, 20_000)))


def tls_noise(dice: random.Random, row: Connection) -> bytes:
    """A TLS record, or several, that hold no handshake."""
    kind, version = dice.choice((20, 21, 22, 22, 22, 23)), dice.choice((0x0300, 0x0301, 0x0303))
    length = dice.choice((0, 1, 40, 512, 16_384, 65_535))
    record = struct.pack("!BHH", kind, version, length)
    prefix = raw.SSL_REQUEST if row.engine == "relational" and dice.random() < 0.5 else b"\x16\x03"
    return prefix + record + dice.randbytes(dice.randint(0, length))


def mutated(dice: random.Random, data: bytes) -> bytes:
    """Change some bytes, drop some, double some."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1)
        match dice.randrange(4):
            case 0:
                changed[at : at + 1] = dice.randbytes(1)
            case 1:
                del changed[at : at + dice.randint(1, 8)]
            case 2:
                changed[at:at] = changed[max(0, at - dice.randint(1, 40)) : at]
            case _:
                changed[at : at + 4] = struct.pack("!I", dice.choice(LENGTHS))
    return bytes(changed)


def relational_startup(dice: random.Random, row: Connection) -> bytes:
    """A StartupMessage and a first SCRAM message, damaged."""
    return mutated(dice, raw.startup(row.user) + raw.scram_first())


def relational_length(dice: random.Random, row: Connection) -> bytes:
    """A startup packet of an impossible length or version."""
    version = dice.choice((196608, 196609, 131072, 80877102, 80877103, 80877104, 0, 2**32 - 1))
    return struct.pack("!II", dice.choice(LENGTHS), version) + dice.randbytes(dice.randint(0, 40))


def inmemory_sign_in(dice: random.Random, row: Connection) -> bytes:
    """AUTH and HELLO, damaged; the password is wrong to begin with."""
    user = row.user.encode()
    hello = raw.command(b"HELLO", b"3", b"AUTH", user, b"wrong", b"SETNAME", b"x")
    return mutated(dice, raw.command(b"AUTH", user, b"wrong") + hello)


def inmemory_length(dice: random.Random, row: Connection) -> bytes:
    """A header that claims what nobody sends."""
    count, length = dice.choice(NUMBERS), dice.choice(NUMBERS)
    header = dice.choice((b"*%d\r\n", b"*2\r\n$%d\r\n", b"*%d\r\n$3\r\nGET\r\n", b"$%d\r\n"))
    return header % (length if b"$%d" in header else count) + dice.randbytes(dice.randint(0, 40))


STRANGE: dict[str, tuple[Case, ...]] = {
    "relational": (noise, tls_noise, relational_startup, relational_length),
    "inmemory": (noise, tls_noise, inmemory_sign_in, inmemory_length),
}
QUERY = (
    raw.message(b"Q", b"SELECT 1; SELECT 'two'\0")
    + raw.message(b"P", b"s\0SELECT $1::int\0\0\1\0\0\0\x17")
    + raw.message(b"B", b"\0s\0\0\0\0\1\0\0\0\1\x31\0\0")
    + raw.message(b"D", b"P\0")
    + raw.message(b"E", b"\0\0\0\0\0")
    + raw.message(b"C", b"Ss\0")
    + raw.message(b"S")
)
COMMANDS = (
    raw.command(b"SET", b"key", b"value", b"EX", b"100")
    + raw.command(b"MULTI")
    + raw.command(b"MGET", b"key", b"other")
    + raw.command(b"EXEC")
    + b"GET key\r\n"
    + raw.command(b"EVAL", b"return {KEYS[1], 1}", b"1", b"key")
)


def relational_message(dice: random.Random, row: Connection) -> bytes:
    """Messages of a signed-in session, damaged."""
    return mutated(dice, QUERY)


def relational_header(dice: random.Random, row: Connection) -> bytes:
    """A message of any kind and an impossible length."""
    kind = dice.choice(b"QPBDECHSXFdcfpRZ\0\xff").to_bytes(1, "big")
    return kind + struct.pack("!I", dice.choice(LENGTHS)) + dice.randbytes(dice.randint(0, 40))


def inmemory_command(dice: random.Random, row: Connection) -> bytes:
    """Commands of a signed-in session, damaged."""
    return mutated(dice, COMMANDS)


MEMBER: dict[str, tuple[Case, ...]] = {
    "relational": (noise, relational_message, relational_header),
    "inmemory": (noise, inmemory_command, inmemory_length),
}
# How an answer begins: SSL's yes or no or a message; a TLS alert; an error or another reply.
ANSWERS = {"relational": b"SNREvTDZt123CGHAKns\x15", "inmemory": b"-+$:*_%>,#(\x15"}


def sent_and_answered(connection: socket.socket, data: bytes) -> bytes:
    """Send a case and its end; return all that is answered until the other side closes."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    return raw.read_to_end(connection)


def cases(makers: tuple[Case, ...], row: Connection, count: int) -> Iterator[bytes]:
    """Yield the same cases in every run."""
    dice = random.Random(SEED)
    for number in range(count):
        yield makers[number % len(makers)](dice, row)


def assert_serves(row: Connection) -> None:
    """A client that behaves is served."""
    if row.engine == "relational":
        with psycopg.connect(row.uri) as connection:
            assert connection.execute("SELECT 42").fetchone() == (42,)
        return
    with redis.Redis.from_url(row.uri) as client:
        assert client.echo("fine") == b"fine"


@pytest.fixture(params=["relational", "inmemory"])
def row(request: pytest.FixtureRequest, relational: Connection, inmemory: Connection) -> Connection:
    """Each engine's instance in turn."""
    return {"relational": relational, "inmemory": inmemory}[request.param]


def torment(row: Connection, connect: Callable[[Connection], socket.socket], data: bytes) -> None:
    """Send one case; it is answered in the protocol, or hung up on."""
    with connect(row) as connection:
        answer = sent_and_answered(connection, data)
    assert not answer or answer[0] in ANSWERS[row.engine], (data, answer[:200])


@pytest.mark.parametrize("is_member", [False, True], ids=["before sign-in", "after sign-in"])
def test_garbage_is_refused_and_costs_nothing(
    row: Connection, watch: Watch, is_member: bool
) -> None:
    makers, count = (MEMBER, MEMBERS) if is_member else (STRANGE, STRANGERS)
    connect = raw.sign_in if is_member else raw.connect
    for data in cases(makers[row.engine], row, count):
        torment(row, connect, data)
    assert_serves(row)
    assert watch.growth_max() < GROWTH_BYTES_MAX
    watch.assert_all_given_back()


CLAIMS = {
    "relational": struct.pack("!II", 2**31 - 1, 196608),
    "inmemory": b"*2\r\n$4\r\nAUTH\r\n$536870912\r\n",
}
HUGE_QUERY = b"Q" + struct.pack("!I", 2**31 - 1) + b"SELECT '"


def test_a_stranger_who_claims_much_is_not_listened_to(row: Connection, watch: Watch) -> None:
    """What is claimed is really sent: 64 MB, as long as somebody takes it."""
    taken = 0
    with raw.connect(row) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(CLAIMS[row.engine])
            for _ in range(64):
                connection.sendall(bytes(MEBIBYTE))
                taken += 1
        assert taken < 64
        assert raw.read_to_end(connection)[:1] in (b"E", b"-", b"")
    assert watch.growth_max() < GROWTH_BYTES_MAX
    assert_serves(row)


def test_a_member_who_claims_much_is_the_servers_affair(
    relational: Connection, watch: Watch
) -> None:
    with raw.sign_in(relational) as connection:
        answer = sent_and_answered(connection, HUGE_QUERY + b"x" * 64 * MEBIBYTE)
    assert answer[:1] in (b"", b"E", b"N")
    assert watch.growth_max() < GROWTH_BYTES_MAX
    assert_serves(relational)
    watch.assert_all_given_back()

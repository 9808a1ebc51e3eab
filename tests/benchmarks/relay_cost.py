"""What each part of a relayed message costs, without sockets: microseconds of CPU, by direction.

    make bench ONLY=parts

Framing, classification, admission and metering as they are in a worker: the gate is the real one of
an unmetered plan, counting into a real counter file. What the gate costs by itself, also under a
plan that limits, stands below. The rest of what `make bench` calls "proxy us" is reading and
writing sockets.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataplane.limits.admission import ConnectionGate, InstanceState
from dataplane.limits.leases import CommonWindow
from dataplane.observe.meter import Meter
from engines.inmemory.plan import SignIn
from engines.inmemory.relay import Relay as RedisRelay
from engines.inmemory.wire import encode_command
from engines.kit.ports import Relay, RequestClass, Wait
from engines.kit.records import Limits, Role
from engines.relational.relay import Relay as PostgresRelay
from engines.relational.wire import message
from tests.dataplane.plane import instance
from tests.servers import run_redis, temporary_home

SECONDS = 0.25
ROUNDS = 3
# So many exchanges are under way before the answers come: the clock is read twice for all of them.
BATCH = 32
CHUNK_BYTES = 64 * 1024
ADMISSIONS = 200_000
# More than one process can ask for, so that units are leased and never refused.
UNMETERED, LIMITED = Limits(), Limits(read=10_000_000)


@dataclass(frozen=True)
class Exchange:
    """What a client sends and a server answers, as chunks; `count` messages of one kind."""

    name: str
    client: list[bytes]
    server: list[bytes]
    count: int = 1
    batch: int = BATCH


def microseconds(relay: Relay, exchange: Exchange) -> tuple[float, float]:
    """Return the cost a message (from the client, from the server): the best of some rounds."""
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        spent, runs = [0.0, 0.0], 0
        while sum(spent) < SECONDS:
            started = time.process_time()
            for _ in range(exchange.batch):
                for chunk in exchange.client:
                    relay.from_client(chunk)
                relay.to_server.clear()
            between = time.process_time()
            for _ in range(exchange.batch):
                for chunk in exchange.server:
                    relay.from_server(chunk)
                relay.to_client.clear()
            spent[0] += between - started
            spent[1] += time.process_time() - between
            runs += exchange.batch
        best = [min(old, new / runs) for old, new in zip(best, spent, strict=True)]
    return best[0] / exchange.count * 1e6, best[1] / exchange.count * 1e6


def chunks(data: bytes) -> list[bytes]:
    """Cut a stream as a socket would."""
    return [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]


READY = message(b"Z", b"I")
ROW = message(b"D", struct.pack("!HI", 1, 4) + b"1234")
SELECTED = message(b"C", b"SELECT 1\0")
ANSWER = message(b"T", b"\0\1abalance\0" + bytes(18)) + ROW + SELECTED + READY
QUERY = message(b"Q", b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;\0")
PARSE = message(b"P", b"\0SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0\0\0")
BIND = message(b"B", b"\0P0_1\0" + struct.pack("!HHI", 0, 1, 5) + b"12345" + b"\0\0")
BIND_UNNAMED = message(b"B", b"\0\0" + struct.pack("!HHI", 0, 1, 5) + b"12345" + b"\0\0")
EXECUTE = message(b"E", b"\0" + bytes(4))
DESCRIBE = message(b"D", b"P\0")
SYNC = message(b"S")
PARSED, BOUND = message(b"1"), message(b"2")


def postgres_exchanges() -> Iterator[Exchange]:
    """Yield whole transactions, then sixteen messages of one kind in one chunk, then bulk."""
    extended = PARSE + BIND_UNNAMED + DESCRIBE + EXECUTE + SYNC
    prepared = BIND + DESCRIBE + EXECUTE + SYNC
    yield Exchange("simple transaction", [QUERY], [ANSWER])
    yield Exchange("extended transaction", [extended], [PARSED + BOUND + ANSWER])
    yield Exchange("prepared transaction", [prepared], [BOUND + ROW + SELECTED + READY])
    yield Exchange("Sync / ReadyForQuery", [SYNC], [READY])
    for name, sent, answered in (
        ("Parse / ParseComplete", PARSE, PARSED),
        ("Bind / BindComplete", BIND, BOUND),
        ("Execute / CommandComplete", EXECUTE, SELECTED),
    ):
        yield Exchange(f"16 {name}", [sent * 16 + SYNC], [answered * 16 + READY], 16)
    rows = chunks(ROW * 100_000)
    yield Exchange("- / DataRow of 15 bytes", [QUERY], [*rows, SELECTED + READY], 100_000, 1)
    copied = chunks(message(b"d", bytes(1000)) * 20_000)
    yield Exchange("- / CopyData of 1 kB", [QUERY], [*copied, SELECTED + READY], 20_000, 1)


def redis_exchanges() -> Iterator[Exchange]:
    """Yield commands one by one, pipelined, and large."""
    get = encode_command(b"GET", b"key:000000012345")
    put = encode_command(b"SET", b"key:000000012345", bytes(64))
    big = encode_command(b"SET", b"key:000000012345", bytes(8 * 1024 * 1024))
    multi = b"".join([encode_command(b"MULTI"), put * 14, encode_command(b"EXEC")])
    ok, value = b"+OK\r\n", b"$64\r\n" + bytes(64) + b"\r\n"
    yield Exchange("GET, P=1", [get], [value])
    yield Exchange("SET, P=1", [put], [ok])
    yield Exchange("GET, P=16", [get * 16], [value * 16], 16)
    yield Exchange("SET, P=16", [put * 16], [ok * 16], 16)
    yield Exchange("SET, P=1000 in 64 kB chunks", chunks(put * 1000), [ok * 1000], 1000, 1)
    yield Exchange("MULTI of 16", [multi], [ok * 16], 16)
    yield Exchange("SET of 8 MB", chunks(big), [ok], 1, 1)


def gate(directory: Path, limits: Limits, redis_url: str) -> ConnectionGate:
    """Return a gate as a worker makes it."""
    common = CommonWindow(redis_url, time.monotonic)
    record = instance(limits=limits)
    slot = Meter(directory / record.handle, "bench", 1.0).slot(record.instance_id, "line", 1.0)
    return ConnectionGate(InstanceState(record, slot, common, workers=1, monotonic=time.monotonic))


async def admission_us(measured: ConnectionGate) -> float:
    """Return the cost of one admission, with the leases that it needs."""
    started = time.process_time()
    for _ in range(ADMISSIONS):
        while measured.admit(RequestClass.READ) is Wait.FOR_UNITS:
            await measured.wait(RequestClass.READ)
    return (time.process_time() - started) / ADMISSIONS * 1e6


def report() -> str:
    """Return the table."""
    lines = ["parts (microseconds a message)", f"{'':43}{'from client':>13}{'from server':>13}"]
    with temporary_home("wkc") as home, run_redis(home) as window:
        free = gate(home / "meter", UNMETERED, window.url())
        for engine, relay, exchanges in (
            ("relational", _postgres_relay(free), postgres_exchanges()),
            ("inmemory", _redis_relay(free), redis_exchanges()),
        ):
            for each in exchanges:
                sent, answered = microseconds(relay, each)
                lines.append(f"  {engine:11}{each.name:30}{sent:13.3f}{answered:13.3f}")
        for plan, limits in (("unmetered", UNMETERED), ("limited", LIMITED)):
            cost = asyncio.run(admission_us(gate(home / "meter", limits, window.url())))
            lines.append(f"  {'gate':11}{f'admit and count, {plan} plan':30}{cost:13.3f}")
    return "\n".join(lines) + "\n"


def _postgres_relay(admitting: ConnectionGate) -> Relay:
    relay = PostgresRelay(admitting)
    relay.from_client(message(b"P", b"P0_1\0SELECT 1\0\0\0") + SYNC)
    relay.from_server(PARSED + READY)
    return relay


def _redis_relay(admitting: ConnectionGate) -> Relay:
    sign_in = SignIn(b"wk_k", b"s", Role.ADMIN)
    return RedisRelay(admitting, sign_in, lambda user, password: None)

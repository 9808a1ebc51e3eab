"""What framing, admission and metering cost, in isolation: microseconds per message, no sockets.

    .venv/bin/python -m tests.benchmarks.relay_cost

The gate admits everything and counts, so its own cost is part of each figure.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from engines.inmemory.plan import SignIn
from engines.inmemory.relay import Relay as RedisRelay
from engines.inmemory.wire import encode_command
from engines.kit.errors import RequestError
from engines.kit.ports import Relay, RequestClass, UsageLine, Wait
from engines.kit.records import Role
from engines.relational.relay import Relay as PostgresRelay
from engines.relational.wire import message

SECONDS = 0.4
ROUNDS = 3
CHUNK_BYTES = 64 * 1024


class CountingGate:
    """Admits everything."""

    statement_timeout_ms = 0

    def __init__(self) -> None:
        self.units = [0, 0, 0, 0]

    def admit(
        self, request_class: RequestClass, units: int = 1, grows: bool = False
    ) -> RequestError | Wait | None:
        self.units[request_class] += units
        return None

    async def wait(self, request_class: RequestClass, units: int = 1) -> None:
        return None

    def usage(self) -> tuple[UsageLine, ...]:
        return ()

    def charge(self, request_class: RequestClass, units: int) -> None:
        self.units[request_class] += units

    def refund(self, request_class: RequestClass, units: int = 1) -> None:
        self.units[request_class] -= units


def microseconds(run: Callable[[], None], per_run: int) -> float:
    """Return the best of some rounds, per message."""
    best = float("inf")
    for _ in range(ROUNDS):
        count = 0
        started = time.process_time()
        while (elapsed := time.process_time() - started) < SECONDS:
            run()
            count += 1
        best = min(best, elapsed / count / per_run)
    return best * 1e6


def duplex(relay: Relay, client: list[bytes], server: list[bytes]) -> Callable[[], None]:
    """Return a run of chunks from the client, then of chunks from the server."""

    def run() -> None:
        for chunk in client:
            relay.from_client(chunk)
        relay.to_server.clear()
        for chunk in server:
            relay.from_server(chunk)
        relay.to_client.clear()

    return run


def chunks(data: bytes) -> list[bytes]:
    """Cut a stream as a socket would."""
    return [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]


READY = message(b"Z", b"I")
ROW = message(b"D", struct.pack("!HI", 1, 4) + b"1234")
ANSWER = message(b"T", b"\0\1abalance\0" + bytes(18)) + ROW + message(b"C", b"SELECT 1\0") + READY
PREPARED_ANSWER = message(b"2") + ROW + message(b"C", b"SELECT 1\0") + READY
EXTENDED_ANSWER = message(b"1") + message(b"2") + ANSWER
QUERY = message(b"Q", b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;\0")
PARSE = message(b"P", b"\0SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0\0\0")
BIND = message(b"B", b"\0P0_1\0" + struct.pack("!HHI", 0, 1, 5) + b"12345" + b"\0\0")
BIND_UNNAMED = message(b"B", b"\0\0" + struct.pack("!HHI", 0, 1, 5) + b"12345" + b"\0\0")
EXECUTE = message(b"E", b"\0" + bytes(4))
DESCRIBE = message(b"D", b"P\0")
SYNC = message(b"S")


def postgres() -> dict[str, float]:
    """Return the cost per transaction, row and megabyte."""
    relay = PostgresRelay(CountingGate())
    relay.from_client(message(b"P", b"P0_1\0SELECT 1\0\0\0") + SYNC)
    relay.from_server(message(b"1") + READY)
    prepared = BIND + DESCRIBE + EXECUTE + SYNC
    extended = PARSE + BIND_UNNAMED + DESCRIBE + EXECUTE + SYNC
    rows = ROW * 100_000
    wide = message(b"d", bytes(1000)) * 20_000
    answer = message(b"C", b"SELECT 100000\0") + READY
    return {
        "simple transaction": microseconds(duplex(relay, [QUERY], [ANSWER]), 1),
        "extended transaction": microseconds(duplex(relay, [extended], [EXTENDED_ANSWER]), 1),
        "prepared transaction": microseconds(duplex(relay, [prepared], [PREPARED_ANSWER]), 1),
        "row of 15 bytes": microseconds(duplex(relay, [QUERY], [*chunks(rows), answer]), 100_000),
        "COPY row of 1 kB": microseconds(duplex(relay, [QUERY], [*chunks(wide), answer]), 20_000),
    }


def redis() -> dict[str, float]:
    """Return the cost per command."""
    sign_in = SignIn(b"wk_k", b"s", Role.ADMIN)
    relay = RedisRelay(CountingGate(), sign_in, lambda user, password: None)
    get = encode_command(b"GET", b"key:000000012345")
    put = encode_command(b"SET", b"key:000000012345", bytes(64))
    big = encode_command(b"SET", b"key:000000012345", bytes(8 * 1024 * 1024))
    multi = b"".join([encode_command(b"MULTI"), put * 14, encode_command(b"EXEC")])
    ok = b"+OK\r\n"
    return {
        "GET, P=1": microseconds(duplex(relay, [get], [ok]), 1),
        "SET, P=1": microseconds(duplex(relay, [put], [ok]), 1),
        "GET, P=16": microseconds(duplex(relay, [get * 16], [ok * 16]), 16),
        "SET, P=16": microseconds(duplex(relay, [put * 16], [ok * 16]), 16),
        "SET, P=1000 in 64 kB chunks": microseconds(
            duplex(relay, chunks(put * 1000), [ok * 1000]), 1000
        ),
        "MULTI of 16": microseconds(duplex(relay, [multi], [ok * 16]), 16),
        "SET of 8 MB": microseconds(duplex(relay, chunks(big), [ok]), 1),
    }


if __name__ == "__main__":
    for engine, costs in (("relational", postgres()), ("inmemory", redis())):
        for name, cost in costs.items():
            print(f"{engine:11} {name:30} {cost:9.2f} us")

"""redis-benchmark on the demo instance: past all proxies, through others, through us."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import subprocess
from collections.abc import Iterator
from uuid import UUID

import redis

from engines.kit.auth import service_secret
from tests.benchmarks import peers
from tests.benchmarks.measure import Measured, Measurement, Pair
from tests.stack import Stack


def benchmark(arguments: list[str], command: str, pipeline: int, seconds: int) -> Measured:
    """Run redis-benchmark with one command."""
    program = shutil.which("redis-benchmark")
    assert program, "apt-get install redis-tools"
    # redis-benchmark counts requests, not seconds: some thousand per second and pipelined place.
    requests = 50_000 * seconds * max(1, pipeline // 3)
    done = subprocess.run(
        [
            program, *arguments, "-t", command, "-c", "50", "-P", str(pipeline), "-d", "64",
            "-r", "100000", "-n", str(requests), "--csv",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    return Measured(float(rows[0]["rps"]), requests)


def own_socket(stack: Stack) -> tuple[str, str, str]:
    """Return (socket, user, password) of the demo instance's own server, past the data plane.

    The user is the credential's own, as the data plane made it there at the last sign-in.
    """
    connection = stack.connection("demo", "inmemory")
    wanted = redis.Redis.from_url(connection.uri).info("server")["run_id"]
    master = bytes.fromhex((stack.home / "secrets" / "master.key").read_text().strip())
    for path in stack.home.glob("run/i/*/redis.sock"):
        secret = service_secret(master, str(UUID(path.parent.name)))
        server = redis.Redis(unix_socket_path=str(path), username="weftkit", password=secret)
        if server.info("server")["run_id"] == wanted:
            return str(path), connection.user, secret
    raise AssertionError("the demo instance's socket was not found")


def command(name: str, pipeline: int, *, peer: str = "direct") -> Measurement:
    """Return the measurement of one command against one peer."""

    @contextlib.contextmanager
    def pair(stack: Stack, seconds: int) -> Iterator[Pair | None]:
        connection = stack.connection("demo", "inmemory")
        path, user, secret = own_socket(stack)
        through = [
            "-h", connection.host, "-p", str(connection.port),
            "--user", connection.user, "-a", connection.password,
        ]  # fmt: skip
        with PEERS[peer](path, user, secret) as other:
            yield (
                Pair(
                    f"redis-benchmark {name} -c 50 -P {pipeline}",
                    peer,
                    lambda: benchmark(other, name, pipeline, seconds),
                    lambda: benchmark(through, name, pipeline, seconds),
                )
                if other
                else None
            )

    return pair


@contextlib.contextmanager
def _direct(path: str, user: str, secret: str) -> Iterator[list[str]]:
    """Yield the instance's own server, as arguments of redis-benchmark."""
    yield ["-s", path, "--user", user, "-a", secret]


@contextlib.contextmanager
def _haproxy(path: str, user: str, secret: str) -> Iterator[list[str]]:
    """Yield haproxy, or nothing where it is not installed."""
    if not peers.has("haproxy"):
        yield []
        return
    with peers.haproxy(path) as port:
        yield ["-h", "127.0.0.1", "-p", str(port), "--user", user, "-a", secret]


@contextlib.contextmanager
def _nutcracker(path: str, user: str, secret: str) -> Iterator[list[str]]:
    """Yield nutcracker, or nothing. It knows only the user `default`, which is opened for it."""
    if not peers.has("nutcracker"):
        yield []
        return
    server = redis.Redis(unix_socket_path=path, username="weftkit", password=secret)
    server.acl_setuser(
        "default", enabled=True, reset=True, passwords=[f"+{secret}"], categories=["+@all"],
        keys=["*"], channels=["*"],
    )  # fmt: skip
    try:
        with peers.nutcracker(path, secret) as port:
            yield ["-h", "127.0.0.1", "-p", str(port), "-a", secret]
    finally:
        server.acl_setuser("default", enabled=False, reset=True)


PEERS = {"direct": _direct, "haproxy": _haproxy, "nutcracker": _nutcracker}

MEASUREMENTS = tuple(
    command(name, pipeline, peer=peer)
    for peer in PEERS
    for name, pipeline in (("get", 1), ("set", 1), ("get", 16), ("set", 16))
)

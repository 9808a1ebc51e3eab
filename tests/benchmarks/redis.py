"""The works of Redis: redis-benchmark GET and SET, one by one and pipelined; and the ways there."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import shutil
import subprocess
from collections.abc import Callable
from functools import cached_property
from uuid import UUID

import redis

from engines.kit.auth import service_secret
from tests.benchmarks import peers
from tests.benchmarks.measure import AbsentError, Measured, Way, Work
from tests.benchmarks.peers import Peer, free_port
from tests.benchmarks.postgres_ways import certificate
from tests.stack import Connection, Stack

CLIENTS, VALUE_BYTES, KEYS = 50, 64, 100_000
PIPELINES = (1, 16)
# redis-benchmark counts requests, not seconds: about what this pipeline does in one.
REQUESTS_PER_SECOND = {1: 60_000, 16: 600_000}

PLAIN = ("direct unix", "direct tcp", "haproxy", "nutcracker", "weftkit")
TLS = ("haproxy tls", "weftkit tls")


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


def benchmark(way: Way, seconds: int, *, command: str, pipeline: int) -> Measured:
    """Run redis-benchmark with one command."""
    program = shutil.which("redis-benchmark")
    if program is None:
        raise AbsentError("apt-get install redis-tools")
    requests = REQUESTS_PER_SECOND[pipeline] * seconds
    done = subprocess.run(
        [
            program, *way.address, "-t", command, "-c", str(CLIENTS), "-P", str(pipeline),
            "-d", str(VALUE_BYTES), "-r", str(KEYS), "-n", str(requests), "--csv",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert rows, done.stderr
    return Measured(requests, float(rows[0]["rps"]))


class RedisWays:
    """Opens ways by name and keeps them open until `held` ends."""

    def __init__(self, stack: Stack, held: contextlib.ExitStack) -> None:
        self._stack = stack
        self._held = held
        self._open: dict[str, Way] = {}

    def __call__(self, name: str) -> Way:
        """Return a way. Raises AbsentError."""
        if name not in self._open:
            address, pids = self._openers[name]()
            self._open[name] = Way(name, tuple(address), tuple(pids), self._server_pid)
        return self._open[name]

    @cached_property
    def _openers(self) -> dict[str, Callable[[], tuple[list[str], list[int]]]]:
        return {
            "direct unix": lambda: (["-s", self._own[0], *self._as_user], []),
            "direct tcp": self._tcp,
            "haproxy": lambda: self._peer(peers.haproxy(self._own[0]), *self._as_user),
            "nutcracker": self._nutcracker,
            "weftkit": lambda: (self._through, self._stack.processes("dataplane.worker")),
            "haproxy tls": lambda: self._peer(
                peers.haproxy(self._own[0], certificate(self._stack)), *self._as_user, *self._tls
            ),
            "weftkit tls": lambda: (
                [*self._through, *self._tls],
                self._stack.processes("dataplane.worker"),
            ),
        }

    @cached_property
    def _row(self) -> Connection:
        return self._stack.connection("demo", "inmemory")

    @cached_property
    def _own(self) -> tuple[str, str, str]:
        return own_socket(self._stack)

    @cached_property
    def _server(self) -> redis.Redis:
        path, _, secret = self._own
        return redis.Redis(unix_socket_path=path, username="weftkit", password=secret)

    @cached_property
    def _server_pid(self) -> int:
        return int(self._server.info("server")["process_id"])

    @cached_property
    def _as_user(self) -> list[str]:
        return ["--user", self._own[1], "-a", self._own[2]]

    @cached_property
    def _through(self) -> list[str]:
        row = self._row
        return ["-h", row.host, "-p", str(row.port), "--user", row.user, "-a", row.password]

    @cached_property
    def _tls(self) -> list[str]:
        return ["--tls", "--insecure"]

    def _tcp(self) -> tuple[list[str], list[int]]:
        port = free_port()
        self._server.config_set("port", port)
        return ["-h", "127.0.0.1", "-p", str(port), *self._as_user], []

    def _peer(
        self, opening: contextlib.AbstractContextManager[Peer], *arguments: str
    ) -> tuple[list[str], list[int]]:
        peer = self._held.enter_context(opening)
        return ["-h", "127.0.0.1", "-p", str(peer.port), *arguments], [peer.pid]

    def _nutcracker(self) -> tuple[list[str], list[int]]:
        # It signs in with a password alone, if at all: this stack is thrown away afterwards.
        self._server.acl_setuser(
            "default", enabled=True, nopass=True, keys=["*"], categories=["+@all"]
        )
        return self._peer(peers.nutcracker(self._own[0]))


WORKS = tuple(
    Work(
        f"redis-benchmark {command} P={pipeline} c={CLIENTS}{mark}", "requests",
        functools.partial(benchmark, command=command, pipeline=pipeline), ways,
    )
    for mark, ways in (("", PLAIN), (" TLS", TLS))
    for pipeline in PIPELINES
    for command in ("set", "get")
)  # fmt: skip

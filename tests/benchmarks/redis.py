"""redis-benchmark on the demo instance: straight to its unix socket, and through us."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Callable
from uuid import UUID

import redis

from engines.kit.auth import service_secret
from tests.benchmarks.measure import Measured, Pair
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


def command(name: str, pipeline: int) -> Callable[[Stack, int], Pair]:
    """Return the pair of one command."""

    def pair(stack: Stack, seconds: int) -> Pair:
        connection = stack.connection("demo", "inmemory")
        path, user, secret = own_socket(stack)
        direct = ["-s", path, "--user", user, "-a", secret]
        through = [
            "-h", connection.host, "-p", str(connection.port),
            "--user", connection.user, "-a", connection.password,
        ]  # fmt: skip
        return Pair(
            f"redis-benchmark {name} -c 50 -P {pipeline}",
            "direct, unix socket",
            lambda: benchmark(direct, name, pipeline, seconds),
            lambda: benchmark(through, name, pipeline, seconds),
        )

    return pair


PAIRS = (command("get", 1), command("set", 1), command("get", 16), command("set", 16))

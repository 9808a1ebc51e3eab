"""What a saturated instance costs its neighbours: p99 of a quiet instance alone and beside it.

    python -m tests.benchmarks.neighbours [--seconds 6] [--rounds 3]

Two tenants of one stack. The quiet one sends one short request at a time with pauses; the loud one
keeps its own server busy with work that needs almost no client. Rounds alone and rounds beside the
load alternate, so that both see the same machine; the median of the rounds' ratios is printed, and
how busy the machine was: what is busy before the load begins disturbs the figures.

It is measured twice: as the machine is, and, where root may make groups of cgroup v1, with such
groups delegated to the stack as an operator would do it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from dataplane.host.bounds import MOUNT, V1_FILES
from tests.admin import Admin
from tests.benchmarks.postgres_ways import PROGRAMS
from tests.servers import service_account, wait_until
from tests.stack import Connection, run_stack

REQUESTS_PER_SECOND = 200
LOUD_SESSIONS = 8
HEAVY_STATEMENT = "SELECT sum(n) FROM generate_series(1, 200000) AS n;\n"
HEAVY_SCRIPT = "local x = 0 for i = 1, 300000 do x = x + i end return x"
SETTLE_SECONDS = 0.5
PROCESSES = 16  # that the stack and its clients keep busy, about

Ask = Callable[[], object]


@dataclass(frozen=True)
class Round:
    """One round: latencies in milliseconds, and the share of the machine that was busy."""

    p50: float
    p99: float
    busy: float


@contextlib.contextmanager
def postgres_asker(row: Connection) -> Iterator[Ask]:
    """Yield a function that reads one row by its key."""
    with psycopg.connect(row.uri, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS neighbours")
        connection.execute("CREATE TABLE neighbours (n int PRIMARY KEY, t text)")
        connection.execute("INSERT INTO neighbours SELECT n, 'x' FROM generate_series(1, 1000) n")
        yield lambda: connection.execute("SELECT t FROM neighbours WHERE n = 7").fetchone()


@contextlib.contextmanager
def redis_asker(row: Connection) -> Iterator[Ask]:
    """Yield a function that reads one key."""
    with redis.Redis.from_url(row.uri, single_connection_client=True) as client:
        client.set("neighbours", "x")
        yield lambda: client.get("neighbours")


@contextlib.contextmanager
def postgres_load(row: Connection) -> Iterator[None]:
    """Keep as many backends busy as there are loud sessions."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(HEAVY_STATEMENT)
        script.flush()
        arguments = [
            str(PROGRAMS / "pgbench"), "-n", "-f", script.name, "-c", str(LOUD_SESSIONS),
            "-T", "3600", row.uri,
        ]  # fmt: skip
        with _running(arguments):
            yield


@contextlib.contextmanager
def redis_load(row: Connection) -> Iterator[None]:
    """Keep the server's one thread busy."""
    program = shutil.which("redis-benchmark")
    assert program, "apt-get install redis-tools"
    arguments = [
        program, "-h", row.host, "-p", str(row.port), "--user", row.user, "-a", row.password,
        "-c", str(LOUD_SESSIONS), "-n", "100000000", "EVAL", HEAVY_SCRIPT, "0",
    ]  # fmt: skip
    with _running(arguments):
        yield


@contextlib.contextmanager
def _running(arguments: list[str]) -> Iterator[None]:
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


ASKERS = {"relational": postgres_asker, "inmemory": redis_asker}
LOADS = {"relational": postgres_load, "inmemory": redis_load}


def busy_ticks() -> tuple[int, int]:
    """Return (busy, all) ticks of the machine so far."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def measure(ask: Ask, seconds: float) -> Round:
    """Ask at a steady pace for a while."""
    latencies: list[float] = []
    pace = threading.Event()  # never set: it only waits
    busy, total = busy_ticks()
    end = time.monotonic() + seconds
    while (started := time.perf_counter()) and time.monotonic() < end:
        ask()
        taken = time.perf_counter() - started
        latencies.append(taken * 1000)
        pace.wait(max(0.0, 1 / REQUESTS_PER_SECOND - taken))
    busy_after, total_after = busy_ticks()
    centiles = statistics.quantiles(latencies, n=100)
    return Round(centiles[49], centiles[98], (busy_after - busy) / max(1, total_after - total))


def compare(quiet: Connection, loud: Connection, seconds: float, rounds: int) -> None:
    """Measure one pair of instances and print its line."""
    load = LOADS[loud.engine]
    alone: list[Round] = []
    beside: list[Round] = []
    with ASKERS[quiet.engine](quiet) as ask:
        measure(ask, SETTLE_SECONDS)
        for _ in range(rounds):
            alone.append(measure(ask, seconds))
            with load(loud):
                measure(ask, SETTLE_SECONDS)
                beside.append(measure(ask, seconds))
            wait_until(lambda: _is_calm(loud), "the load has ended")
    ratios = [two.p99 / one.p99 for one, two in zip(alone, beside, strict=True)]
    middle = sorted(range(rounds), key=lambda index: ratios[index])[rounds // 2]
    one, two = alone[middle], beside[middle]
    sys.stdout.write(
        f"quiet {quiet.engine:10} beside {loud.engine:10}  p50 {one.p50:6.2f} -> {two.p50:6.2f} ms"
        f"   p99 {one.p99:6.2f} -> {two.p99:6.2f} ms   ratio {statistics.median(ratios):5.2f}"
        f" (of {', '.join(f'{ratio:.2f}' for ratio in ratios)})"
        f"   machine busy {one.busy:4.0%} -> {two.busy:4.0%}\n"
    )
    sys.stdout.flush()


def _is_calm(row: Connection) -> bool:
    """Say whether the loud server has finished what its clients left behind."""
    if row.engine == "inmemory":
        with contextlib.suppress(redis.RedisError):
            return bool(redis.Redis.from_url(row.uri, socket_timeout=0.5).ping())
        return False
    with psycopg.connect(row.uri) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s",
            ("SELECT sum(n)%",),
        ).fetchone()
    return found == (0,)


@contextlib.contextmanager
def delegated_groups() -> Iterator[bool]:
    """Live in groups of cgroup v1 that belong to the service account; say whether we may."""
    account = service_account()
    places = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    before = {name: MOUNT / name / path.lstrip("/") for name, path in places if name in V1_FILES}
    if account is None or len(before) < len(V1_FILES):
        yield False
        return
    groups = [MOUNT / name / f"weftkit-bench-{os.getpid()}" for name in before]
    for group in groups:
        group.mkdir()
        shutil.chown(group, *account)
        shutil.chown(group / "cgroup.procs", *account)
        (group / "cgroup.procs").write_text(str(os.getpid()))
    # The whole product is one group here; elsewhere each of its processes has a weight of its own.
    (MOUNT / "cpu" / groups[0].name / "cpu.shares").write_text(str(1024 * PROCESSES))
    try:
        yield True
    finally:
        for group, place in zip(groups, before.values(), strict=True):
            (place / "cgroup.procs").write_text(str(os.getpid()))
            for below in (*sorted(group.rglob("*/"), reverse=True), group):
                wait_until(lambda below=below: _is_gone(below), f"{below} is removed")


def _is_gone(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def measure_all(seconds: float, rounds: int) -> None:
    """Start a stack and measure every pair of engines."""
    with run_stack(WEFTKIT_WORKERS="1") as stack:
        with contextlib.closing(Admin(stack)) as admin:
            loud = [admin.new_instance(engine, plan="unmetered") for engine in LOADS]
        for quiet in ASKERS:
            for row in loud:
                compare(stack.connection("demo", quiet), row, seconds, rounds)


def main() -> None:
    """Measure as the machine is, then with groups."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sys.stdout.write(f"{os.cpu_count()} cores, without groups of our own\n")
    measure_all(arguments.seconds, arguments.rounds)
    with delegated_groups() as are_there:
        if are_there:
            sys.stdout.write("each instance in a cgroup\n")
            measure_all(arguments.seconds, arguments.rounds)
        else:
            sys.stdout.write("this machine gives us no cgroup v1 to delegate\n")


if __name__ == "__main__":
    main()

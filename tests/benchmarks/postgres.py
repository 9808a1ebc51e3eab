"""The works of PostgreSQL: pgbench -S, -C and TPC-B, in three protocols, and COPY out."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import AbsentError, Measured, NothingDoneError, Way, Work
from tests.benchmarks.postgres_ways import PREPARED, PROGRAMS

MODES = ("simple", "extended", "prepared")
CLIENTS = (1, 8, 32)
COPY_ROWS, COPY_ROW_BYTES = 700_000, 1000
COPY = (
    f"COPY (SELECT repeat('x', {COPY_ROW_BYTES - 1}) FROM generate_series(1, {COPY_ROWS}))"
    " TO STDOUT"
)

PLAIN = (
    "direct unix", "direct tcp", "pgbouncer session", "pgbouncer transaction", "haproxy",
    "weftkit", "weftkit transaction",
)  # fmt: skip
# PostgreSQL and haproxy have no part in this: the wheel's server knows no TLS, and a TCP proxy does
# not speak the SSLRequest that comes first.
TLS = (
    "pgbouncer session tls", "pgbouncer transaction tls", "weftkit tls", "weftkit transaction tls",
)  # fmt: skip
SIGN_INS = (
    "direct unix", "direct tcp", "direct tcp scram", "pgbouncer session", "pgbouncer session scram",
    "haproxy", "weftkit", "weftkit 1 iteration", "weftkit transaction",
)  # fmt: skip
SIGN_INS_TLS = (
    "pgbouncer session tls", "pgbouncer transaction tls", "weftkit tls", "weftkit 1 iteration tls",
    "weftkit transaction tls",
)  # fmt: skip
BULK = ("direct unix", "direct tcp", "pgbouncer session", "haproxy", "weftkit")
BULK_TLS = ("pgbouncer session tls", "weftkit tls")


def program(name: str, *, is_tls: bool) -> Path:
    """Return the wheel's client, or Debian's for TLS, which the wheel's has not."""
    if not is_tls:
        return PROGRAMS / name
    # The name on the PATH is a script that looks for the program first.
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")) or shutil.which(name)
    if not found:
        raise AbsentError("apt-get install postgresql (its pgbench and psql speak TLS)")
    return Path(found if isinstance(found, str) else found[-1])


def pgbench(way: Way, seconds: int, *, arguments: tuple[str, ...], is_tls: bool) -> Measured:
    """Run pgbench; a transaction is a request."""
    done = subprocess.run(
        [program("pgbench", is_tls=is_tls), "-n", *arguments, "-T", str(seconds), *way.address],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    count = re.search(r"actually processed: (\d+)", done.stdout)
    if rate is None or count is None or count[1] == "0":
        raise NothingDoneError
    return Measured(int(count[1]), float(rate[1]))


def copy_out(way: Way, seconds: int, *, is_tls: bool) -> Measured:
    """Run COPY TO STDOUT into nothing; a megabyte is a request. It takes as long as it takes."""
    started = time.monotonic()
    done = subprocess.run(
        [program("psql", is_tls=is_tls), "-X", "-q", "-c", COPY, *way.address],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    megabytes = COPY_ROWS * COPY_ROW_BYTES / 1e6
    return Measured(megabytes, megabytes / (time.monotonic() - started))


def _pgbench_work(script: str, mode: str, clients: int, ways: tuple[str, ...], tls: str) -> Work:
    arguments = (*SCRIPTS[script], "-M", mode, "-c", str(clients), "-j", str(min(clients, 2)))
    run: Callable[[Way, int], Measured] = partial(pgbench, arguments=arguments, is_tls=bool(tls))
    return Work(
        f"pgbench {script} {mode} c={clients}{tls}", "transactions", run, ways,
        trait=PREPARED if mode == "prepared" else "",
    )  # fmt: skip


SCRIPTS = {"-S": ("-S",), "TPC-B": ("-b", "tpcb-like"), "-C -S": ("-C", "-S")}
WORKS = (
    *(_pgbench_work("-S", mode, n, PLAIN, "") for n in CLIENTS for mode in MODES),
    *(_pgbench_work("TPC-B", mode, n, PLAIN, "") for n in CLIENTS for mode in MODES),
    *(_pgbench_work("-S", mode, 8, TLS, " TLS") for mode in MODES),
    _pgbench_work("-C -S", "simple", 8, SIGN_INS, ""),
    _pgbench_work("-C -S", "simple", 8, SIGN_INS_TLS, " TLS"),
    Work("COPY out 700 MB", "megabytes", partial(copy_out, is_tls=False), BULK),
    Work("COPY out 700 MB TLS", "megabytes", partial(copy_out, is_tls=True), BULK_TLS),
)

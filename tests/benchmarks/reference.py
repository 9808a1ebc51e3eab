"""A PostgreSQL that listens on TCP, as no instance's server does: settings are the instance's own.

It shows what a client on TCP gets without any proxy, and what signing in by SCRAM costs by itself.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from dataplane.host.template import WAL_SEGMENT_MEGABYTES
from tests.benchmarks.peers import free_port
from tests.servers import as_service, server_binaries, temporary_home, wait_until

TRUSTED, SIGNED = "owner", "signed"
HBA = f"local all all trust\nhost all {SIGNED} 127.0.0.1/32 scram-sha-256\n"
HBA += "host all all 127.0.0.1/32 trust\n"


@dataclass(frozen=True)
class Reference:
    """A running server; `TRUSTED` needs no password, `SIGNED` needs this one."""

    port: int
    pid: int
    password: str

    def dsn(self, role: str = TRUSTED) -> str:
        """Return the way in over TCP."""
        secret = f":{self.password}" if role == SIGNED else ""
        return f"postgresql://{role}{secret}@127.0.0.1:{self.port}/weftkit"


def _as_the_instance(instance: psycopg.Connection[tuple[str, str]]) -> dict[str, str]:
    """Return what the instance's configuration file sets, without its doors."""
    rows = instance.execute(
        "SELECT name, current_setting(name) FROM pg_settings"
        " WHERE source = 'configuration file' AND name NOT LIKE 'unix_socket%'"
        " AND name NOT IN ('listen_addresses', 'port', 'extension_control_path')"
    )
    return dict(rows.fetchall())


@contextlib.contextmanager
def reference(instance_dsn: str, password: str) -> Iterator[Reference]:
    """Run the server, with the roles and the empty database, until the block ends."""
    with psycopg.connect(instance_dsn) as instance:
        settings = _as_the_instance(instance)
    with temporary_home("wkr") as root:
        bin_dir, _ = server_binaries(root)
        data, port = root / "pg", free_port()
        subprocess.run(
            [
                bin_dir / "initdb", "-D", data, "-U", "weftkit", "--no-sync", "--encoding=UTF8",
                "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
                "--auth=trust", f"--wal-segsize={WAL_SEGMENT_MEGABYTES}",
            ],
            check=True, stdout=subprocess.DEVNULL, cwd="/", **as_service(),
        )  # fmt: skip
        (data / "pg_hba.conf").write_text(HBA)
        settings |= {
            "listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": "",
        }  # fmt: skip
        with _server(bin_dir, data, settings) as process:
            made = Reference(port, process.pid, password)
            wait_until(lambda: _answers(port), "the reference server answers")
            _populate(port, password)
            yield made


@contextlib.contextmanager
def _server(
    bin_dir: Path, data: Path, settings: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    process = subprocess.Popen(
        [bin_dir / "postgres", "-D", data, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **as_service(),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _superuser(port: int) -> str:
    return f"postgresql://weftkit@127.0.0.1:{port}/postgres"


def _answers(port: int) -> bool:
    try:
        psycopg.connect(_superuser(port)).close()
    except psycopg.OperationalError:
        return False
    return True


def _populate(port: int, password: str) -> None:
    statements = (
        sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(TRUSTED)),
        sql.SQL("CREATE ROLE {} LOGIN IN ROLE {} PASSWORD {}").format(
            sql.Identifier(SIGNED), sql.Identifier(TRUSTED), sql.Literal(password)
        ),
        sql.SQL("CREATE DATABASE weftkit OWNER {}").format(sql.Identifier(TRUSTED)),
    )
    with psycopg.connect(_superuser(port), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)

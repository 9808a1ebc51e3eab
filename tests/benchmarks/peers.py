"""Other people's proxies in front of the same instance servers, where this machine has them.

They come from Debian's packages. They admit nothing and meter nothing, and all but one row of
pgbouncer's sign nobody in: they are what a C proxy costs by itself.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measure import AbsentError
from tests.servers import as_service, temporary_home, wait_until

PACKAGES = {"pgbouncer": "pgbouncer", "haproxy": "haproxy", "nutcracker": "nutcracker"}


@dataclass(frozen=True)
class Peer:
    """A running proxy on 127.0.0.1."""

    port: int
    pid: int


@dataclass(frozen=True)
class Certificate:
    """The files that a peer shows its clients: the same as ours."""

    certificate: Path
    key: Path


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _running(
    program: str, arguments: list[str], port: int, text: str, **files: str
) -> Iterator[Peer]:
    """Run a peer with its configuration file, the last argument, until the block ends.

    `{home}` in `text` is the directory where `files` (name without dot -> content) lie.
    """
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is None:
        raise AbsentError(f"apt-get install {PACKAGES[program]}")
    with temporary_home("wkp") as home:
        for name, content in {**files, "configuration": text.replace("{home}", str(home))}.items():
            (home / name).write_text(content)
            (home / name).chmod(0o644)
        process = subprocess.Popen(
            [path, *arguments, str(home / "configuration")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home, **as_service(),
        )  # fmt: skip
        try:
            wait_until(lambda: _answers(port), f"{program} answers")
            yield Peer(port, process.pid)
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def pgbouncer(
    socket_dir: Path,
    role: str,
    *,
    mode: str,
    tls: Certificate | None = None,
    scram: str = "",
) -> Iterator[Peer]:
    """Yield pgbouncer in `mode`; it asks for no password, or by SCRAM for the one in `scram`."""
    port = free_port()
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256" if scram else "any",
        "auth_file": "{home}/users",
        "pool_mode": mode,
        "default_pool_size": 64,
        "max_client_conn": 500,
        "ignore_startup_parameters": "extra_float_digits,options",
        "logfile": "/dev/null",
        "log_connections": 0,
        "log_disconnections": 0,
    }
    if tls is not None:
        settings |= {
            "client_tls_sslmode": "require",
            "client_tls_cert_file": tls.certificate,
            "client_tls_key_file": tls.key,
        }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    text = "\n".join(
        ["[databases]", f"weftkit = host={socket_dir} user={role}", "[pgbouncer]", *lines, ""]
    )
    with _running("pgbouncer", ["-q"], port, text, users=f'"{role}" "{scram}"\n') as peer:
        yield peer


@contextlib.contextmanager
def haproxy(path: str, tls: Certificate | None = None) -> Iterator[Peer]:
    """Yield haproxy, in TCP mode on one thread, to the unix socket at `path`."""
    port = free_port()
    pem = tls.certificate.read_text() + tls.key.read_text() if tls else ""
    text = f"""
global
  nbthread 1
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen bench
  bind 127.0.0.1:{port}{" ssl crt {home}/pem" if tls else ""}
  server own unix@{path}
"""
    with _running("haproxy", ["-f"], port, text, pem=pem) as peer:
        yield peer


@contextlib.contextmanager
def nutcracker(path: str) -> Iterator[Peer]:
    """Yield twemproxy to the Redis at the unix socket `path`, which asks for no password."""
    port = free_port()
    text = f"""
bench:
  listen: 127.0.0.1:{port}
  redis: true
  hash: fnv1a_64
  distribution: ketama
  servers:
    - {path}:1 own
"""
    arguments = ["-s", str(free_port()), "-a", "127.0.0.1", "-o", "/dev/null", "-c"]
    with _running("nutcracker", arguments, port, text) as peer:
        yield peer

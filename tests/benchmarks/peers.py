"""Other people's proxies in front of the same instance servers, where this machine has them.

`pgbouncer` (session mode), `haproxy` (TCP mode) and `nutcracker` (twemproxy) come from Debian's
packages. They sign nobody in, admit nothing and meter nothing: they are what a C proxy costs by
itself.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.servers import as_service, temporary_home, wait_until


def has(program: str) -> bool:
    """Say whether a peer is installed."""
    return shutil.which(program) is not None


def _free_port() -> int:
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
def _running(program: str, arguments: list[str], text: str, port: int) -> Iterator[None]:
    """Run a peer with one configuration file until the block ends."""
    with temporary_home("wkp") as home:
        configuration = home / "configuration"
        configuration.write_text(text)
        configuration.chmod(0o644)
        process = subprocess.Popen(
            [shutil.which(program) or program, *arguments, str(configuration)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home, **as_service(),
        )  # fmt: skip
        try:
            wait_until(lambda: _answers(port), f"{program} answers")
            yield
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def pgbouncer(socket_dir: Path, role: str) -> Iterator[str]:
    """Yield a DSN through pgbouncer in session mode to the server in `socket_dir`."""
    port = _free_port()
    text = f"""
        [databases]
        weftkit = host={socket_dir} user={role}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = session
        default_pool_size = 64
        max_client_conn = 500
        ignore_startup_parameters = extra_float_digits,options
        logfile = /dev/null
        log_connections = 0
        log_disconnections = 0
    """
    with _running("pgbouncer", ["-q"], text.replace("        ", ""), port):
        yield f"postgresql://{role}@127.0.0.1:{port}/weftkit"


@contextlib.contextmanager
def haproxy(path: str) -> Iterator[int]:
    """Yield a port through haproxy, in TCP mode on one thread, to the unix socket at `path`."""
    port = _free_port()
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
  bind 127.0.0.1:{port}
  server own unix@{path}
"""
    with _running("haproxy", ["-f"], text, port):
        yield port


@contextlib.contextmanager
def nutcracker(path: str, password: str) -> Iterator[int]:
    """Yield a port through nutcracker to the unix socket at `path`, as its user `default`."""
    port = _free_port()
    text = f"""
bench:
  listen: 127.0.0.1:{port}
  redis: true
  redis_auth: {password}
  hash: fnv1a_64
  distribution: ketama
  servers:
   - {path}:1 own
"""
    arguments = ["-o", "log", "-p", "pid", "-a", "127.0.0.1", "-s", str(_free_port()), "-c"]
    with _running("nutcracker", arguments, text, port):
        yield port

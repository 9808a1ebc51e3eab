"""The whole embedded default, started as a stranger would: `python -m deploy.local up`.

`Stack` knows the printed connections, the REST API, and the processes (found by the environment
that they carry), so that tests can kill them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from engines import registry
from tests.servers import wait_until

ROOT = Path(__file__).resolve().parents[1]
UP_SECONDS_MAX = 180
# The control plane's ports and the admin port, beside the engines' (design.md section 3).
OTHER_PORTS = (8443, 8088, 9090)
OFFSETS = 90


def free_offset() -> int:
    """Return a port offset at which every port of the product is free now."""
    specs = [registry.load(name) for name in registry.names()]
    ports = [port for spec in specs for port in (spec.port, spec.pool_port) if port]
    ports += OTHER_PORTS
    # Two runs at once begin at different places: workers share a port that both found free. All
    # stay below the ports that the kernel gives to clients (32768).
    first = os.getpid() % OFFSETS
    for number in (*range(first, OFFSETS), *range(first)):
        offset = 11000 + number * 137
        with contextlib.ExitStack() as held:
            try:
                for port in ports:
                    probe = held.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return offset
    raise AssertionError("no free range of ports")


@dataclass(frozen=True)
class Connection:
    """One row of connections.json."""

    tenant: str
    engine: str
    instance: str
    uri: str
    host: str
    port: int
    user: str
    password: str
    uri_pooled: str = ""


class Stack:
    """A running WeftKit in a temporary WEFTKIT_HOME."""

    def __init__(self, home: Path, offset: int, **environment: str) -> None:
        self.home = home
        self.offset = offset
        self.environment = {
            **{name: value for name, value in os.environ.items() if "WEFTKIT" not in name},
            "WEFTKIT_HOME": str(home),
            "WEFTKIT_PORT_OFFSET": str(offset),
            # All tests of a run make their instances in one tenant.
            "WEFTKIT_INSTANCES_PER_TENANT_MAX": "500",
            **environment,
        }
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m deploy.local ...` and return what it printed."""
        return subprocess.run(
            [sys.executable, "-m", "deploy.local", *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True,
            timeout=UP_SECONDS_MAX,
        )  # fmt: skip

    def up(self) -> str:
        """Start it; return what was printed."""
        done = self.command("up")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.log_tails()}"
        return done.stdout

    def down(self) -> str:
        """Stop it; return what was printed."""
        done = self.command("down")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def log_tails(self) -> str:
        """Return the ends of all logs, for a failure message."""
        logs = sorted(self.home.glob("logs/*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    @property
    def document(self) -> dict[str, Any]:
        """connections.json."""
        document: dict[str, Any] = json.loads((self.home / "connections.json").read_text())
        return document

    @property
    def ca(self) -> str:
        """The path of the CA that clients trust."""
        return str(self.document["ca"])

    def connection(self, tenant: str, engine: str) -> Connection:
        """Return the printed connection of one tenant's instance."""
        for row in self.document["connections"]:
            if (row["tenant"], row["engine"]) == (tenant, engine):
                return Connection(**row)
        raise AssertionError(f"connections.json has no {engine} for {tenant}")

    def api(self, key: str | None = None) -> httpx.Client:
        """Return a client of the REST API, signed in with the printed key."""
        api = self.document["api"]
        return httpx.Client(
            base_url=api["url"].rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key or api['key']}"},
            verify=ssl.create_default_context(cafile=self.ca),
            timeout=30,
        )

    def processes(self, *words: str) -> list[int]:
        """Return the pids of this stack whose command line holds all `words`."""
        mark = f"WEFTKIT_HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if "redis-server" in command:  # its own arguments name no path
                    command += f"in {os.readlink(entry / 'cwd')}"
                mine = mark in (entry / "environ").read_bytes().split(b"\0")
                # Redis writes its title over its environment.
                mine = mine or str(self.home) in command
            except OSError:
                continue
            if mine and all(word in command for word in words):
                found.append(int(entry.name))
        return sorted(found)

    def kill(self, *words: str, with_signal: int = signal.SIGKILL) -> list[int]:
        """Signal every process that `processes` finds; there must be one."""
        pids = self.processes(*words)
        assert pids, f"no process with {words}"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, with_signal)
        return pids

    def wait_ports(self) -> None:
        """Wait until every engine's port takes connections again."""

        def all_answer() -> bool:
            for name in registry.names():
                try:
                    address = ("127.0.0.1", registry.load(name).port + self.offset)
                    socket.create_connection(address, 1).close()
                except OSError:
                    return False
            return True

        wait_until(all_answer, "all ports answer")


@contextlib.contextmanager
def run_stack(**environment: str) -> Iterator[Stack]:
    """Start a stack in a new home, and take it down with everything it kept."""
    home = Path(tempfile.mkdtemp(prefix="wks", dir="/tmp"))
    stack = Stack(home, free_offset(), **environment)
    try:
        stack.up()
        yield stack
    finally:
        stack.command("down")
        for pid in stack.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)

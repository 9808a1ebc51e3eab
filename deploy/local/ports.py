"""Which ports are wanted, whether they are free, and who holds those that are not."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.local.home import Home
from engines import registry

OFFSETS_TRIED = range(100, 10_000, 100)
PORT_MAX = 65_535
LISTENING = "0A"  # the state's number in /proc/net/tcp


class PortsError(Exception):
    """A port is taken or cannot be bound; the message names it and says how to shift."""


def engine_ports(home: Home) -> dict[int, str]:
    """Return the ports of all enabled engines, offset included, with their engine."""
    sections = {name: home.settings.engine(name) for name in registry.names()}
    return {
        port + home.port_offset: name
        for name, section in sections.items()
        if section.enabled
        for port in (section.port, home.settings.pool_port(name))
        if port
    }


def console_ports(home: Home) -> dict[int, str]:
    """Return the port of the control plane."""
    return {home.console_port: "the control plane"}


def dataplane_ports(home: Home) -> dict[int, str]:
    """Return all ports on which the data plane listens."""
    return {**engine_ports(home), home.admin_port: "the data plane's metrics and health"}


def require_free(bind: str, ports: Mapping[int, str], offset: int) -> None:
    """Raise PortsError if a port cannot be bound; the message lists all of them."""
    taken = {port: number for port in ports if (number := _bind_error(bind, port))}
    if not taken:
        return
    lines = [
        f"port {port} ({ports[port]}) on {bind} {_reason(port, number)}"
        for port, number in taken.items()
    ]
    better = _free_offset(bind, [port - offset for port in ports])
    lines.append(f"stop what holds it, or shift all ports: WEFTKIT_PORT_OFFSET={better} make up")
    raise PortsError("\n".join(lines))


def holder_of(port: int) -> str:
    """Return "name (pid n)" of the process that listens on a port, or "" if it cannot be seen."""
    inodes = _listening_inodes(port)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if inodes & _socket_inodes(Path("/proc", pid)):
            with contextlib.suppress(OSError):
                return f"{Path('/proc', pid, 'comm').read_text().strip()} (pid {pid})"
    return ""


def _bind_error(bind: str, port: int) -> int:
    """Return the errno of binding to a port, 0 if it works."""
    if port > PORT_MAX:
        return errno.ERANGE
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        # As the servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            return error.errno or errno.EADDRINUSE
    return 0


def _reason(port: int, number: int) -> str:
    if number == errno.EADDRINUSE:
        holder = holder_of(port)
        return f"is taken by {holder}" if holder else "is taken by another process"
    return f"cannot be used ({os.strerror(number)})"


def _free_offset(bind: str, unshifted: Iterable[int]) -> int:
    wanted = list(unshifted)
    for offset in OFFSETS_TRIED:
        if not any(_bind_error(bind, port + offset) for port in wanted):
            return offset
    return OFFSETS_TRIED[0]


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _socket_inodes(process: Path) -> set[str]:
    found = set()
    # Only our own processes may be looked into, unless we are root.
    with contextlib.suppress(OSError):
        for name in os.listdir(process / "fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(process / "fd" / name))
    return found

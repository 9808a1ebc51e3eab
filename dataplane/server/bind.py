"""Listening sockets that all workers share: the kernel spreads connections over them."""

from __future__ import annotations

import socket

# As many as the kernel allows (net.core.somaxconn cuts it).
BACKLOG = 4096


class PortTakenError(Exception):
    """Another program listens there; the message names the port."""


def bind_shared(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket on `port` with SO_REUSEPORT. Raises PortTakenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family is socket.AF_INET6:
            # "::" serves both families on one socket.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.setblocking(False)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise PortTakenError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listening

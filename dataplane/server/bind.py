"""Listening sockets that all workers share: the kernel spreads connections over them."""

from __future__ import annotations

import socket

# As many as the kernel allows (net.core.somaxconn cuts it).
BACKLOG = 4096
# A client that vanished without a word (its host is gone, a NAT forgot it) is found out and its
# session ended within two minutes. Accepted sockets inherit this.
KEEPALIVE_IDLE_S = 60
KEEPALIVE_INTERVAL_S = 15
KEEPALIVE_PROBES_MAX = 4


class PortTakenError(Exception):
    """Another program listens there; the message names the port."""


def bind_shared(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket on `port` with SO_REUSEPORT. Raises PortTakenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES_MAX)
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

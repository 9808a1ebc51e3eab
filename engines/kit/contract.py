"""What an engine declares about itself: `ENGINE = EngineSpec(...)` in its `engine.py`.

The control plane reads title, port, placement and the connection strings; the data plane reads the
rest. A spec holds functions and tables, no state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from engines.kit.errors import NativeError, Reason
from engines.kit.http.whole import HttpHandler, HttpPorts, HttpRefusal
from engines.kit.ports import ClientChannel, Pooled, Relay, SessionPorts
from engines.kit.records import InstanceRecord


class Transport(Enum):
    """Who serves the engine's border."""

    TCP = "tcp"
    HTTP = "http"
    GRPC = "grpc"


class Placement(Enum):
    """Where an instance lives (design.md section 3)."""

    POSTGRES_SERVER = "postgres_server"  # its own PostgreSQL process
    REDIS_SERVER = "redis_server"  # its own Redis process
    SCHEMA = "schema"  # a schema in a cell


@dataclass(frozen=True, slots=True)
class Preamble:
    """What a listener does with a client's first bytes, before a session exists.

    `needs`: look again once so many bytes are there. Otherwise consume `consume` bytes, send
    `reply`, then start TLS if `tls`, and look again if `again`.
    """

    needs: int = 0
    consume: int = 0
    reply: bytes = b""
    tls: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a connection string is made of."""

    host: str
    port: int
    username: str
    password: str
    handle: str
    tls: bool = False
    ca_path: str = ""


ASGIApp = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine. `name` is the word used everywhere: folder, weftkit.toml, API, metric label."""

    name: str
    title: str
    product: str
    port: int
    transport: Transport
    placement: Placement
    native: Mapping[Reason, NativeError]
    uri: Callable[[Endpoint], str]
    one_liner: Callable[[Endpoint], str]
    # TCP engines: the pure decision on the first bytes, and the sign-in that ends in a relay.
    # `open_session` answers errors to the client itself and then returns None.
    preamble: Callable[[bytes, bool], Preamble] | None = None
    # The application protocol (ALPN) of TLS, if the engine has one. A client that starts TLS at
    # once must offer it; one that has asked for TLS in the engine's own way need not.
    alpn: str = ""
    open_session: (
        Callable[[ClientChannel, SessionPorts], Awaitable[Relay | Pooled | None]] | None
    ) = None
    # A second port, whose clients share the server's sessions; 0 for none.
    pool_port: int = 0
    # HTTP engines: the ASGI application over its ports.
    asgi: Callable[[Any], ASGIApp] | None = None
    # HTTP engines whose requests are read whole: the handler over its ports, the largest body, and
    # the answer to what is no request (none: a plain one).
    serve: Callable[[HttpPorts], HttpHandler] | None = None
    body_bytes_max: int = 1024 * 1024
    refuse: HttpRefusal | None = None
    # Schema engines: looks which of some instances, all in one cell, have work of their own that is
    # due, and begins it. Called for every instance again and again, so for most it must cost next
    # to nothing.
    look: Callable[[HttpPorts, Sequence[InstanceRecord]], Awaitable[None]] | None = None
    # Clients sign requests (SigV4): a credential's secret is derived from the master key.
    signs: bool = False
    # What policies may name inside an instance, as in `iam.RESOURCE_KINDS`; () for one whole.
    parts: tuple[str, ...] = ()
    # Schema engines: the DDL of an empty instance in the schema of this name.
    ddl: Callable[[str], tuple[str, ...]] | None = None

"""Requests that are read whole before they are served: what an engine with `serve` gets and gives.

ASGI is for bodies that are streamed and costs a dozen objects a request; an API of small bodies
needs none of that. The front reads a request up to `EngineSpec.body_bytes_max`, calls the engine's
handler, and writes its answer; content-length, date and connection are the front's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from engines.kit.errors import RequestError
from engines.kit.ports import Audit, Candidate, Clock, Directory, Grant, Store
from engines.kit.records import InstanceRecord

Address = IPv4Address | IPv6Address


@dataclass(slots=True)
class HttpCall:
    """One request. `target` is path and query as they stood in the request line."""

    method: str
    target: str
    headers: list[tuple[str, str]]  # names in lower case, in the order received
    body: bytes
    address: Address
    server_name: str  # SNI, lower case; "" if none
    connection_id: str
    joined: dict[str, str] = field(default_factory=dict)  # by `joined_headers`

    def header(self, name: str) -> str | None:
        """Return a header's value, as in `joined`; `name` is in lower case."""
        return self.joined.get(name)


def joined_headers(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return headers by name, the values of a repeated one joined by commas."""
    joined = dict(headers)
    if len(joined) < len(headers):
        joined = {}
        for name, value in headers:
            joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


@dataclass(slots=True)
class HttpAnswer:
    """One answer; `closes` ends the connection behind it.

    `operation` is what the request was for, as metrics name it: of a small set, never a client's
    own word. A header `transfer-encoding: chunked` has the body sent in chunks, without its length.
    `error` is for the log, which keeps what is our own fault.
    """

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    closes: bool = False
    operation: str = ""
    error: RequestError | None = None


HttpHandler = Callable[[HttpCall], Awaitable[HttpAnswer]]
# What to answer where no request could be read: 400, 408, 413, 414, 417, 431, 500, 503.
HttpRefusal = Callable[[int], HttpAnswer]


class HttpPorts(Protocol):
    """All that the handler of an HTTP engine may call."""

    @property
    def directory(self) -> Directory:
        """Where instances and credentials are found."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def audit(self) -> Audit:
        """Where auditors are told."""
        ...

    def grant(self, candidate: Candidate, address: Address, connection_id: str) -> Grant:
        """Turn a proven candidate into a grant; cheap enough for each request.

        Raises RequestError: EXPIRED, ADDRESS, SUSPENDED, CONNECTIONS, SHUTDOWN.
        """
        ...

    def login_failed(self, candidate: Candidate, address: Address, reason: str) -> None:
        """Report a request that proved nothing to metrics, log and audit."""
        ...

    def store(self, record: InstanceRecord, within_s: float | None = None) -> Store:
        """Return the tables of an instance of a schema engine.

        `within_s` takes the place of the plan's statement timeout, for work in the background. It
        leaves half of the sessions to requests.
        """
        ...

    def anonymous(self) -> Candidate | None:
        """Return who is let in with any key, the default instance of the tenant `default`.

        None unless weftkit.toml says so.
        """
        ...

    def hold(self, key: object) -> AbstractAsyncContextManager[None]:
        """Let one of all tasks of this worker at a time into the block, for equal keys."""
        ...

    def spawn(self, record: InstanceRecord, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do work of an instance in the background; nothing if work of that name goes on here."""
        ...

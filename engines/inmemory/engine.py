"""The declaration of the engine `inmemory`."""

from __future__ import annotations

from urllib.parse import quote

from engines.inmemory.errors import NATIVE
from engines.inmemory.session import open_session
from engines.inmemory.wire import preamble
from engines.kit.contract import Endpoint, EngineSpec, Placement, Transport

PORT = 6379


def uri(endpoint: Endpoint) -> str:
    """Return the connection string that redis-cli and the clients take."""
    scheme = "rediss" if endpoint.tls else "redis"
    user, password = quote(endpoint.username, safe=""), quote(endpoint.password, safe="")
    return f"{scheme}://{user}:{password}@{endpoint.host}:{endpoint.port}/0"


def one_liner(endpoint: Endpoint) -> str:
    """Return the command that opens a shell on the instance."""
    authority = f" --cacert {endpoint.ca_path}" if endpoint.tls and endpoint.ca_path else ""
    return f"redis-cli{authority} -u {uri(endpoint)}"


ENGINE = EngineSpec(
    name="inmemory",
    title="In-memory",
    product="WeftKitMem",
    port=PORT,
    transport=Transport.TCP,
    placement=Placement.REDIS_SERVER,
    native=NATIVE,
    uri=uri,
    one_liner=one_liner,
    preamble=preamble,
    open_session=open_session,
)

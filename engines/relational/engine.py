"""The declaration of the engine `relational`."""

from __future__ import annotations

from urllib.parse import quote

from engines.kit.contract import Endpoint, EngineSpec, Placement, Transport
from engines.relational.errors import NATIVE
from engines.relational.session import DATABASE, open_session
from engines.relational.wire import ALPN, preamble

PORT = 5432
POOL_PORT = 6432


def uri(endpoint: Endpoint) -> str:
    """Return the connection string that libpq and its relatives take."""
    address = (
        f"postgresql://{quote(endpoint.username, safe='')}:{quote(endpoint.password, safe='')}"
        f"@{endpoint.host}:{endpoint.port}/{DATABASE}"
    )
    if not endpoint.tls:
        return address
    # With the authority at hand a client can also check whom it talks to.
    if endpoint.ca_path:
        return f"{address}?sslmode=verify-full&sslrootcert={quote(endpoint.ca_path)}"
    return f"{address}?sslmode=require"


def one_liner(endpoint: Endpoint) -> str:
    """Return the command that opens a shell on the instance."""
    return f'psql "{uri(endpoint)}"'


ENGINE = EngineSpec(
    name="relational",
    title="Relational",
    product="WeftKitRel",
    port=PORT,
    transport=Transport.TCP,
    placement=Placement.POSTGRES_SERVER,
    native=NATIVE,
    uri=uri,
    one_liner=one_liner,
    preamble=preamble,
    alpn=ALPN,
    open_session=open_session,
    pool_port=POOL_PORT,
)

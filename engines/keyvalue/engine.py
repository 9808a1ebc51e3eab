"""The declaration of the engine `keyvalue`."""

from __future__ import annotations

from shlex import quote

from engines.keyvalue.errors import NATIVE
from engines.keyvalue.http.border import BODY_BYTES_MAX, refuse, serve
from engines.keyvalue.session.background import look
from engines.keyvalue.storage import ddl
from engines.kit.contract import Endpoint, EngineSpec, Placement, Transport

PORT = 8000
# Clients demand one; any is served, and ARNs name it.
REGION = "us-east-1"


def uri(endpoint: Endpoint) -> str:
    """Return the endpoint URL that SDKs take; the keys go into their own settings."""
    scheme = "https" if endpoint.tls else "http"
    return f"{scheme}://{endpoint.host}:{endpoint.port}"


def one_liner(endpoint: Endpoint) -> str:
    """Return the command that lists the tables of the instance."""
    is_ours = endpoint.tls and endpoint.ca_path
    authority = f"AWS_CA_BUNDLE={quote(endpoint.ca_path)} " if is_ours else ""
    return (
        f"{authority}AWS_ACCESS_KEY_ID={quote(endpoint.username)} "
        f"AWS_SECRET_ACCESS_KEY={quote(endpoint.password)} AWS_DEFAULT_REGION={REGION} "
        f"aws dynamodb list-tables --endpoint-url {uri(endpoint)}"
    )


ENGINE = EngineSpec(
    name="keyvalue",
    title="Key-value",
    product="WeftKitKV",
    port=PORT,
    transport=Transport.HTTP,
    placement=Placement.SCHEMA,
    native=NATIVE,
    uri=uri,
    one_liner=one_liner,
    serve=serve,
    body_bytes_max=BODY_BYTES_MAX,
    refuse=refuse,
    look=look,
    signs=True,
    ddl=ddl,
    parts=("table",),
)

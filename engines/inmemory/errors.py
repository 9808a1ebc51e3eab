"""Every reason as the first word of an error reply, and a refusal as that reply.

RATE is an `ERR`: redis-py and ioredis raise their ordinary reply error for it and for any word that
they do not know alike, and no client takes it for a state of the server (as BUSY, LOADING, TRYAGAIN
or CLUSTERDOWN would be, which some retry at once and without end).
"""

from __future__ import annotations

from collections.abc import Mapping

from engines.kit.errors import NativeError, Reason, RequestError

NATIVE: Mapping[Reason, NativeError] = {
    Reason.MALFORMED: NativeError("ERR"),
    Reason.UNKNOWN: NativeError("ERR"),
    Reason.UNSUPPORTED: NativeError("ERR"),
    Reason.NOT_FOUND: NativeError("ERR"),
    Reason.CONFLICT: NativeError("EXECABORT"),
    Reason.UNAUTHENTICATED: NativeError(
        "WRONGPASS", "invalid username-password pair or user is disabled."
    ),
    Reason.EXPIRED: NativeError("WRONGPASS"),
    Reason.ADDRESS: NativeError("NOPERM"),
    Reason.SUSPENDED: NativeError("ERR"),
    Reason.DENIED: NativeError("NOPERM"),
    Reason.RATE: NativeError("ERR"),
    Reason.QUOTA: NativeError("OOM"),
    Reason.CONNECTIONS: NativeError("ERR", "max number of clients reached"),
    Reason.LIMIT: NativeError("ERR"),
    Reason.TIMEOUT: NativeError("ERR"),
    # Clients know LOADING as "not yet, try again", also while they connect.
    Reason.BACKEND: NativeError("LOADING"),
    Reason.SHUTDOWN: NativeError("LOADING", "this server is shutting down, connect again"),
    Reason.INTERNAL: NativeError("ERR"),
}


def to_native(error: RequestError) -> bytes:
    """Encode a refusal as an error reply, which is one line."""
    native = NATIVE[error.reason]
    words = native.message or error.message
    if error.retry_after_s is not None:
        words += f", retry after {error.retry_after_s * 1000:.0f} ms"
    line = " ".join(f"{native.code} {words}".split())
    return b"-" + line.encode() + b"\r\n"

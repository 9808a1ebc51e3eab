"""Why a request is refused: one closed set of reasons, mapped by every engine to its own codes.

Messages are safe to show: they never hold SQL, hosts, paths or another tenant's names. What is
*unknown* (nobody has it) and what is *unsupported* (the original has it, we do not) are different
reasons. The cause travels in ``__cause__`` and goes to the log, not to the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The closed set. A new member fails `tests/conformance` until every engine maps it."""

    MALFORMED = "malformed"  # the bytes or the text break the protocol
    UNKNOWN = "unknown"  # no such command, operator or field anywhere
    UNSUPPORTED = "unsupported"  # the original has it, we do not
    NOT_FOUND = "not_found"  # no such table, document, key
    CONFLICT = "conflict"  # exists already, or changed meanwhile
    UNAUTHENTICATED = "unauthenticated"  # no, wrong or unknown credentials (never says which)
    EXPIRED = "expired"  # right credentials, past their time
    ADDRESS = "address"  # right credentials, from a forbidden address
    SUSPENDED = "suspended"  # the instance is not in service
    DENIED = "denied"  # the role does not allow this
    RATE = "rate"  # over the plan's units per second; comes with a time to retry
    QUOTA = "quota"  # over the storage quota: what grows data is refused
    CONNECTIONS = "connections"  # over the plan's connections
    LIMIT = "limit"  # a size, depth, count or length bound
    TIMEOUT = "timeout"  # a deadline passed
    BACKEND = "backend"  # the instance's server or storage cannot be reached
    SHUTDOWN = "shutdown"  # this data plane is draining: connect again
    INTERNAL = "internal"  # our fault; the log knows more under the request id


class RequestError(Exception):
    """The client's request cannot be done. Raised by engines and backends, answered by `reply`.

    `detail` and `hint` are further sentences for protocols that carry them; `retry_after_s` is set
    for `RATE` (seconds until the same request can be admitted); `request_class` and `limit_units`
    name the bound that was met. `sqlstate` is kept where the backend gave one that must pass.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        detail: str = "",
        hint: str = "",
        retry_after_s: float | None = None,
        request_class: str = "",
        limit_units: int | None = None,
        sqlstate: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.detail = detail
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.request_class = request_class
        self.limit_units = limit_units
        self.sqlstate = sqlstate


class LocalError(Exception):
    """Our own code was used wrongly; the client sees its protocol's internal error."""


@dataclass(frozen=True, slots=True)
class NativeError:
    """How one protocol says one `Reason`: its code, and its fixed text where it has one."""

    code: str
    message: str = ""


def rate_error(
    request_class: str, limit_units: int, retry_after_s: float, *, name: str = "units"
) -> RequestError:
    """Build the refusal of the admission limiter, worded alike in every protocol."""
    retry_after_ms = f"{retry_after_s * 1000:.0f}"
    return RequestError(
        Reason.RATE,
        f"rate limit exceeded: {limit_units} {request_class} {name} per second",
        detail=f"class={request_class} limit={limit_units} retry_after_ms={retry_after_ms}",
        hint=f"Retry after {retry_after_ms} ms, or choose a larger plan.",
        retry_after_s=retry_after_s,
        request_class=request_class,
        limit_units=limit_units,
    )

"""What PostgreSQL says -> why the request is refused: whole codes first, then classes.

https://www.postgresql.org/docs/18/errcodes-appendix.html. The server's own text never reaches a
client: it holds SQL and names of ours. It goes into `__cause__`, and so into the log.
"""

from __future__ import annotations

from collections.abc import Mapping

from engines.kit.errors import Reason, RequestError

CODES: Mapping[str, tuple[Reason, str]] = {
    "21000": (Reason.CONFLICT, "the request matched more than one row"),
    "23503": (Reason.CONFLICT, "other data refers to this"),
    "23505": (Reason.CONFLICT, "it exists already"),
    "25006": (Reason.DENIED, "only reading is allowed here"),
    "25P02": (Reason.CONFLICT, "the transaction has failed before"),
    "3F000": (Reason.NOT_FOUND, "it does not exist"),
    "40001": (Reason.CONFLICT, "it was changed at the same time; try again"),
    "40P01": (Reason.CONFLICT, "it was changed at the same time; try again"),
    "42501": (Reason.DENIED, "the role does not allow this"),
    "42P01": (Reason.NOT_FOUND, "it does not exist"),
    "53100": (Reason.QUOTA, "there is no room for more data"),
    "53200": (Reason.LIMIT, "the request needs too much memory"),
    "53300": (Reason.BACKEND, "the storage is busy; try again later"),
    "55P03": (Reason.CONFLICT, "it is locked; try again"),
    "57014": (Reason.TIMEOUT, "the request took too long"),
    "57P01": (Reason.BACKEND, "the storage is restarting; try again"),
    "57P02": (Reason.BACKEND, "the storage is restarting; try again"),
    "57P03": (Reason.BACKEND, "the storage is starting; try again"),
}
CLASSES: Mapping[str, tuple[Reason, str]] = {
    "08": (Reason.BACKEND, "the storage cannot be reached; try again later"),
    "22": (Reason.MALFORMED, "a value is out of range or of the wrong form"),
    "23": (Reason.CONFLICT, "the data does not allow this"),
    "40": (Reason.CONFLICT, "it was changed at the same time; try again"),
    "53": (Reason.BACKEND, "the storage is busy; try again later"),
    "54": (Reason.LIMIT, "the request is too large"),
    "58": (Reason.BACKEND, "the storage failed; try again later"),
}
_OTHERWISE = (Reason.INTERNAL, "internal error")


def to_request_error(sqlstate: str) -> RequestError:
    """Return the refusal for an error of PostgreSQL."""
    reason, message = CODES.get(sqlstate) or CLASSES.get(sqlstate[:2]) or _OTHERWISE
    return RequestError(reason, message, sqlstate=sqlstate)

"""Every reason as an SQLSTATE, and a refusal as an ErrorResponse.

Codes: https://www.postgresql.org/docs/18/errcodes-appendix.html and the error table of WeftKit's
API reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from engines.kit.errors import NativeError, Reason, RequestError
from engines.relational import wire

NATIVE: Mapping[Reason, NativeError] = {
    Reason.MALFORMED: NativeError("08P01"),  # protocol_violation
    Reason.UNKNOWN: NativeError("42601"),  # syntax_error
    Reason.UNSUPPORTED: NativeError("0A000"),  # feature_not_supported
    Reason.NOT_FOUND: NativeError("42P01"),  # undefined_table
    Reason.CONFLICT: NativeError("40001"),  # serialization_failure
    Reason.UNAUTHENTICATED: NativeError("28P01"),  # invalid_password
    # What PostgreSQL answers where pg_hba.conf rejects: the proof was right, entry is not allowed.
    Reason.EXPIRED: NativeError("28000"),  # invalid_authorization_specification
    Reason.ADDRESS: NativeError("28000"),
    Reason.SUSPENDED: NativeError("57P03"),  # cannot_connect_now
    Reason.DENIED: NativeError("42501"),  # insufficient_privilege
    Reason.RATE: NativeError("53400"),  # configuration_limit_exceeded
    Reason.QUOTA: NativeError("53100"),  # disk_full
    Reason.CONNECTIONS: NativeError("53300", "sorry, too many clients already"),
    Reason.LIMIT: NativeError("54000"),  # program_limit_exceeded
    Reason.TIMEOUT: NativeError("57014"),  # query_canceled
    Reason.BACKEND: NativeError("08000"),  # connection_exception
    Reason.SHUTDOWN: NativeError(
        "57P01", "terminating connection due to administrator command"
    ),  # admin_shutdown
    Reason.INTERNAL: NativeError("XX000"),  # internal_error
}


def to_native(error: RequestError, severity: str = "ERROR") -> bytes:
    """Encode a refusal: ERROR for a statement, FATAL for a session."""
    native = NATIVE[error.reason]
    return wire.error_response(
        {
            "S": severity,
            "V": severity,
            "C": error.sqlstate or native.code,
            "M": native.message or error.message,
            "D": error.detail,
            "H": error.hint,
        }
    )

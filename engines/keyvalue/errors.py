"""What DynamoDB says when it refuses: types, statuses and shapes of its error bodies.

    400 {"__type": "com.amazon.coral.validate#ValidationException", "message": "..."}

Code of this engine raises `DynamoError`s made by the functions below; refusals that come from
elsewhere (limits, sign-in, the storage) are given their code by `NATIVE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.kit.errors import NativeError, Reason, RequestError

CORAL = "com.amazon.coral.service"
VALIDATE = "com.amazon.coral.validate"
AVAILABILITY = "com.amazon.coral.availability"
DYNAMO = "com.amazonaws.dynamodb.v20120810"

TRY_LATER = "The request could not be completed; try again."

# Reasons that arise outside of this engine. A 4xx that SDKs shall not try again is a
# ValidationException or an AccessDeniedException; what they shall try again is throttling or a 5xx.
NATIVE: Mapping[Reason, NativeError] = {
    Reason.MALFORMED: NativeError("ValidationException"),
    Reason.UNKNOWN: NativeError("UnknownOperationException"),
    Reason.UNSUPPORTED: NativeError("ValidationException"),
    Reason.NOT_FOUND: NativeError("ResourceNotFoundException"),
    Reason.CONFLICT: NativeError("TransactionConflictException"),
    Reason.UNAUTHENTICATED: NativeError(
        "UnrecognizedClientException", "The security token included in the request is invalid."
    ),
    Reason.EXPIRED: NativeError("ExpiredTokenException"),
    Reason.ADDRESS: NativeError("AccessDeniedException"),
    Reason.SUSPENDED: NativeError("AccessDeniedException"),
    Reason.DENIED: NativeError("AccessDeniedException"),
    Reason.RATE: NativeError("ThrottlingException"),
    Reason.QUOTA: NativeError("LimitExceededException"),
    Reason.CONNECTIONS: NativeError("ThrottlingException"),
    Reason.LIMIT: NativeError("ValidationException"),
    Reason.TIMEOUT: NativeError("InternalServerError", TRY_LATER),
    Reason.BACKEND: NativeError("ServiceUnavailable", "The service is currently unavailable."),
    Reason.SHUTDOWN: NativeError("ServiceUnavailable", "The service is currently unavailable."),
    Reason.INTERNAL: NativeError("InternalServerError", "Internal server error"),
}

# The namespace of each code; those not named here are DynamoDB's own.
_NAMESPACES: Mapping[str, str] = {
    "AccessDeniedException": CORAL,
    "ExpiredTokenException": CORAL,
    "IncompleteSignatureException": CORAL,
    "InternalServerError": DYNAMO,
    "InvalidSignatureException": CORAL,
    "MissingAuthenticationTokenException": CORAL,
    "SerializationException": CORAL,
    "ServiceUnavailable": AVAILABILITY,
    "ThrottlingException": AVAILABILITY,
    "UnknownOperationException": CORAL,
    "UnrecognizedClientException": CORAL,
    "ValidationException": VALIDATE,
}
_STATUSES: Mapping[str, int] = {"InternalServerError": 500, "ServiceUnavailable": 503}
# "Message" instead of "message": the codecs of the service framework write it so.
_MESSAGE_KEYS: Mapping[str, str] = {
    "SerializationException": "Message",
    "AccessDeniedException": "Message",
}


class DynamoError(RequestError):
    """A refusal in DynamoDB's words.

    `code` is the short name ("ValidationException"); `extra` are further members of the body, such
    as `Item` or `CancellationReasons`. An empty message is left out of the body.
    """

    def __init__(
        self, reason: Reason, code: str, message: str, extra: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(reason, message)
        self.code = code
        self.extra = extra or {}

    @property
    def http_status(self) -> int:
        """The status of the answer."""
        return _STATUSES.get(self.code, 400)

    def body(self) -> dict[str, Any]:
        """Return the JSON object of the answer."""
        namespace = _NAMESPACES.get(self.code, DYNAMO)
        body: dict[str, Any] = {"__type": f"{namespace}#{self.code}"}
        if self.message:
            body[_MESSAGE_KEYS.get(self.code, "message")] = self.message
        body.update(self.extra)
        return body


def translated(error: RequestError) -> DynamoError:
    """Return any refusal in DynamoDB's words."""
    if isinstance(error, DynamoError):
        return error
    native = NATIVE[error.reason]
    made = DynamoError(error.reason, native.code, native.message or _sentence(error))
    made.retry_after_s = error.retry_after_s
    made.__cause__ = error
    return made


def _sentence(error: RequestError) -> str:
    """Return message and hint; the body of an error has one place for both."""
    return f"{error.message}. {error.hint}" if error.message and error.hint else error.message


def validation(message: str) -> DynamoError:
    """The request breaks a documented rule."""
    return DynamoError(Reason.MALFORMED, "ValidationException", message)


def invalid_parameter(message: str) -> DynamoError:
    """One or more parameter values break a rule."""
    return validation(f"One or more parameter values were invalid: {message}")


def serialization(message: str = "") -> DynamoError:
    """The body is no JSON of the operation's form."""
    return DynamoError(Reason.MALFORMED, "SerializationException", message)


def internal_error() -> DynamoError:
    """It is our fault."""
    return DynamoError(Reason.INTERNAL, "InternalServerError", "Internal server error")


def unproven() -> DynamoError:
    """The access key is nobody's, or its secret has not made this signature: never which."""
    native = NATIVE[Reason.UNAUTHENTICATED]
    return DynamoError(Reason.UNAUTHENTICATED, native.code, native.message)


def invalid_signature(message: str) -> DynamoError:
    """The signature is one that cannot be accepted from anybody."""
    return DynamoError(Reason.UNAUTHENTICATED, "InvalidSignatureException", message)


def incomplete_signature(message: str, header: str | None = None) -> DynamoError:
    """Something that belongs to a signature is absent or malformed; `header` is shown back."""
    if header is not None:
        message += f"Authorization={header}"
    return DynamoError(Reason.MALFORMED, "IncompleteSignatureException", message)


def unknown_operation() -> DynamoError:
    """No operation has this name."""
    return DynamoError(Reason.UNKNOWN, "UnknownOperationException", "")


def unsupported(message: str) -> DynamoError:
    """DynamoDB has it, WeftKit has not; the engine's README lists these."""
    return DynamoError(Reason.UNSUPPORTED, "ValidationException", message)


def not_found(message: str = "Requested resource not found") -> DynamoError:
    """There is no such table, index, backup or stream."""
    return DynamoError(Reason.NOT_FOUND, "ResourceNotFoundException", message)


def table_not_found(name: str) -> DynamoError:
    """There is no such table: the words of the control operations."""
    return not_found(f"Requested resource not found: Table: {name} not found")


def in_use(message: str) -> DynamoError:
    """The resource is there already, or is being changed."""
    return DynamoError(Reason.CONFLICT, "ResourceInUseException", message)


def limit_exceeded(message: str) -> DynamoError:
    """Too many of something at once."""
    return DynamoError(Reason.LIMIT, "LimitExceededException", message)


def absent(code: str, message: str) -> DynamoError:
    """There is no such thing, in the code that its kind has: BackupNotFoundException ..."""
    return DynamoError(Reason.NOT_FOUND, code, message)


def busy(code: str, message: str) -> DynamoError:
    """It is there already or in use, in the code that its kind has: BackupInUseException ..."""
    return DynamoError(Reason.CONFLICT, code, message)


def expired_iterator() -> DynamoError:
    """A shard iterator is good for 15 minutes."""
    return DynamoError(
        Reason.EXPIRED,
        "ExpiredIteratorException",
        "Iterator expired. The iterator was created more than 15 minutes ago.",
    )


def trimmed() -> DynamoError:
    """The records that a reader asks for are older than a day."""
    return DynamoError(
        Reason.NOT_FOUND,
        "TrimmedDataAccessException",
        "The operation attempted to read past the oldest stream record in a shard.",
    )


def access_denied(message: str) -> DynamoError:
    """The credential's role or policies do not allow this."""
    return DynamoError(Reason.DENIED, "AccessDeniedException", message)


def conditional_failed(item: Mapping[str, Any] | None = None) -> DynamoError:
    """The condition of a write is false; `item` goes along where the client asked for it."""
    return DynamoError(
        Reason.CONFLICT,
        "ConditionalCheckFailedException",
        "The conditional request failed",
        {"Item": item} if item is not None else None,
    )


def transaction_conflict() -> DynamoError:
    """Somebody else writes the same item at this moment."""
    return DynamoError(
        Reason.CONFLICT,
        "TransactionConflictException",
        "Transaction is ongoing for the item",
    )


def transaction_canceled(reasons: Sequence[Mapping[str, Any]]) -> DynamoError:
    """A transaction was not performed; one reason for each of its entries, in their order."""
    codes = ", ".join(str(reason["Code"]) for reason in reasons)
    is_malformed = any(reason["Code"] == "ValidationError" for reason in reasons)
    return DynamoError(
        Reason.MALFORMED if is_malformed else Reason.CONFLICT,
        "TransactionCanceledException",
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
        {"CancellationReasons": list(reasons)},
    )


def transaction_in_progress() -> DynamoError:
    """A transaction with the same client token has not ended yet."""
    return DynamoError(
        Reason.CONFLICT,
        "TransactionInProgressException",
        "The transaction with the given request token is already in progress.",
    )


def idempotent_mismatch() -> DynamoError:
    """Another request has had this client token."""
    return DynamoError(
        Reason.CONFLICT,
        "IdempotentParameterMismatchException",
        "Transaction request contains a ClientRequestToken that another request has had",
    )


def duplicate_item() -> DynamoError:
    """There is an item with the key of a PartiQL INSERT."""
    return DynamoError(
        Reason.CONFLICT,
        "DuplicateItemException",
        "Duplicate primary key exists in table",
    )


def throughput_exceeded(retry_after_s: float | None) -> DynamoError:
    """Over the units per second: the words for tables of provisioned throughput."""
    error = DynamoError(
        Reason.RATE,
        "ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded. Consider "
        "increasing your provisioning level with the UpdateTable API.",
    )
    error.retry_after_s = retry_after_s
    return error

"""What a service refuses, told apart by type and code, never by text.

ServiceError
  InvalidError      400  the input is wrong; `fields` says where
  PaymentRequiredError 402  not until something is paid, deleted or upgraded
  ForbiddenError    403  the role does not allow it
  NotFoundError     404  there is none, or it is another tenant's
  ConflictError     409  not in this state
  GoneError         410  it was there once, and its bytes are not any more
  LimitError        409  there are as many of them as there may be
  LockedError       423  another operation runs on the instance
  TooManyError      429  not so often; `retry_after_s` says when again
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ServiceError(Exception):
    """The request cannot be done. `code` is stable; `message` is safe to show."""

    status = 400
    code = "invalid"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        fields: Mapping[str, list[str]] | None = None,
        retryable: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.fields = dict(fields or {})
        self.retryable = retryable
        self.extra = dict(extra or {})


class InvalidError(ServiceError):
    pass


class PaymentRequiredError(ServiceError):
    status = 402
    code = "payment_required"


class ForbiddenError(ServiceError):
    status = 403
    code = "forbidden"


class NotFoundError(ServiceError):
    status = 404
    code = "not_found"


class ConflictError(ServiceError):
    status = 409
    code = "conflict"


class GoneError(ServiceError):
    status = 410
    code = "gone"


class LimitError(ConflictError):
    code = "limit"


class LockedError(ServiceError):
    status = 423
    code = "operation_running"


class TooManyError(ServiceError):
    status = 429
    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message, retryable=True)
        self.retry_after_s = retry_after_s


def invalid_field(name: str, message: str) -> InvalidError:
    """Return the refusal of one field."""
    return InvalidError(f"{name}: {message}", fields={name: [message]})

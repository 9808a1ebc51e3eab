"""JSON Web Tokens (RFC 7519), signed with HMAC-SHA256 and with nothing else.

The algorithm is ours to choose, never the token's (RFC 8725 section 3.1): a header that names
another one, `none` included, is refused before anything is computed.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.kit.errors import Reason, RequestError

TOKEN_CHARACTERS_MAX = 8192
_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. `roles` is None where it says nothing about roles."""

    subject: str
    expires_at: float
    roles: tuple[str, ...] | None
    values: Mapping[str, Any]


def verify_jwt(token: str, secret: bytes, now: float, leeway_s: float = 0.0) -> Claims:
    """Verify an HS256 token and return its claims.

    `sub` and `exp` are required; `nbf` is honoured; `roles` may be a list of strings.

    Raises RequestError: UNAUTHENTICATED for every token that proves nothing, EXPIRED for a
    genuine one that is past its time.
    """
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise RequestError(Reason.LIMIT, "the token is too long")
    match = _TOKEN.fullmatch(token)
    if match is None or not secret:
        raise _refused()
    header, payload, signature = match.groups()
    parameters = _object(header)
    # RFC 7515 section 4.1.11: extensions named by `crit` must be understood; we know none.
    if parameters.get("alg") != "HS256" or "crit" in parameters:
        raise _refused()
    expected = hmac.digest(secret, f"{header}.{payload}".encode(), "sha256")
    if not hmac.compare_digest(expected, _decode(signature)):
        raise _refused()
    return _claims(_object(payload), now, leeway_s)


def _claims(values: Mapping[str, Any], now: float, leeway_s: float) -> Claims:
    subject = values.get("sub")
    roles = values.get("roles")
    if not isinstance(subject, str) or not subject:
        raise _refused()
    if roles is not None and not (
        isinstance(roles, list) and all(isinstance(role, str) for role in roles)
    ):
        raise _refused()
    expires_at = _time(values, "exp")
    not_before = _time(values, "nbf")
    if expires_at is None:
        raise _refused()
    if now >= expires_at + leeway_s:
        raise RequestError(Reason.EXPIRED, "the token has expired")
    if not_before is not None and now < not_before - leeway_s:
        raise _refused()
    return Claims(subject, expires_at, None if roles is None else tuple(roles), values)


def _time(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None and name not in values:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused()
    try:
        time = float(value)
    except OverflowError as error:
        raise _refused() from error
    if not math.isfinite(time):
        raise _refused()
    return time


def _object(part: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(part).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _refused() from error
    if not isinstance(value, dict):
        raise _refused()
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 7519 section 4: a duplicate name could be read differently by whoever signed it.
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("duplicate name")
    return values


def _decode(part: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as error:
        raise _refused() from error
    # One value has one text: spare bits in the last character must be zero.
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise _refused()
    return data


def _refused() -> RequestError:
    return RequestError(Reason.UNAUTHENTICATED, "the token is not valid")

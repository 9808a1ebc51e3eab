"""The Authorization header of HTTP: bearer (RFC 6750) and basic (RFC 7617)."""

from __future__ import annotations

import base64
import binascii

from engines.kit.errors import Reason, RequestError

HEADER_CHARACTERS_MAX = 8192


def bearer_token(header: str) -> str | None:
    """Return the token of `Bearer <token>`; None if the header is of another scheme.

    Raises RequestError(MALFORMED).
    """
    return _argument(header, "bearer")


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Return (user name, password) of `Basic <base64>`; None if the header is of another scheme.

    Raises RequestError(MALFORMED).
    """
    argument = _argument(header, "basic")
    if argument is None:
        return None
    try:
        text = base64.b64decode(argument, validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise RequestError(Reason.MALFORMED, "malformed basic authorization") from error
    # RFC 7617 section 2: the first colon ends the user name; a password may hold more.
    username, colon, password = text.partition(":")
    if not colon:
        raise RequestError(Reason.MALFORMED, "malformed basic authorization")
    return username, password


def _argument(header: str, scheme: str) -> str | None:
    if len(header) > HEADER_CHARACTERS_MAX:
        raise RequestError(Reason.LIMIT, "the authorization header is too long")
    # RFC 9110 section 11.1: the scheme's case does not matter.
    given, _, argument = header.strip().partition(" ")
    if given.lower() != scheme:
        return None
    argument = argument.strip()
    if not argument or " " in argument or not argument.isascii():
        raise RequestError(Reason.MALFORMED, f"malformed {scheme} authorization")
    return argument

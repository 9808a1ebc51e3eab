"""`wk_<key id>_<secret>`: minting with the newest pepper, and checking against a stored digest.

The form and the digest are `engines.kit.auth`'s; here are only the peppers of this installation.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from django.conf import settings

from engines.kit import auth

# Stands in for the digest of a key that does not exist; no digest is all zeros.
NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key: its text, and what may be stored of it."""

    key_id: str
    token: str
    pepper_id: int
    digest: str


def newest_pepper_id() -> int:
    """Return the pepper that new secrets are digested with."""
    return int(settings.PEPPER_ID)


def mint(key_id: str = "") -> Minted:
    """Make a new key, or a new secret of the key `key_id`."""
    key_id = key_id or auth.new_key_id()
    token = auth.password_of(key_id, auth.new_secret())
    pepper_id = newest_pepper_id()
    return Minted(key_id, token, pepper_id, auth.digest(settings.PEPPERS[pepper_id], token))


def key_id_of(token: str) -> str:
    """Return the key id in `token`, "" if it has none."""
    return auth.parse_password(token) or ""


def matches(token: str, digest: str, pepper_id: int) -> bool:
    """Say in constant time whether `token` is what `digest` was made of."""
    pepper = settings.PEPPERS.get(pepper_id, b"")
    return hmac.compare_digest(auth.digest(pepper, token), digest)

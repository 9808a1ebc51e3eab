"""Secrets that must be read again (a webhook's, not a password): encrypted under SECRET_KEY.

Each purpose has a key of its own, so a text sealed for one cannot be opened as another. A changed
SECRET_KEY opens what older ones sealed while those stand in SECRET_KEY_FALLBACKS.
"""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


def seal(text: str, *, purpose: str) -> str:
    """Return `text` encrypted for `purpose`."""
    return _safe(purpose).encrypt(text.encode()).decode("ascii")


def unseal(sealed: str, *, purpose: str) -> str:
    """Return what `seal` was given; cryptography's InvalidToken where no key fits."""
    return _safe(purpose).decrypt(sealed.encode("ascii")).decode()


def _safe(purpose: str) -> MultiFernet:
    keys = [str(key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]
    return MultiFernet([Fernet(_derived(key, purpose)) for key in keys])


def _derived(key: str, purpose: str) -> bytes:
    kdf = HKDF(SHA256(), length=32, salt=None, info=f"weftkit {purpose}".encode())
    return base64.urlsafe_b64encode(kdf.derive(key.encode()))

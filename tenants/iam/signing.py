"""What tokens are signed with: RSA keys in the database, private halves encrypted, that take turns.

A new key is shown for a while before it signs, so that who keeps a copy of the key set has it; an
old one is shown until the last token that it signed has expired. Any number of processes may call
everything here at the same moment.
"""

from __future__ import annotations

import base64
import functools
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from jwt.algorithms import RSAAlgorithm

from tenants.iam.models import SigningKey

KEY_BITS = 2048
PUBLIC_EXPONENT = 65537
SIGNS_FOR = timedelta(days=30)
# Longer than anybody should keep a copy of the key set (`views.py` says how long that is).
SHOWN_BEFORE = timedelta(hours=1)
CLOCKS_DIFFER = timedelta(minutes=5)
# Any constant will do; this one is "jwks" in ASCII.
ROTATION_LOCK = 0x6A776B73


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signs now."""

    kid: str
    private: RSAPrivateKey


def signer() -> Signer:
    """Return the key that signs now; the first one is made here."""
    found = _signer()
    if found is None:
        signing_keys_rotate()
        found = _signer()
    assert found is not None, "a rotation leaves a key that signs"
    return found


def public_key(kid: str) -> RSAPublicKey | None:
    """Return the public half of a key that is still known."""
    pem = SigningKey.objects.filter(kid=kid).values_list("public_pem", flat=True).first()
    return None if pem is None else _public(pem)


def key_set() -> dict[str, Any]:
    """Return the public halves as a JSON Web Key Set (RFC 7517), the newest first."""
    signer()
    keys = SigningKey.objects.order_by("-signs_from", "-id")
    return {
        "keys": [
            {
                **RSAAlgorithm.to_jwk(_public(key.public_pem), as_dict=True),
                "alg": "RS256",
                "use": "sig",
                "kid": key.kid,
            }
            for key in keys
        ]
    }


@transaction.atomic
def signing_keys_rotate(*, at_once: bool = False) -> None:
    """Make the next key where it is time, and forget those whose tokens have all expired.

    `at_once`: the present keys are believed to be stolen. Their tokens end, a new key signs.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ROTATION_LOCK])
    now = timezone.now()
    if at_once:
        SigningKey.objects.all().delete()
    SigningKey.objects.filter(forget_after__lte=now).delete()
    newest = SigningKey.objects.order_by("-signs_from", "-id").first()
    if newest is None or _opened(newest) is None:
        _make(now, now)
    elif newest.signs_from <= now - SIGNS_FOR:
        _make(now, now + SHOWN_BEFORE)


def _make(now: datetime, signs_from: datetime) -> None:
    private = generate_private_key(PUBLIC_EXPONENT, KEY_BITS)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    kid = f"{now:%Y%m%d%H%M%S}-{secrets.token_hex(4)}"
    life = timedelta(seconds=settings.IAM_TOKEN_LIFE_S)
    SigningKey.objects.filter(forget_after=None).update(
        forget_after=signs_from + life + CLOCKS_DIFFER
    )
    SigningKey.objects.create(
        kid=kid,
        public_pem=public.decode(),
        private_sealed=_safe(settings.SECRET_KEY).encrypt(pem).decode(),
        signs_from=signs_from,
    )


def _signer() -> Signer | None:
    key = (
        SigningKey.objects.filter(signs_from__lte=timezone.now())
        .order_by("-signs_from", "-id")
        .first()
    )
    private = None if key is None else _opened(key)
    return None if key is None or private is None else Signer(key.kid, private)


def _opened(key: SigningKey) -> RSAPrivateKey | None:
    """Return the private half; None if it was sealed with a SECRET_KEY that is gone."""
    return _private(key.private_sealed, settings.SECRET_KEY)


# Reading a private key takes milliseconds (it is checked): once a process and key.
@functools.lru_cache(maxsize=8)
def _private(sealed: str, secret_key: str) -> RSAPrivateKey | None:
    try:
        pem = _safe(secret_key).decrypt(sealed.encode())
    except InvalidToken:
        return None
    private = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(private, RSAPrivateKey)
    return private


@functools.lru_cache(maxsize=16)
def _public(pem: str) -> RSAPublicKey:
    public = serialization.load_pem_public_key(pem.encode())
    assert isinstance(public, RSAPublicKey)
    return public


@functools.lru_cache(maxsize=4)
def _safe(secret_key: str) -> Fernet:
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"weftkit token signing").derive(
        secret_key.encode()
    )
    return Fernet(base64.urlsafe_b64encode(derived))

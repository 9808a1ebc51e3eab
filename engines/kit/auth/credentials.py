"""Keys: how they look, what is stored of them, and what stands in for a key that does not exist.

A user name is `wk_<key id>`, its password or bearer token `wk_<key id>_<secret>`; the key id alone
names the instance. Of a secret only an HMAC digest and a SCRAM verifier are kept. A credential may
have two live secrets (rotation without a gap); both share one salt, because a SCRAM server names
the salt before it knows which of them the client holds.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata
from collections.abc import Mapping, Sequence

from engines.kit.records import Credential, Role, Scram, Secret

# What PostgreSQL uses, and the least that RFC 7677 section 4 allows. They make guessing passwords
# dear; a key of 190 random bits cannot be guessed at any price, so it may do with fewer.
SCRAM_ITERATIONS = 4096
SCRAM_ITERATIONS_MAX = 100_000
SALT_BYTES = 16

KEY_ID_CHARACTERS = 12
SECRET_CHARACTERS = 32
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_USERNAME = re.compile(r"wk_([a-z2-7]{12})")
_PASSWORD = re.compile(r"wk_([a-z2-7]{12})_[0-9A-Za-z]{32}")

# RFC 4013 section 2.3: what a prepared password must not hold.
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def new_key_id() -> str:
    """Return a new key id: 60 random bits as 12 lower-case base32 characters."""
    return "".join(secrets.choice(_BASE32) for _ in range(KEY_ID_CHARACTERS))


def new_secret() -> str:
    """Return a new secret: 190 random bits as 32 base62 characters."""
    return "".join(secrets.choice(_BASE62) for _ in range(SECRET_CHARACTERS))


def new_salt() -> bytes:
    """Return a new SCRAM salt."""
    return secrets.token_bytes(SALT_BYTES)


def username_of(key_id: str) -> str:
    """Return the user name of a key."""
    return f"wk_{key_id}"


def password_of(key_id: str, secret: str) -> str:
    """Return the password, which is also the bearer token, of a key."""
    return f"wk_{key_id}_{secret}"


def parse_username(text: str) -> str | None:
    """Return the key id that a user name carries, or None."""
    match = _USERNAME.fullmatch(text)
    return match[1] if match else None


def parse_password(text: str) -> str | None:
    """Return the key id that a password or bearer token carries, or None."""
    match = _PASSWORD.fullmatch(text)
    return match[1] if match else None


def digest(pepper: bytes, password: str) -> str:
    """Return what is stored of a password."""
    return hmac.digest(pepper, prepare(password), "sha256").hex()


def make_scram(password: str, salt: bytes, iterations: int = SCRAM_ITERATIONS) -> Scram:
    """Derive the verifier of RFC 5802 section 3; takes about a millisecond of CPU."""
    salted = hashlib.pbkdf2_hmac("sha256", prepare(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return Scram(
        salt=_base64(salt),
        iterations=iterations,
        stored_key=_base64(hashlib.sha256(client_key).digest()),
        server_key=_base64(hmac.digest(salted, b"Server Key", "sha256")),
    )


def make_secret(
    password: str,
    pepper_id: int,
    pepper: bytes,
    salt: bytes,
    expires_at: float | None = None,
    iterations: int = SCRAM_ITERATIONS,
) -> Secret:
    """Return what is stored of a new secret; `salt` is `salt_of` the credential if it has one.

    A SCRAM server names salt and iterations together: a credential's secrets share both.
    """
    return Secret(
        pepper_id=pepper_id,
        digest=digest(pepper, password),
        scram=make_scram(password, salt, iterations),
        expires_at=expires_at,
    )


def salt_of(existing: Sequence[Secret]) -> bytes:
    """Return the salt that the secrets of one credential share; a new one if there are none."""
    return base64.b64decode(existing[0].scram.salt) if existing else new_salt()


def live_secrets(credential: Credential, now: float) -> tuple[Secret, ...]:
    """Return the secrets that still open the door; none for a disabled credential."""
    if not credential.enabled:
        return ()
    return tuple(
        secret
        for secret in credential.secrets
        if secret.expires_at is None or now < secret.expires_at
    )


def verify_password(
    credential: Credential, password: str, peppers: Mapping[int, bytes], now: float
) -> Secret | None:
    """Return the live secret that `password` is, or None; never one of a mock.

    All secrets are compared, also dead ones, so that the time taken tells nothing.
    """
    live = live_secrets(credential, now)
    matched: Secret | None = None
    for secret in credential.secrets:
        pepper = peppers.get(secret.pepper_id, b"")
        is_equal = hmac.compare_digest(digest(pepper, password), secret.digest)
        if is_equal and pepper and secret in live:
            matched = secret
    return matched


def mock_credential(username: str, mock_key: bytes, pepper_id: int = 1) -> Credential:
    """Return the stand-in for an unknown name: always the same for the same name, never proven.

    Salt and iterations look like those of a real credential, and stay the same from probe to
    probe. What the keys are the hash of, nobody knows.
    """

    def derived(purpose: bytes) -> bytes:
        name = username.encode("utf-8", "surrogatepass")  # a client may send what is no UTF-8
        return hmac.digest(mock_key, b"mock:" + purpose + b":" + name, "sha256")

    scram = Scram(
        salt=_base64(derived(b"salt")[:SALT_BYTES]),
        iterations=SCRAM_ITERATIONS,
        stored_key=_base64(derived(b"stored")),
        server_key=_base64(derived(b"server")),
    )
    secret = Secret(pepper_id=pepper_id, digest=derived(b"digest").hex(), scram=scram)
    return Credential(key_id="", username=username, role=Role.READ, secrets=(secret,))


def service_secret(master_key: bytes, instance_id: str) -> str:
    """Return the secret that our own users of an instance's server sign in with."""
    return hmac.digest(master_key, b"service:" + instance_id.encode(), "sha256").hex()


def prepare(password: str) -> bytes:
    """Return the UTF-8 of `password` after SASLprep; untouched where that refuses it.

    PostgreSQL and libpq fall back to the bytes as they are, so we do.
    """
    if password.isascii() and password.isprintable():
        return password.encode()
    try:
        return _saslprep(password).encode()
    except UnicodeError:
        return password.encode("utf-8", "surrogatepass")


def _saslprep(text: str) -> str:
    """RFC 4013; raises UnicodeError for what it prohibits."""
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    # Stringprep is defined over Unicode 3.2 (RFC 3454 section 1).
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared:
        raise UnicodeError("nothing is left")
    if any(is_in(character) for character in prepared for is_in in _PROHIBITED):
        raise UnicodeError("prohibited character")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """RFC 3454 section 6: text from right to left begins and ends so, and is not mixed."""
    if not any(stringprep.in_table_d1(character) for character in text):
        return
    if any(stringprep.in_table_d2(character) for character in text):
        raise UnicodeError("mixed directions")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise UnicodeError("right-to-left text with another beginning or end")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

"""The server's half of SCRAM-SHA-256 (RFC 5802, RFC 7677): a state machine over messages.

    C: n,,n=user,r=<client nonce>                       begin -> user name
    S: r=<client nonce><server nonce>,s=<salt>,i=4096   challenge(credential)
    C: c=biws,r=<both nonces>,p=<proof>                 finish -> v=<server signature>

The caller wraps the messages for its protocol (PostgreSQL's SASL messages, MongoDB's saslStart).
A credential may have two live secrets: they share a salt, and the proof may be of either. A mock
credential goes the same way and fails at the end.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from enum import Enum
from functools import lru_cache

from engines.kit.auth.credentials import live_secrets
from engines.kit.errors import LocalError, Reason, RequestError
from engines.kit.records import Credential, Secret

MECHANISM = "SCRAM-SHA-256"
MECHANISM_PLUS = "SCRAM-SHA-256-PLUS"
CHANNEL_BINDING_TYPE = "tls-server-end-point"

FIRST_BYTES_MAX = 2048
# Bound by the channel binding data (a hash) and a nonce of at most 1024 characters.
FINAL_BYTES_MAX = 4096
SERVER_NONCE_BYTES = 18
# As many comparisons for a credential with one secret as for one in the middle of a rotation.
SECRETS_COMPARED = 2

_FIRST = re.compile(
    r"(?P<gs2>(?P<flag>n|y|p=[A-Za-z0-9.\-]{1,64}),(?:a=(?P<authzid>[^,]{0,512}))?,)"
    r"(?P<bare>(?P<extension>m=[^,]*,)?n=(?P<user>[^,]{0,512}),r=(?P<nonce>[!-+\--~]{1,1024})"
    r"(?:,[A-Za-z]=[^,]*)*)"
)
_FINAL = re.compile(
    r"(?P<unproven>c=(?P<binding>[A-Za-z0-9+/=]{1,1024}),r=(?P<nonce>[!-+\--~]{1,2048})"
    r"(?:,[A-Za-z]=[^,]*)*),p=(?P<proof>[A-Za-z0-9+/=]{44})"
)


class ScramError(RequestError):
    """The exchange failed; `server_error` is the value of RFC 5802's `e=` attribute."""

    def __init__(self, reason: Reason, message: str, server_error: str) -> None:
        super().__init__(reason, message)
        self.server_error = server_error


class _State(Enum):
    START = "start"
    BEGUN = "begun"
    CHALLENGED = "challenged"
    ENDED = "ended"


class ScramServer:
    """One sign-in. Call `begin`, `challenge`, `finish`, in this order and once each.

    Args:
        mechanism: the one that the client chose.
        channel_binding: the hash of our certificate for `tls-server-end-point` (RFC 5929
            section 4) if SCRAM-SHA-256-PLUS was offered on this connection, else None.
        nonce: only for tests; otherwise random.
    """

    def __init__(
        self,
        mechanism: str = MECHANISM,
        *,
        channel_binding: bytes | None = None,
        nonce: str | None = None,
    ) -> None:
        if mechanism not in (MECHANISM, MECHANISM_PLUS):
            raise _malformed("unknown SASL mechanism", "other-error")
        if mechanism == MECHANISM_PLUS and channel_binding is None:
            raise _malformed("channel binding was not offered", "channel-binding-not-supported")
        self._is_plus = mechanism == MECHANISM_PLUS
        self._channel_binding = channel_binding
        self._own_nonce = nonce or secrets.token_urlsafe(SERVER_NONCE_BYTES)
        self._state = _State.START
        self._gs2 = ""
        self._first_bare = ""
        self._server_first = ""
        self._nonce = ""
        self._credential: Credential | None = None
        self._now = 0.0

    def begin(self, client_first: bytes) -> str:
        """Take client-first-message; return its user name, which PostgreSQL leaves empty.

        Raises ScramError.
        """
        self._advance(_State.START, _State.BEGUN)
        match = _FIRST.fullmatch(_text(client_first, FIRST_BYTES_MAX))
        if match is None:
            raise _malformed("malformed SCRAM message", "other-error")
        if match["extension"]:
            raise _malformed("SCRAM extensions are not supported", "extensions-not-supported")
        self._check_flag(match["flag"])
        username = _unescaped(match["user"])
        # RFC 5802 section 5.1: who acts for another says so here; nobody may.
        if match["authzid"] and _unescaped(match["authzid"]) != username:
            raise _malformed("authorization identities are not supported", "other-error")
        self._gs2 = match["gs2"]
        self._first_bare = match["bare"]
        self._nonce = match["nonce"] + self._own_nonce
        return username

    def challenge(self, credential: Credential, now: float) -> bytes:
        """Return server-first-message for `credential`, which may be a mock."""
        self._advance(_State.BEGUN, _State.CHALLENGED)
        if not credential.secrets:
            raise LocalError("SCRAM needs a credential with a secret, or a mock")
        self._credential = credential
        self._now = now
        verifier = credential.secrets[0].scram
        self._server_first = f"r={self._nonce},s={verifier.salt},i={verifier.iterations}"
        return self._server_first.encode()

    def finish(self, client_final: bytes) -> bytes:
        """Take client-final-message and return server-final-message: the client is proven.

        Raises ScramError: EXPIRED for the right proof of a secret that is past its time,
        UNAUTHENTICATED for every other proof, MALFORMED.
        """
        self._advance(_State.CHALLENGED, _State.ENDED)
        match = _FINAL.fullmatch(_text(client_final, FINAL_BYTES_MAX))
        if match is None:
            raise _malformed("malformed SCRAM message", "other-error")
        self._check_binding(match["binding"])
        if not hmac.compare_digest(match["nonce"], self._nonce):
            raise _malformed("the SCRAM nonce does not match", "other-error")
        message = f"{self._first_bare},{self._server_first},{match['unproven']}".encode()
        proof = _decoded(match["proof"])
        if len(proof) != hashlib.sha256().digest_size:
            raise _malformed("malformed SCRAM message", "invalid-encoding")
        secret = self._proven(message, proof)
        signature = hmac.digest(_stored(secret.scram.server_key), message, "sha256")
        return b"v=" + base64.b64encode(signature)

    def _proven(self, message: bytes, proof: bytes) -> Secret:
        """Return the live secret that `proof` proves."""
        assert self._credential is not None
        compared = list(self._credential.secrets)
        compared += compared[:1] * (SECRETS_COMPARED - len(compared))
        matched: Secret | None = None
        for secret in compared:
            if _is_proof(secret, message, proof):
                matched = secret
        if matched is None or not self._credential.enabled:
            raise ScramError(Reason.UNAUTHENTICATED, "authentication failed", "invalid-proof")
        if matched not in live_secrets(self._credential, self._now):
            raise ScramError(Reason.EXPIRED, "the password has expired", "other-error")
        return matched

    def _check_flag(self, flag: str) -> None:
        """RFC 5802 section 6: which client may use channel binding, and which must."""
        if flag == "y" and self._channel_binding is not None:
            # The client has it, and believes that we do not: someone cut it out of our offer.
            raise ScramError(
                Reason.UNAUTHENTICATED,
                "the client did not see that channel binding is offered",
                "server-does-support-channel-binding",
            )
        if self._is_plus != flag.startswith("p="):
            raise _malformed("the SCRAM mechanism and its header disagree", "other-error")
        if self._is_plus and flag != f"p={CHANNEL_BINDING_TYPE}":
            raise _malformed("unsupported channel binding type", "unsupported-channel-binding-type")

    def _check_binding(self, given: str) -> None:
        data = self._channel_binding if self._is_plus else b""
        assert data is not None
        if not hmac.compare_digest(_decoded(given), self._gs2.encode() + data):
            raise ScramError(
                Reason.UNAUTHENTICATED,
                "SCRAM channel binding check failed",
                "channel-bindings-dont-match",
            )

    def _advance(self, expected: _State, following: _State) -> None:
        if self._state is not expected:
            raise LocalError(f"SCRAM step called in state {self._state.value}")
        self._state = following


def _is_proof(secret: Secret, message: bytes, proof: bytes) -> bool:
    """RFC 5802 section 3: H(proof XOR HMAC(StoredKey, AuthMessage)) = StoredKey."""
    stored_key = _stored(secret.scram.stored_key)
    signature = hmac.digest(stored_key, message, "sha256")
    client_key = int.from_bytes(proof, "big") ^ int.from_bytes(signature, "big")
    return hmac.compare_digest(
        hashlib.sha256(client_key.to_bytes(len(proof), "big")).digest(), stored_key
    )


_stored = lru_cache(maxsize=4096)(base64.b64decode)


def _text(message: bytes, bytes_max: int) -> str:
    if len(message) > bytes_max:
        raise ScramError(Reason.LIMIT, "the SCRAM message is too long", "other-error")
    try:
        text = message.decode()
    except UnicodeDecodeError as error:
        raise _malformed("the SCRAM message is not UTF-8", "invalid-encoding") from error
    if "\0" in text:
        raise _malformed("malformed SCRAM message", "invalid-encoding")
    return text


def _unescaped(name: str) -> str:
    """RFC 5802 section 5.1: "=2C" is a comma, "=3D" an equals sign, any other "=" is wrong."""
    if "=" not in name:
        return name
    if re.search(r"=(?!2C|3D)", name):
        raise _malformed("malformed user name", "invalid-username-encoding")
    return name.replace("=2C", ",").replace("=3D", "=")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise _malformed("malformed SCRAM message", "invalid-encoding") from error


def _malformed(message: str, server_error: str) -> ScramError:
    return ScramError(Reason.MALFORMED, message, server_error)

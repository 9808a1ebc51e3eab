"""Verification of AWS Signature Version 4 in the Authorization header, as pure functions.

    Authorization: AWS4-HMAC-SHA256 Credential=AKID/20260131/us-east-1/dynamodb/aws4_request,
        SignedHeaders=host;x-amz-date, Signature=<hex>

`parse` first, so that the caller can find the instance by the access key; then `verify` with the
secret of that key, or with one that nobody has. The source is "Signature Version 4 signing
process" of the AWS General Reference; step numbers in comments are its steps.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from engines.kit.errors import Reason, RequestError

if TYPE_CHECKING:
    from hashlib import _Hash

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_S_MAX = 15 * 60
HEADER_CHARACTERS_MAX = 8192
# A signing key lives for one day, region and service; this many are kept.
SIGNING_KEYS_MAX = 4096
ACCESS_SECRET_CHARACTERS = 40
# Longer headers are read each time; a rotated key has two secrets for a while.
CACHED_CHARACTERS_MAX = 1024
LIVE_SECRETS_MAX = 2
COVERED_MAX = 16
# The header by which S3 clients announce the hash that they signed.
CONTENT_HASH_HEADER = "x-amz-content-sha256"

_CREDENTIAL = re.compile(
    r"(?P<key>[^/\s,]{1,128})/(?P<date>\d{8})/(?P<region>[A-Za-z0-9\-]{1,64})"
    r"/(?P<service>[A-Za-z0-9\-]{1,64})/aws4_request"
)
_SIGNED_HEADERS = re.compile(r"[a-z0-9!#$%&'*+.^_`|~\-]+(?:;[a-z0-9!#$%&'*+.^_`|~\-]+)*")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_STAMP = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z")
_SPACES = re.compile(r"[ \t]+")
_BASIC_FORM = "%Y%m%dT%H%M%SZ"
# Services whose clients encode the path once; all others encode it twice (step 1).
_SINGLY_ENCODED_SERVICES = frozenset({"s3"})

_BLOCK_BYTES = 64

Headers = Sequence[tuple[str, str]]


class SignatureFault(StrEnum):
    """What is wrong with a signed request; each AWS service has an error code for each."""

    MISSING = "missing"  # no Authorization header
    INCOMPLETE = "incomplete"  # a part of it is absent or malformed
    SKEWED = "skewed"  # signed too long ago, or in the future
    MISMATCH = "mismatch"  # the signature is not that of the secret


class SignatureError(RequestError):
    """The request is not signed as it must be."""

    def __init__(self, fault: SignatureFault, message: str) -> None:
        reasons = {
            SignatureFault.SKEWED: Reason.EXPIRED,
            SignatureFault.INCOMPLETE: Reason.MALFORMED,
        }
        super().__init__(reasons.get(fault, Reason.UNAUTHENTICATED), message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Scope:
    """What a client's requests of one day have in common: all of the header but the signature."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    names: frozenset[str]  # the same as a set
    text: str  # the credential scope, `date/region/service/aws4_request`
    # Which headers of a request these names have been found to cover.
    covered: set[tuple[str, ...]]


@dataclass(slots=True)
class Authorization:
    """The parts of the Authorization header."""

    scope: Scope
    signature: str


@dataclass(slots=True)
class SignedRequest:
    """What was signed. `path` and `query` are as they stood in the request line."""

    method: str
    path: str
    query: str
    # By names in lower case: in the order received, or values of one name joined by commas.
    headers: Headers | Mapping[str, str]
    payload_hash: str  # hex SHA-256 of the body, or what x-amz-content-sha256 says


def parse(header: str | None) -> Authorization:
    """Take the Authorization header apart.

    Raises SignatureError: MISSING, INCOMPLETE.
    """
    if not header:
        raise SignatureError(SignatureFault.MISSING, "missing authentication token")
    # All clients put the signature last, behind what they say in every request of a day.
    head, equals, signature = header.rpartition("Signature=")
    if equals and len(header) <= CACHED_CHARACTERS_MAX and _SIGNATURE.fullmatch(signature):
        return Authorization(_scope_cached(head), signature)
    parts = _parts(header)
    signature = parts.pop("Signature", "")
    if not _SIGNATURE.fullmatch(signature):
        raise _incomplete("the authorization header needs a valid 'Signature' parameter")
    return Authorization(_scope_of(parts), signature)


def verify(
    authorization: Authorization, request: SignedRequest, secrets: Sequence[str], now: float
) -> None:
    """Prove that whoever signed `request` holds one of `secrets`.

    Raises SignatureError: INCOMPLETE, SKEWED, MISMATCH.
    """
    scope = authorization.scope
    values = _joined(request.headers)
    stamp, signed_at = _signed_at(scope, values)
    _check_coverage(scope, values)
    canonical = _canonical(request, scope.signed_headers, scope.service, values)
    # Step 2: the string to sign. Step 3: its signature.
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    to_sign = f"{ALGORITHM}\n{stamp}\n{scope.text}\n{digest}".encode()
    if not _is_signed(authorization, to_sign, secrets):
        raise SignatureError(
            SignatureFault.MISMATCH, "the request signature does not match the signing method"
        )
    # Only whoever holds the secret is told about clocks.
    if abs(now - signed_at) > SKEW_S_MAX:
        raise SignatureError(
            SignatureFault.SKEWED, "the request was signed too far from the server's time"
        )


def _is_signed(authorization: Authorization, to_sign: bytes, secrets: Sequence[str]) -> bool:
    scope = authorization.scope
    for secret in secrets:
        expected = _signature(secret, scope, to_sign)
        if hmac.compare_digest(expected, authorization.signature):
            return True
    # As much work for a key with one secret, or with none, as for one that is being rotated.
    for _ in range(LIVE_SECRETS_MAX - len(secrets)):
        _signature("", scope, to_sign)
    return False


def _signature(secret: str, scope: Scope, to_sign: bytes) -> str:
    inner, outer = _schedule(secret, scope.date, scope.region, scope.service)
    digest = inner.copy()
    digest.update(to_sign)
    signature = outer.copy()
    signature.update(digest.digest())
    return signature.hexdigest()


@functools.lru_cache(maxsize=SIGNING_KEYS_MAX)
def _schedule(secret: str, date: str, region: str, service: str) -> tuple[_Hash, _Hash]:
    """Return HMAC's two hashes (RFC 2104) with the signing key already in them."""
    key = signing_key(secret, date, region, service).ljust(_BLOCK_BYTES, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
    return inner, hashlib.sha256(bytes(byte ^ 0x5C for byte in key))


def canonical_request(request: SignedRequest, signed_headers: Sequence[str], service: str) -> str:
    """Step 1: the one spelling of the request that both sides can compute."""
    return _canonical(request, signed_headers, service, _joined(request.headers))


def _canonical(
    request: SignedRequest, signed_headers: Sequence[str], service: str, values: Mapping[str, str]
) -> str:
    path, query = request.path, request.query
    lines = "".join([f"{name}:{_folded(values.get(name, ''))}\n" for name in signed_headers])
    return (
        f"{request.method}\n{path if path == '/' else _canonical_path(path, service)}\n"
        f"{_canonical_query(query) if query else ''}\n{lines}\n{';'.join(signed_headers)}\n"
        f"{request.payload_hash}"
    )


def _folded(value: str) -> str:
    return _SPACES.sub(" ", value) if "  " in value or "\t" in value else value


def _joined(headers: Headers | Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers with those of one name joined (step 1)."""
    if isinstance(headers, Mapping):
        return headers
    values: dict[str, str] = {}
    for name, value in headers:
        value = value.strip()
        values[name] = f"{values[name]},{value}" if name in values else value
    return values


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Step 3: derive the key of one day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def stamp(seconds: float) -> str:
    """Return a time as it is signed (basic ISO 8601)."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_BASIC_FORM)


def access_secret(master_key: bytes, access_key_id: str, version: int) -> str:
    """Derive the secret of an access key; a new version is a new secret. Nothing is stored."""
    message = f"sigv4:{access_key_id}:{version}".encode()
    return base64.b64encode(hmac.digest(master_key, message, "sha256"), b"Aa").decode()[
        :ACCESS_SECRET_CHARACTERS
    ]


def _signed_at(scope: Scope, values: Mapping[str, str]) -> tuple[str, float]:
    """Return the time of signing as signed (basic ISO 8601), and in seconds."""
    try:
        text = values.get("x-amz-date")
        stamp, seconds = _basic(text) if text is not None else _http(values["date"])
    except (KeyError, ValueError) as error:
        raise _incomplete("the request needs a valid 'X-Amz-Date' or 'Date' header") from error
    if not stamp.startswith(scope.date):
        raise _incomplete("the date of the credential scope is not that of the request")
    return stamp, seconds


@functools.lru_cache(maxsize=256)
def _basic(text: str) -> tuple[str, float]:
    """Read what the many requests of one second have in common."""
    moment = _basic_moment(text)
    return moment.strftime(_BASIC_FORM), moment.timestamp()


def _http(text: str) -> tuple[str, float]:
    moment = _http_moment(text)
    return moment.strftime(_BASIC_FORM), moment.timestamp()


def _basic_moment(text: str) -> datetime:
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError("not a basic ISO 8601 time")
    year, month, day, hour, minute, second = map(int, match.groups())
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def _http_moment(text: str) -> datetime:
    return datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)


def _check_coverage(scope: Scope, values: Mapping[str, str]) -> None:
    """`host`, and what AWS itself reads, must be signed, or it could be swapped on the way."""
    present = tuple(values)
    if present in scope.covered:
        return
    names = scope.names
    has_all = "host" in names and ("x-amz-date" in values or "date" in names)
    for name in values:
        if name.startswith("x-amz-") and name not in names:
            has_all = False
    if not has_all or not names <= values.keys():
        raise _incomplete("'host' and every 'x-amz-' header must be present and signed")
    if len(scope.covered) < COVERED_MAX:
        scope.covered.add(present)


def _scope(head: str) -> Scope:
    """Read all of the header before its signature."""
    return _scope_of(_parts(head.rstrip().removesuffix(",")))


_scope_cached = functools.lru_cache(maxsize=SIGNING_KEYS_MAX)(_scope)


def _parts(header: str) -> dict[str, str]:
    algorithm, _, rest = header.strip().partition(" ")
    if len(header) > HEADER_CHARACTERS_MAX or algorithm != ALGORITHM:
        raise _incomplete("the authorization header is not a signature of version 4")
    parts: dict[str, str] = {}
    for item in rest.split(","):
        name, equals, value = item.strip().partition("=")
        if not equals or name in parts:
            raise _incomplete("malformed authorization header")
        parts[name] = value
    return parts


def _scope_of(parts: Mapping[str, str]) -> Scope:
    credential = _CREDENTIAL.fullmatch(parts.get("Credential", ""))
    signed = parts.get("SignedHeaders", "")
    if credential is None:
        raise _incomplete("the authorization header needs a valid 'Credential' parameter")
    if not _SIGNED_HEADERS.fullmatch(signed) or "Signature" in parts:
        raise _incomplete("the authorization header needs a valid 'SignedHeaders' parameter")
    key, date, region, service = credential.group("key", "date", "region", "service")
    names = tuple(signed.split(";"))
    text = f"{date}/{region}/{service}/aws4_request"
    return Scope(key, date, region, service, names, frozenset(names), text, set())


def _canonical_path(path: str, service: str) -> str:
    if service in _SINGLY_ENCODED_SERVICES:
        return quote(unquote_to_bytes(path or "/"), safe="/-_.~")
    # Dot segments and empty segments go, as the AWS clients remove them before they sign.
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(quote(segment, safe="-_.~"))
    end = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + end


def _canonical_query(query: str) -> str:
    pairs = []
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        pairs.append((_requoted(name), _requoted(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _requoted(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


def _incomplete(message: str) -> SignatureError:
    return SignatureError(SignatureFault.INCOMPLETE, message)

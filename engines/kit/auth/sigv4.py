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
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import quote, unquote_to_bytes

from engines.kit.errors import Reason, RequestError

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_S_MAX = 15 * 60
HEADER_CHARACTERS_MAX = 8192
# A signing key lives for one day, region and service; this many are kept.
SIGNING_KEYS_MAX = 4096
ACCESS_SECRET_CHARACTERS = 40
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
# Services whose clients encode the path once; all others encode it twice (step 1).
_SINGLY_ENCODED_SERVICES = frozenset({"s3"})

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
class Authorization:
    """The parts of the Authorization header."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        """The credential scope."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What was signed. `path` and `query` are as they stood in the request line."""

    method: str
    path: str
    query: str
    headers: Headers  # names in lower case, in the order received
    payload_hash: str  # hex SHA-256 of the body, or what x-amz-content-sha256 says


def parse(header: str | None) -> Authorization:
    """Take the Authorization header apart.

    Raises SignatureError: MISSING, INCOMPLETE.
    """
    if not header:
        raise SignatureError(SignatureFault.MISSING, "missing authentication token")
    algorithm, _, rest = header.strip().partition(" ")
    if len(header) > HEADER_CHARACTERS_MAX or algorithm != ALGORITHM:
        raise _incomplete("the authorization header is not a signature of version 4")
    parts: dict[str, str] = {}
    for item in rest.split(","):
        name, equals, value = item.strip().partition("=")
        if not equals or name in parts:
            raise _incomplete("malformed authorization header")
        parts[name] = value
    credential = _CREDENTIAL.fullmatch(parts.get("Credential", ""))
    signed = parts.get("SignedHeaders", "")
    signature = parts.get("Signature", "")
    if credential is None:
        raise _incomplete("the authorization header needs a valid 'Credential' parameter")
    if not _SIGNED_HEADERS.fullmatch(signed):
        raise _incomplete("the authorization header needs a valid 'SignedHeaders' parameter")
    if not _SIGNATURE.fullmatch(signature):
        raise _incomplete("the authorization header needs a valid 'Signature' parameter")
    return Authorization(
        access_key_id=credential["key"],
        date=credential["date"],
        region=credential["region"],
        service=credential["service"],
        signed_headers=tuple(signed.split(";")),
        signature=signature,
    )


def verify(authorization: Authorization, request: SignedRequest, secret: str, now: float) -> None:
    """Prove that whoever signed `request` holds `secret`.

    Raises SignatureError: INCOMPLETE, SKEWED, MISMATCH.
    """
    stamp, signed_at = _signed_at(authorization, request.headers)
    _check_coverage(authorization, request.headers)
    canonical = canonical_request(request, authorization.signed_headers, authorization.service)
    # Step 2: the string to sign. Step 3: its signature.
    to_sign = "\n".join(
        (ALGORITHM, stamp, authorization.scope, hashlib.sha256(canonical.encode()).hexdigest())
    )
    key = signing_key(secret, authorization.date, authorization.region, authorization.service)
    expected = hmac.digest(key, to_sign.encode(), "sha256").hex()
    is_equal = hmac.compare_digest(expected, authorization.signature)
    # Only whoever holds the secret is told about clocks.
    if not is_equal:
        raise SignatureError(
            SignatureFault.MISMATCH, "the request signature does not match the signing method"
        )
    if abs(now - signed_at) > SKEW_S_MAX:
        raise SignatureError(
            SignatureFault.SKEWED, "the request was signed too far from the server's time"
        )


def canonical_request(request: SignedRequest, signed_headers: Sequence[str], service: str) -> str:
    """Step 1: the one spelling of the request that both sides can compute."""
    values: dict[str, list[str]] = {}
    for name, value in request.headers:
        values.setdefault(name, []).append(_SPACES.sub(" ", value.strip()))
    lines = [f"{name}:{','.join(values.get(name, ()))}\n" for name in signed_headers]
    return "\n".join(
        (
            request.method,
            _canonical_path(request.path, service),
            _canonical_query(request.query),
            "".join(lines),
            ";".join(signed_headers),
            request.payload_hash,
        )
    )


@functools.lru_cache(maxsize=SIGNING_KEYS_MAX)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Step 3: derive the key of one day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def access_secret(master_key: bytes, access_key_id: str, version: int) -> str:
    """Derive the secret of an access key; a new version is a new secret. Nothing is stored."""
    message = f"sigv4:{access_key_id}:{version}".encode()
    return base64.b64encode(hmac.digest(master_key, message, "sha256"), b"Aa").decode()[
        :ACCESS_SECRET_CHARACTERS
    ]


def _signed_at(authorization: Authorization, headers: Headers) -> tuple[str, float]:
    """Return the time of signing as signed (basic ISO 8601), and in seconds."""
    stamps = [value.strip() for name, value in headers if name == "x-amz-date"]
    dates = [value.strip() for name, value in headers if name == "date"]
    try:
        moment = _basic_moment(stamps[0]) if stamps else _http_moment(dates[0])
    except (IndexError, ValueError) as error:
        raise _incomplete("the request needs a valid 'X-Amz-Date' or 'Date' header") from error
    stamp = moment.strftime("%Y%m%dT%H%M%SZ")
    if len(stamps or dates) > 1 or not stamp.startswith(authorization.date):
        raise _incomplete("the date of the credential scope is not that of the request")
    return stamp, moment.timestamp()


def _basic_moment(text: str) -> datetime:
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError("not a basic ISO 8601 time")
    year, month, day, hour, minute, second = map(int, match.groups())
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def _http_moment(text: str) -> datetime:
    return datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)


def _check_coverage(authorization: Authorization, headers: Headers) -> None:
    """`host`, and what AWS itself reads, must be signed, or it could be swapped on the way."""
    signed = set(authorization.signed_headers)
    present = {name for name, _ in headers}
    required = {"host"} | {name for name in present if name.startswith("x-amz-")}
    if "x-amz-date" not in present:
        required.add("date")
    if not required <= signed or not signed <= present:
        raise _incomplete("'host' and every 'x-amz-' header must be present and signed")


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

"""Whose request it is: Signature Version 4, complained about in DynamoDB's order and words.

An access key that nobody has and a signature that its secret did not make get the same answer
after the same work: DynamoDB tells them apart, which here would tell names. Signatures in the query
are refused: no SDK makes them for this service, and an address with one in it ends up in logs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from engines.keyvalue.errors import DynamoError, incomplete_signature, invalid_signature, unproven
from engines.kit.auth import sigv4
from engines.kit.auth.sigv4 import Authorization, SignatureError, SignatureFault, SignedRequest
from engines.kit.errors import Reason
from engines.kit.http.whole import HttpCall, HttpPorts
from engines.kit.ports import Candidate, Grant

ENGINE = "keyvalue"
SERVICE = "dynamodb"
_QUERY_PARAMETERS = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
    "X-Amz-Date",
)
_HEADER_PARAMETERS = ("Credential", "Signature", "SignedHeaders")
_BASIC_TIME = re.compile(r"\d{8}T\d{6}Z")
_REGION = re.compile(r"[A-Za-z0-9\-]{1,64}")
_QUERY_FIELDS_MAX = 100


@dataclass(slots=True)
class Signed:
    """A request whose signer is known."""

    grant: Grant
    region: str


def signed_by(call: HttpCall, ports: HttpPorts) -> Signed:
    """Return who signed a request.

    Raises RequestError: DynamoError for what is wrong with the signature, and what `grant` raises.
    """
    header = call.header("authorization")
    if header is None or not header.startswith("AWS4-HMAC-SHA256 ") or "?" in call.target:
        _complain(call, header)
    try:
        authorization = sigv4.parse(header)
    except SignatureError as error:
        _complain(call, header)
        raise incomplete_signature(_sentence(error), header or "") from error
    scope = authorization.scope
    candidate = ports.directory.find_access_key(ENGINE, scope.access_key_id, call.server_name)
    if candidate.is_mock:
        anonymous = ports.anonymous()
        if anonymous is not None:
            return Signed(ports.grant(anonymous, call.address, call.connection_id), scope.region)
    _verify(call, ports, authorization, candidate)
    grant = ports.grant(candidate, call.address, call.connection_id)
    return Signed(grant, scope.region)


def _verify(
    call: HttpCall, ports: HttpPorts, authorization: Authorization, candidate: Candidate
) -> None:
    scope = authorization.scope
    path, _, query = call.target.partition("?")
    digest = hashlib.sha256(call.body).hexdigest()
    request = SignedRequest(call.method, path, query, call.joined, digest)
    now = ports.clock.now()
    try:
        if scope.service != SERVICE:
            raise invalid_signature("Credential should be scoped to correct service: 'dynamodb'. ")
        if call.header("x-amz-security-token") is not None:
            # Sessions of temporary credentials are not issued here.
            raise unproven()
        sigv4.verify(authorization, request, ports.directory.access_secrets(candidate), now)
        if candidate.is_mock:
            raise unproven()
    except SignatureError as error:
        if error.fault is SignatureFault.SKEWED:
            raise _skewed(call, now) from error
        if error.fault is SignatureFault.INCOMPLETE:
            _complain_of_headers(call, authorization)
            raise incomplete_signature(_sentence(error), call.header("authorization")) from error
        ports.login_failed(candidate, call.address, "signature")
        raise unproven() from error


def _complain(call: HttpCall, header: str | None) -> None:
    """Raise what DynamoDB says of a header that is not a whole one; nothing if it is."""
    _, has_query, text = call.target.partition("?")
    query = _query(text) if has_query else {}
    is_in_query = "X-Amz-Algorithm" in query
    if header and is_in_query:
        raise invalid_signature(
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP "
            "header."
        )
    if is_in_query:
        _complain_of_query(query)
    if not header or not header.strip().startswith("AWS4-"):
        raise DynamoError(
            Reason.UNAUTHENTICATED,
            "MissingAuthenticationTokenException",
            "Request is missing Authentication Token",
        )
    parts = _parts(header)
    missing = [
        f"Authorization header requires '{name}' parameter. "
        for name in _HEADER_PARAMETERS
        if not parts.get(name)
    ]
    if call.header("x-amz-date") is None and call.header("date") is None:
        missing.append(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
        )
    if missing:
        raise incomplete_signature("".join(missing), header)
    _complain_of_credential(header, parts["Credential"])


def _complain_of_credential(header: str, credential: str) -> None:
    algorithm = header.strip().partition(" ")[0]
    if algorithm != sigv4.ALGORITHM:
        raise incomplete_signature(
            f"Unsupported AWS 'algorithm': '{algorithm}' (only AWS4-HMAC-SHA256 for now). ", header
        )
    pieces = credential.split("/")
    if len(pieces) != 5:
        raise incomplete_signature(
            "Credential must have exactly 5 slash-delimited elements, "
            f"e.g. keyid/date/region/service/term, got '{credential}'"
        )
    _, _, region, service, terminator = pieces
    wrong = ""
    if not _REGION.fullmatch(region):
        wrong += f"Credential should be scoped to a valid region, not '{region}'. "
    if service != SERVICE:
        wrong += "Credential should be scoped to correct service: 'dynamodb'. "
    if terminator != "aws4_request":
        wrong += (
            "Credential should be scoped with a valid terminator: 'aws4_request', "
            f"not '{terminator}'. "
        )
    if wrong:
        raise invalid_signature(wrong)


def _complain_of_query(query: Mapping[str, str]) -> None:
    missing = [
        f"AWS query-string parameters must include '{name}'. "
        for name in _QUERY_PARAMETERS
        if not query.get(name)
    ]
    if missing:
        raise incomplete_signature(f"{''.join(missing)}Re-examine the query-string parameters.")
    raise incomplete_signature(
        "Signatures in the query string are not supported; sign with the Authorization header."
    )


def _complain_of_headers(call: HttpCall, authorization: Authorization) -> None:
    """Raise what DynamoDB says of the headers that a signature must cover."""
    scope = authorization.scope
    text = call.header("x-amz-date")
    if text is not None and not _BASIC_TIME.fullmatch(text.strip()):
        raise incomplete_signature(
            f"Date must be in ISO-8601 'basic format'. Got '{text}'. "
            "See http://en.wikipedia.org/wiki/ISO_8601"
        )
    if "host" not in scope.names:
        raise invalid_signature("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    if text is not None and not text.startswith(scope.date):
        raise invalid_signature(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
            f"HTTP: '{scope.date}' != '{text[:8]}', from '{text}'."
        )


def _skewed(call: HttpCall, now: float) -> DynamoError:
    stamp = call.header("x-amz-date") or call.header("date") or ""
    bound = sigv4.SKEW_S_MAX
    here = sigv4.stamp(now)
    if stamp > here:
        limit = sigv4.stamp(now + bound)
        return invalid_signature(
            f"Signature not yet current: {stamp} is still later than {limit} ({here} + 15 min.)"
        )
    limit = sigv4.stamp(now - bound)
    return invalid_signature(
        f"Signature expired: {stamp} is now earlier than {limit} ({here} - 15 min.)"
    )


def _parts(header: str) -> dict[str, str]:
    """Read `name=value`s, between commas or spaces."""
    found = {}
    for item in re.split(r"[, ]", header)[1:]:
        name, _, value = item.strip().partition("=")
        if name:
            found[name] = value
    return found


def _query(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_QUERY_FIELDS_MAX))
    except ValueError:
        return {}


def _sentence(error: SignatureError) -> str:
    return f"{error.message[0].upper()}{error.message[1:]}. "

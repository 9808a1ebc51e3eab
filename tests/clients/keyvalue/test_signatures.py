"""Signature Version 4 as botocore signs it, against our verification: random requests."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.auth import sigv4
from engines.kit.auth.sigv4 import SignatureError, SignatureFault, SignedRequest

KEY, SECRET = "wk_abcdefghijkl", "s" * 40
TEXT = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
NAMES = st.sampled_from(["x-amz-target", "x-amz-meta-a", "x-own", "content-type", "accept"])


def as_signed(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, region: str
) -> tuple[str, SignedRequest]:
    """Return the header that botocore makes, and the request as it arrives."""
    text = "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items()
    )
    url = f"http://localhost:8000{quote(path)}{'?' + text if text else ''}"
    request = AWSRequest(method, url, dict(headers), body)
    SigV4Auth(Credentials(KEY, SECRET), "dynamodb", region).add_auth(request)
    arrived = {name.lower(): value.strip() for name, value in request.headers.items()}
    arrived.setdefault("host", "localhost:8000")
    digest = hashlib.sha256(body).hexdigest()
    return arrived["authorization"], SignedRequest(method, quote(path), text, arrived, digest)


@given(
    method=st.sampled_from(["POST", "GET"]),
    path=st.sampled_from(["/", "/a", "/a/b", "/a b/é"]),
    query=st.dictionaries(TEXT.filter(bool), TEXT, max_size=3),
    headers=st.dictionaries(
        NAMES, st.sampled_from(["v", "a  b", " x y ", "DynamoDB.GetItem"]), max_size=4
    ),
    body=st.binary(max_size=64),
    region=st.sampled_from(["us-east-1", "eu-central-1", "local"]),
)
def test_what_botocore_signs_is_verified_and_what_is_changed_is_not(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, region: str
) -> None:
    header, request = as_signed(method, path, query, headers, body, region)
    authorization = sigv4.parse(header)
    now = datetime.now(UTC).timestamp()
    sigv4.verify(authorization, request, ("other", SECRET), now)
    sigv4.verify(authorization, request, (SECRET,), now)
    request.payload_hash = hashlib.sha256(body + b"x").hexdigest()
    with pytest.raises(SignatureError) as refused:
        sigv4.verify(authorization, request, (SECRET,), now)
    assert refused.value.fault is SignatureFault.MISMATCH


@given(st.text(max_size=200))
def test_no_header_breaks_the_parser(text: str) -> None:
    for header in (
        text,
        f"AWS4-HMAC-SHA256 {text}",
        f"AWS4-HMAC-SHA256 {text}Signature={'0' * 64}",
    ):
        try:
            parsed = sigv4.parse(header)
        except SignatureError as error:
            assert error.fault in (SignatureFault.MISSING, SignatureFault.INCOMPLETE)
        else:
            assert parsed.scope.access_key_id

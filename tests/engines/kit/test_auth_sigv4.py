"""AWS Signature Version 4: AWS's own vectors, and a signer written here from the description."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.auth import sigv4
from engines.kit.auth.sigv4 import SignatureError, SignatureFault, SignedRequest
from engines.kit.errors import Reason

# The account of AWS's published test suite.
KEY_ID = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
STAMP = "20150830T123600Z"
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
EMPTY = hashlib.sha256(b"").hexdigest()
BASE = (("host", "example.amazonaws.com"), ("x-amz-date", STAMP))


def header(signature: str, signed: str = "host;x-amz-date", service: str = "service") -> str:
    return (
        f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20150830/us-east-1/{service}/aws4_request, "
        f"SignedHeaders={signed}, Signature={signature}"
    )


def check(
    authorization: str, request: SignedRequest, secret: str = SECRET, now: float = NOW
) -> None:
    sigv4.verify(sigv4.parse(authorization), request, (secret,), now)


def fault(
    authorization: str | None,
    request: SignedRequest | None = None,
    secret: str = SECRET,
    now: float = NOW,
) -> SignatureFault:
    """Return what parsing (without a request) or verifying complains of."""
    with pytest.raises(SignatureError) as caught:
        parse_and_verify(authorization, request, secret, now)
    return caught.value.fault


def parse_and_verify(
    authorization: str | None, request: SignedRequest | None, secret: str, now: float
) -> None:
    parsed = sigv4.parse(authorization)
    if request is not None:
        sigv4.verify(parsed, request, (secret,), now)


# name, method, path, query, further headers, signed headers, signature
VECTORS = [
    ("get-vanilla", "GET", "/", "", (), "host;x-amz-date",
     "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("get-vanilla-query-order-key-case", "GET", "/", "Param2=value2&Param1=value1", (),
     "host;x-amz-date",
     "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ("post-vanilla", "POST", "/", "", (), "host;x-amz-date",
     "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
]  # fmt: skip


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector[0])
def test_the_signatures_of_the_aws_test_suite_verify(vector: tuple[object, ...]) -> None:
    _, method, path, query, headers, signed, signature = vector
    request = SignedRequest(method, path, query, BASE + headers, EMPTY)  # type: ignore[arg-type, operator]
    check(header(signature, signed), request)  # type: ignore[arg-type]


def test_the_documented_signing_key_is_derived() -> None:
    key = sigv4.signing_key(SECRET, "20150830", "us-east-1", "iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"


def test_the_documented_s3_request_verifies() -> None:
    request = SignedRequest(
        "GET", "/test.txt", "",
        (
            ("host", "examplebucket.s3.amazonaws.com"), ("range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY), ("x-amz-date", "20130524T000000Z"),
        ),
        EMPTY,
    )  # fmt: skip
    authorization = (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    now = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
    check(authorization, request, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", now)


def sign(request: SignedRequest, path: str, query: list[tuple[str, str]], service: str) -> str:
    """Sign as a client does: from the decoded path and query, by the book."""
    once = quote(path, safe="/-_.~")
    canonical_path = once if service == "s3" else quote(once, safe="/-_.~")
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query)
    canonical_query = "&".join(f"{name}={value}" for name, value in pairs)
    names = sorted({name for name, _ in request.headers})
    lines = ""
    for name in names:
        values = [
            re.sub(" +", " ", value).strip() for each, value in request.headers if each == name
        ]
        lines += name + ":" + ",".join(values) + "\n"
    canonical = f"{request.method}\n{canonical_path}\n{canonical_query}\n{lines}\n"
    canonical += ";".join(names) + "\n" + request.payload_hash
    scope = f"20150830/us-east-1/{service}/aws4_request"
    to_sign = (
        f"AWS4-HMAC-SHA256\n{STAMP}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    )
    key = ("AWS4" + SECRET).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    return header(signature, ";".join(names), service)


segment = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8
).filter(lambda text: text not in (".", ".."))
words = st.text(alphabet="ab =&+%/é~*'\"", max_size=6)


@given(
    st.sampled_from(["dynamodb", "s3"]),
    st.lists(segment, max_size=3),
    st.lists(st.tuples(words.filter(bool), words), max_size=4, unique_by=lambda pair: pair[0]),
    st.lists(st.sampled_from(["a", " b  c ", "d"]), max_size=3),
    st.binary(max_size=20),
)
def test_what_an_independent_signer_signs_is_verified(
    service: str, segments: list[str], query: list[tuple[str, str]], extra: list[str], body: bytes
) -> None:
    path = "/" + "/".join(segments)
    request = SignedRequest(
        method="POST",
        path=quote(path, safe="/-_.~"),
        query="&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query),
        headers=BASE + tuple(("x-amz-meta", value) for value in extra),
        payload_hash=hashlib.sha256(body).hexdigest(),
    )
    authorization = sign(request, path, query, service)
    check(authorization, request)
    for changed in (
        replace(request, method="PUT"),
        replace(request, path=request.path + "x"),
        replace(request, query=request.query + "&x=y"),
        replace(request, payload_hash=hashlib.sha256(body + b"x").hexdigest()),
        replace(request, headers=(("host", "evil"), *request.headers[1:])),
    ):
        assert fault(authorization, changed) is SignatureFault.MISMATCH
    assert fault(authorization, request, secret=SECRET + "x") is SignatureFault.MISMATCH


REQUEST = SignedRequest("GET", "/", "", BASE, EMPTY)
GOOD = header(VECTORS[0][-1])  # type: ignore[arg-type]


def test_a_clock_up_to_fifteen_minutes_off_is_accepted() -> None:
    for now in (NOW - 900, NOW + 900):
        check(GOOD, REQUEST, now=now)
    for now in (NOW - 901, NOW + 901):
        assert fault(GOOD, REQUEST, now=now) is SignatureFault.SKEWED
    # Who cannot sign is not told about clocks.
    assert fault(GOOD, REQUEST, now=NOW + 9e9, secret="x") is SignatureFault.MISMATCH


def test_each_fault_has_its_reason() -> None:
    reasons = {fault: SignatureError(fault, "").reason for fault in SignatureFault}
    assert reasons == {
        SignatureFault.MISSING: Reason.UNAUTHENTICATED,
        SignatureFault.INCOMPLETE: Reason.MALFORMED,
        SignatureFault.SKEWED: Reason.EXPIRED,
        SignatureFault.MISMATCH: Reason.UNAUTHENTICATED,
    }


@pytest.mark.parametrize("text", [None, ""])
def test_no_header_is_missing(text: str | None) -> None:
    assert fault(text) is SignatureFault.MISSING


@pytest.mark.parametrize(
    "text",
    [
        "Bearer x", "AWS4-HMAC-SHA256", GOOD.replace("SHA256 ", "SHA512 "),
        GOOD.replace("Credential", "Credentials"), GOOD.replace("/20150830", "/2015083"),
        GOOD.replace("aws4_request", "aws4"), GOOD.replace("host;", "Host;"),
        GOOD.replace("SignedHeaders=host;x-amz-date", "SignedHeaders="), GOOD[:-1], GOOD + "0",
        GOOD + ", Signature=" + "0" * 64, GOOD + " x" * 8192, GOOD.replace("AKIDEXAMPLE", ""),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_header_with_a_broken_part_is_incomplete(text: str) -> None:
    assert fault(text) is SignatureFault.INCOMPLETE


@pytest.mark.parametrize(
    "headers",
    [
        (("x-amz-date", STAMP),),
        (("host", "example.amazonaws.com"),),
        (("host", "example.amazonaws.com"), ("date", "yesterday")),
        (*BASE, ("x-amz-security-token", "unsigned")),
        (*BASE, ("x-amz-date", STAMP)),
        (("host", "h"), ("x-amz-date", "20150831T123600Z")),
        (("host", "h"), ("x-amz-date", "20151330T123600Z")),
        (("host", "h"), ("x-amz-date", "2015-08-30")),
    ],
    ids=range(8),
)
def test_headers_that_must_be_there_and_signed_are_demanded(
    headers: tuple[tuple[str, str], ...],
) -> None:
    assert fault(GOOD, replace(REQUEST, headers=headers)) is SignatureFault.INCOMPLETE


def test_a_signed_date_header_stands_in_for_x_amz_date() -> None:
    request = SignedRequest(
        "GET", "/", "", (("date", "Sun, 30 Aug 2015 12:36:00 GMT"), ("host", "h")), EMPTY
    )
    check(sign(request, "/", [], "dynamodb"), request)


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("", "/"), ("/", "/"), ("//", "/"), ("/./", "/"), ("/./example", "/example"),
        ("/example/..", "/"), ("/a//b/", "/a/b/"), ("/%20", "/%2520"), ("/../../a", "/a"),
    ],
)  # fmt: skip
def test_paths_are_normalised_as_the_test_suite_shows(path: str, canonical: str) -> None:
    request = replace(REQUEST, path=path)
    lines = sigv4.canonical_request(request, ("host",), "dynamodb").split("\n")
    assert lines[1] == canonical


def test_s3_paths_are_left_alone_but_for_their_encoding() -> None:
    request = replace(REQUEST, path="/a//b/../%7ec%20%2F")
    lines = sigv4.canonical_request(request, ("host",), "s3").split("\n")
    assert lines[1] == "/a//b/../~c%20/"


def test_access_secrets_are_derived_and_change_with_key_and_version() -> None:
    secret = sigv4.access_secret(b"master", "wk_abcdefghijkl", 1)
    assert secret == sigv4.access_secret(b"master", "wk_abcdefghijkl", 1)
    assert re.fullmatch(r"[A-Za-z0-9]{40}", secret)
    others = {
        sigv4.access_secret(b"master", "wk_abcdefghijkl", 2),
        sigv4.access_secret(b"master", "wk_abcdefghijkm", 1),
        sigv4.access_secret(b"Master", "wk_abcdefghijkl", 1),
    }
    assert len(others | {secret}) == 4

"""Answers as DynamoDB frames them: request id, CRC-32 of what is sent, content type, gzip.

The request id has 52 characters: half of them are random for each worker, half a permuted counter.
"""

from __future__ import annotations

import itertools
import secrets
import zlib

import orjson

from engines.keyvalue.errors import DynamoError
from engines.kit.http.whole import HttpAnswer

REQUEST_ID = "x-amzn-requestid"
CRC = "x-amz-crc32"
JSON = "application/json"
JSON_1_0 = "application/x-amz-json-1.0"

# Below this, gzip costs more than it saves.
GZIP_BYTES_MIN = 1024
_GZIP_WBITS = 16 + zlib.MAX_WBITS
_GZIP_LEVEL = 1

_NOT_FOUND = b"<UnknownOperationException/>\n"
_HEALTHY = b"healthy: dynamodb.us-east-1.amazonaws.com "

_HALF_BITS = 104  # 26 hexadecimal digits
_ODD = 0x9E3779B97F4A7C15F39CC0605D  # odd, so each number of the counter has its own product
_prefix = f"{secrets.randbits(_HALF_BITS):026X}"
_counter = itertools.count(secrets.randbits(32))


def request_id() -> str:
    """Return a new request id."""
    return f"{_prefix}{next(_counter) * _ODD & (1 << _HALF_BITS) - 1:026X}"


def done(body: bytes, content_type: str, operation: str, *, takes_gzip: bool) -> HttpAnswer:
    """Return the answer to an operation that was performed."""
    headers = [(REQUEST_ID, request_id()), ("content-type", content_type)]
    if takes_gzip and len(body) >= GZIP_BYTES_MIN:
        deflate = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WBITS)
        body = deflate.compress(body) + deflate.flush()
        headers.append(("content-encoding", "gzip"))
    headers.append((CRC, str(zlib.crc32(body))))
    return HttpAnswer(200, headers, body, False, operation)


def failed(error: DynamoError, content_type: str, operation: str) -> HttpAnswer:
    """Return the answer to an operation that was refused."""
    body = orjson.dumps(error.body())
    headers = [
        (REQUEST_ID, request_id()),
        ("content-type", content_type),
        (CRC, str(zlib.crc32(body))),
    ]
    if error.retry_after_s is not None:
        # SDKs that look for a hint know one of these; the second counts milliseconds.
        headers.append(("retry-after", str(int(-(-error.retry_after_s // 1)))))
        headers.append(("x-amz-retry-after", str(round(error.retry_after_s * 1000))))
    return HttpAnswer(error.http_status, headers, body, False, operation)


def healthy() -> HttpAnswer:
    """Return the answer to GET."""
    return _plain(200, _HEALTHY)


def not_found() -> HttpAnswer:
    """Return the answer to what is no request of this protocol."""
    return _plain(404, _NOT_FOUND)


def too_large() -> HttpAnswer:
    """Return the answer to a body of more than 16 MiB: it has no request id, nor a length."""
    return HttpAnswer(413, [("transfer-encoding", "chunked")])


def _plain(status: int, body: bytes) -> HttpAnswer:
    return HttpAnswer(status, [(REQUEST_ID, request_id()), (CRC, str(zlib.crc32(body)))], body)

"""One request from its head to its answer.

DynamoDB looks in this order: method and content type, JSON, target, signature, request. JSON is
read with the request itself; only where something before that is refused is it looked at first.
"""

from __future__ import annotations

import zlib

import orjson

from engines.keyvalue.errors import (
    DynamoError,
    internal_error,
    serialization,
    translated,
    unknown_operation,
    validation,
)
from engines.keyvalue.http import answers
from engines.keyvalue.http.signed import signed_by
from engines.keyvalue.parse.operations import OPERATIONS, STREAM_OPERATIONS
from engines.keyvalue.session.service import Service
from engines.kit.errors import RequestError
from engines.kit.http.whole import HttpAnswer, HttpCall, HttpHandler, HttpPorts

BODY_BYTES_MAX = 16 * 1024 * 1024
# What scripts of other origins may read of an answer.
EXPOSED = "x-amzn-RequestId,x-amzn-ErrorType,x-amzn-ErrorMessage,x-amz-crc32,Date"
CORS_SECONDS = 172_800
_GZIP_WBITS = 16 + zlib.MAX_WBITS

# The header X-Amz-Target -> the operation.
_TARGETS = {
    **{f"DynamoDB_20120810.{name}": name for name in OPERATIONS},
    **{f"DynamoDBStreams_20120810.{name}": name for name in STREAM_OPERATIONS},
}


def serve(ports: HttpPorts) -> HttpHandler:
    """Return the handler of this engine's requests."""
    service = Service(ports)

    async def handle(call: HttpCall) -> HttpAnswer:
        answer = await _answer(service, ports, call)
        if call.header("origin") is not None:
            answer.headers.append(("access-control-allow-origin", "*"))
            answer.headers.append(("access-control-expose-headers", EXPOSED))
        return answer

    return handle


def refuse(status: int) -> HttpAnswer:
    """Return the answer where no request could be read, or where we failed."""
    if status == 413:
        return answers.too_large()
    error = internal_error() if status >= 500 else validation("The request is not valid HTTP.")
    answer = answers.failed(error, answers.JSON_1_0, "")
    answer.status = status
    return answer


async def _answer(service: Service, ports: HttpPorts, call: HttpCall) -> HttpAnswer:
    if call.method != "POST":
        return _without_operation(call)
    content_type = _content_type(call)
    if not content_type:
        if call.body:
            return answers.not_found()
        content_type = answers.JSON
    operation = _TARGETS.get(call.header("x-amz-target") or "", "")
    try:
        if not operation:
            raise unknown_operation()
        signed = signed_by(call, ports)
    except RequestError as error:
        return answers.failed(_before(error, call.body), content_type, operation)
    try:
        body = _inflated(call)
        host = call.header("host") or ""
        done = await service.perform(
            signed.grant, operation, signed.region, body, address=call.address, host=host
        )
    except RequestError as error:
        answer = answers.failed(translated(error), content_type, operation)
        answer.error = error
        return answer
    takes_gzip = "gzip" in (call.header("accept-encoding") or "")
    return answers.done(done, content_type, operation, takes_gzip=takes_gzip)


def _without_operation(call: HttpCall) -> HttpAnswer:
    if call.method == "GET":
        return answers.healthy()
    if call.method != "OPTIONS" or call.header("origin") is None:
        return answers.not_found()
    headers = [(answers.REQUEST_ID, answers.request_id())]
    for asked, told in (("headers", "headers"), ("method", "methods")):
        wanted = call.header(f"access-control-request-{asked}")
        if wanted is not None:
            headers.append((f"access-control-allow-{told}", wanted))
    headers.append(("access-control-max-age", str(CORS_SECONDS)))
    return HttpAnswer(200, headers)


def _content_type(call: HttpCall) -> str:
    """Return which of the two content types it is, or ""."""
    given = (call.header("content-type") or "").partition(";")[0].strip()
    return given if given in (answers.JSON_1_0, answers.JSON) else ""


def _before(error: RequestError, body: bytes) -> DynamoError:
    """Return what is complained of first: bad JSON comes before target and signature."""
    if body:
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            return serialization()
    return translated(error)


def _inflated(call: HttpCall) -> bytes:
    """Return the body as it was before the client compressed it, within the bound."""
    coding = call.header("content-encoding")
    if coding is None:
        return call.body
    if coding.strip().lower() != "gzip":
        raise serialization(f"Unsupported content encoding: {coding[:64]}")
    inflate = zlib.decompressobj(wbits=_GZIP_WBITS)
    try:
        body = inflate.decompress(call.body, BODY_BYTES_MAX)
    except zlib.error as error:
        raise serialization("The body is not gzip.") from error
    if not inflate.eof or inflate.unused_data:
        raise serialization("The body is cut, or more than 16 MiB.")
    return body

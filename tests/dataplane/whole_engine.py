"""A small engine whose requests are read whole: it tells what it was asked, and does as it is told.

authorization: <user> <password>     needed, but for /open
/echo      method, target, headers and the body's digest as JSON
/answer    the body back
/big?n     n bytes
/hold      answers once somebody has asked for /release
/fail      an error that the engine does not catch
/chunked   the body back in chunks
/sql       the body is a statement for the instance's tables
/work      the body's statement, in the background
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from ipaddress import IPv6Address

from engines.kit.contract import Endpoint, EngineSpec, Placement, Transport
from engines.kit.errors import NativeError, Reason, RequestError
from engines.kit.http.whole import HttpAnswer, HttpCall, HttpHandler, HttpPorts
from engines.kit.ports import Grant, Hints

BODY_BYTES_MAX = 1024 * 1024
REFUSED = "refused by the engine"


def serve(ports: HttpPorts) -> HttpHandler:
    released = asyncio.Event()

    async def handle(call: HttpCall) -> HttpAnswer:
        path, _, query = call.target.partition("?")
        try:
            if path == "/open":
                return HttpAnswer(200, body=b"open", operation="open")
            grant = sign_in(call, ports)
            if path == "/hold":
                await released.wait()
                released.clear()
            elif path == "/release":
                released.set()
            elif path == "/fail":
                raise ZeroDivisionError
            elif path == "/sql":
                rows = await ports.store(grant.record).fetch(call.body.decode())
                return HttpAnswer(200, body=repr([tuple(row) for row in rows]).encode())
            elif path == "/work":
                store = ports.store(grant.record, 60.0)
                ports.spawn(grant.record, "sql", lambda: run(store, call.body.decode()))
        except RequestError as error:
            return HttpAnswer(403, body=f"{error.reason.value}".encode(), operation="refused")
        return answers(call, path, query, grant)

    return handle


async def run(store: object, text: str) -> None:
    await store.execute(text)  # type: ignore[attr-defined]


def answers(call: HttpCall, path: str, query: str, grant: Grant) -> HttpAnswer:
    if path == "/big":
        return HttpAnswer(200, body=b"x" * int(query))
    if path == "/answer":
        return HttpAnswer(200, body=call.body, operation="answer")
    if path == "/chunked":
        return HttpAnswer(200, [("transfer-encoding", "chunked")], call.body)
    said = {
        "method": call.method,
        "target": call.target,
        "headers": call.headers,
        "body_bytes": len(call.body),
        "sha256": hashlib.sha256(call.body).hexdigest(),
        "address": str(call.address),
        "is_v6": isinstance(call.address, IPv6Address),
        "server_name": call.server_name,
        "connection_id": call.connection_id,
        "instance": grant.record.handle,
        "user": grant.credential.username,
    }
    return HttpAnswer(200, [("x-own", "yes")], json.dumps(said).encode(), operation="echo")


def sign_in(call: HttpCall, ports: HttpPorts) -> Grant:
    username, _, password = (call.header("authorization") or "").partition(" ")
    candidate = ports.directory.find("whole", Hints(username, call.server_name))
    if not ports.directory.verify_password(candidate, password):
        anonymous = ports.anonymous()
        if anonymous is not None and username == "anybody":
            return ports.grant(anonymous, call.address, call.connection_id)
        ports.login_failed(candidate, call.address, "wrong password")
        raise RequestError(Reason.UNAUTHENTICATED, "sign-in failed")
    return ports.grant(candidate, call.address, call.connection_id)


def refuse(status: int) -> HttpAnswer:
    return HttpAnswer(status, [("x-status", str(status))], REFUSED.encode())


def uri(endpoint: Endpoint) -> str:
    return f"http://{endpoint.host}:{endpoint.port}"


ENGINE = EngineSpec(
    name="whole",
    title="Whole requests",
    product="WeftKitWhole",
    port=7000,
    transport=Transport.HTTP,
    placement=Placement.SCHEMA,
    native={reason: NativeError(reason.value) for reason in Reason},
    uri=uri,
    one_liner=uri,
    serve=serve,
    body_bytes_max=BODY_BYTES_MAX,
    refuse=refuse,
)

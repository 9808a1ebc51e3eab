"""The ASGI application of one HTTP engine: route, handle, answer; refusals in the engine's words.

    scope -> Request -> Router.find -> handler -> Response -> send
                   any RequestError -> on_error -> Response

Adds X-Request-ID to every response, Retry-After and Allow to refusals that have them, answers HEAD
by GET and OPTIONS by the route's methods, and closes a connection whose request body nobody read.
The host cancels the call at its deadline, and when the client leaves a response that is streamed.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable

from engines.kit.errors import Reason, RequestError
from engines.kit.http.request import ClientGoneError, Receive, Request, Scope, Send
from engines.kit.http.response import Response
from engines.kit.http.routing import MethodNotAllowedError, Router

Handle = Callable[[Request], Awaitable[Response]]
OnError = Callable[[RequestError, Request], Response]

# So much of a refused body is left to the server to read and forget, so that the connection can
# stay; more is cut off.
UNREAD_BYTES_MAX = 64 * 1024


class Application:
    """An ASGI 3 application over a router."""

    def __init__(self, router: Router[Handle], on_error: OnError) -> None:
        self._router = router
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            # A WebSocket handshake is answered with 403 by the server.
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._handle(request)
            first = await _first_piece(response.body)
        except ClientGoneError:
            return
        except RequestError as error:
            response, first = self._refusal(error, request), None
        except Exception as error:
            internal = RequestError(Reason.INTERNAL, "internal error")
            internal.__cause__ = error
            await _send(request, self._refusal(internal, request), None, send)
            # Whoever serves us logs it with its traceback.
            raise
        try:
            await _send(request, response, first, send)
        finally:
            if not isinstance(response.body, bytes):
                await response.body.aclose()

    async def _handle(self, request: Request) -> Response:
        match = self._router.find(request.method, request.scope["raw_path"])
        request.params = match.params
        request.template = match.template
        if match.handler is None:
            return Response(204, headers={"allow": ", ".join(match.allowed)})
        return await match.handler(request)

    def _refusal(self, error: RequestError, request: Request) -> Response:
        response = self._on_error(error, request)
        assert isinstance(response.body, bytes), "a refusal is not streamed"
        if isinstance(error, MethodNotAllowedError) and not response.has_header(b"allow"):
            response.add_header("allow", ", ".join(error.allowed))
        if error.retry_after_s is not None and not response.has_header(b"retry-after"):
            # RFC 9110 section 10.2.3: whole seconds.
            response.add_header("retry-after", str(max(1, math.ceil(error.retry_after_s))))
        return response


async def _first_piece(body: bytes | AsyncGenerator[bytes, None]) -> bytes | None:
    """Start a streamed body, so that what fails at once can still be answered."""
    return None if isinstance(body, bytes) else await anext(body, None)


async def _send(request: Request, response: Response, first: bytes | None, send: Send) -> None:
    is_bodiless = response.status in (204, 304)
    _complete_headers(request, response, is_bodiless)
    body = response.body
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": response.headers,
        }
    )
    is_bodiless = is_bodiless or request.method == "HEAD"
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": b"" if is_bodiless else body})
        return
    if not is_bodiless and first is not None:
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for piece in body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


def _complete_headers(request: Request, response: Response, is_bodiless: bool) -> None:
    headers = response.headers
    if not response.has_header(b"x-request-id"):
        headers.append((b"x-request-id", request.request_id.encode()))
    body = response.body
    if isinstance(body, bytes) and not is_bodiless and not response.has_header(b"content-length"):
        headers.append((b"content-length", b"%d" % len(body)))
    unread = request.unread_bytes()
    if unread is None or unread > UNREAD_BYTES_MAX:
        headers.append((b"connection", b"close"))


async def _live(receive: Receive, send: Send) -> None:
    """Answer the lifespan protocol: there is nothing to start or to stop here."""
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return

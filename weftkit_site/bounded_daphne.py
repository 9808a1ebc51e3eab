"""Daphne with bounds: `python -m weftkit_site.bounded_daphne -e ... application`.

Daphne takes a whole body in, to disk and then to memory, before any of our code sees the request.
So the bound must be here; who is cut off has sent more than any request of ours can need. It also
writes a streamed answer as fast as the application makes it, whatever the client takes; here the
application waits.
"""

from __future__ import annotations

import asyncio
from typing import Any

from daphne import http_protocol
from daphne.cli import CommandLineInterface
from daphne.server import Server

# Above the REST API's own bound, which answers with a problem, and what a form may hold.
BODY_BYTES_MAX = 4 * 1024 * 1024
ANSWER = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Flow:
    """A Twisted push producer that only remembers whether it may produce."""

    def __init__(self) -> None:
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()

    def pauseProducing(self) -> None:  # noqa: N802 (Twisted's names)
        self._may_go_on.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        self._may_go_on.set()

    def stopProducing(self) -> None:  # noqa: N802
        self._may_go_on.set()

    async def wait(self) -> None:
        await self._may_go_on.wait()


class BoundedRequest(http_protocol.WebRequest):
    """Ends the connection of a body that is said to be, or becomes, too large."""

    flow: Flow | None = None

    async def taken(self) -> None:
        """Return once the client has taken most of what was written, or is gone."""
        if self.flow is None and self.channel is not None:
            self.flow = Flow()
            self.registerProducer(self.flow, True)
        if self.flow is not None:
            await self.flow.wait()

    def finish(self) -> None:
        if self.flow is not None:
            self.unregisterProducer()
        super().finish()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        if self.flow is not None:
            self.flow.stopProducing()
        super().connectionLost(reason)

    def gotLength(self, length: int | None) -> None:  # noqa: N802 (Twisted's name)
        super().gotLength(length)
        if length is not None and length > BODY_BYTES_MAX:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        if self.content.tell() + len(data) > BODY_BYTES_MAX:
            self._refuse()
        else:
            super().handleContentChunk(data)

    def _refuse(self) -> None:
        transport = self.channel.transport
        if not transport.disconnecting:
            transport.write(ANSWER)
            transport.loseConnection()


class BoundedServer(Server):
    """Lets an application that streams wait for its client."""

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        await super().handle_reply(protocol, message)
        if isinstance(protocol, BoundedRequest) and message.get("more_body"):
            await protocol.taken()


class BoundedCommandLine(CommandLineInterface):
    server_class = BoundedServer


def main() -> None:
    """Serve until told to end."""
    # Daphne's factory looks the class up by this name at each connection.
    http_protocol.WebRequest = BoundedRequest
    BoundedCommandLine.entrypoint()


if __name__ == "__main__":
    main()

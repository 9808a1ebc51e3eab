"""Daphne with a bound on bodies: `python -m weftkit_site.bounded_daphne -e ... application`.

Daphne takes a whole body in, to disk and then to memory, before any of our code sees the request.
So the bound must be here; who is cut off has sent more than any request of ours can need.
"""

from __future__ import annotations

from daphne import http_protocol
from daphne.cli import CommandLineInterface

# Above the REST API's own bound, which answers with a problem, and what a form may hold.
BODY_BYTES_MAX = 4 * 1024 * 1024
ANSWER = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BoundedRequest(http_protocol.WebRequest):
    """Ends the connection of a body that is said to be, or becomes, too large."""

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


def main() -> None:
    """Serve until told to end."""
    # Daphne's factory looks the class up by this name at each connection.
    http_protocol.WebRequest = BoundedRequest
    CommandLineInterface.entrypoint()


if __name__ == "__main__":
    main()

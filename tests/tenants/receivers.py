"""Real HTTP receivers of webhooks, on a port of 127.0.0.1, that keep what they were sent."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Receiver:
    """What came, and what is answered next: `answers` first, then 204."""

    url: str = ""
    answers: list[tuple[int, Mapping[str, str], bytes]] = field(default_factory=list)
    seen: list[tuple[dict[str, str], str]] = field(default_factory=list)
    # Wait before the answer, or within it.
    hold: threading.Event | None = None
    stall: threading.Event | None = None

    def will_answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, named, body))

    @property
    def message_ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.seen]


@contextmanager
def receiving(certificate: Path | None = None, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """Serve a receiver while the block runs; with TLS if there is a folder with a certificate."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.seen.append((headers, body))
            if receiver.hold is not None:
                receiver.hold.wait(60)
            if receiver.stall is not None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nSlow: ")  # and then nothing for long
                receiver.stall.wait(60)
                return
            status, extra, answer = receiver.answers.pop(0) if receiver.answers else (204, {}, b"")
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hooks?x=1"
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "server.crt", certificate / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        receiver.url = f"https://{host}:{server.server_port}/hooks".replace(
            "127.0.0.1", "localhost"
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        for event in (receiver.hold, receiver.stall):
            if event is not None:
                event.set()
        server.shutdown()
        thread.join(10)
        server.server_close()

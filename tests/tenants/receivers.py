"""Real HTTP receivers of webhooks, on a port of 127.0.0.1, that keep what they were sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What came, and what is answered next: `answers` first, then 204."""

    url: str = ""
    answers: list[tuple[int, Mapping[str, str], bytes]] = field(default_factory=list)
    seen: list[tuple[dict[str, str], str]] = field(default_factory=list)
    hold: threading.Event | None = None

    def will_answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, named, body))

    @property
    def message_ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.seen]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Serve a receiver while the block runs."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.seen.append((headers, body))
            if receiver.hold is not None:
                receiver.hold.wait(60)
            status, extra, answer = receiver.answers.pop(0) if receiver.answers else (204, {}, b"")
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hooks?x=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        server.shutdown()
        thread.join(10)
        server.server_close()

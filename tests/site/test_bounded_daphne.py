"""The web server takes in no larger body than we have use for, and gives none out too fast."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import temporary_home, wait_until
from weftkit_site.bounded_daphne import BODY_BYTES_MAX

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def web_server(application: str) -> Iterator[str]:
    """Run a web server that needs no database; its socket."""
    environment = {name: value for name, value in os.environ.items() if "WEFTKIT" not in name}
    environment["DJANGO_SETTINGS_MODULE"] = "weftkit_site.settings.test"
    with temporary_home() as root:
        path = root / "web.sock"
        server = subprocess.Popen(
            [sys.executable, "-m", "weftkit_site.bounded_daphne", "-v", "0", "-u", str(path),
             application],
            cwd=ROOT, env=environment,
        )  # fmt: skip
        try:
            wait_until(path.exists, "the web server listens", 30)
            yield str(path)
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The socket of our own application."""
    with web_server("weftkit_site.asgi:application") as path:
        yield path


@pytest.fixture(scope="module")
def stream_address() -> Iterator[str]:
    """The socket of an application that streams as fast as it may."""
    with web_server("tests.site.streaming:application") as path:
        yield path


def first_line(address: str, head: str, body: bytes) -> str:
    """Send a request whose body may be cut off; return the answer's first line."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(address)
        connection.sendall(f"POST /healthz HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(body)
        return connection.makefile("rb").readline().decode().strip()


def test_body_that_is_said_to_be_too_large_is_refused_before_it_is_sent(address: str) -> None:
    head = f"Content-Length: {BODY_BYTES_MAX + 1}"
    assert first_line(address, head, b"") == "HTTP/1.1 413 Content Too Large"


def test_body_that_grows_too_large_is_cut_off(address: str) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    body = chunk * (BODY_BYTES_MAX // 0x10000 + 1)
    assert first_line(address, "Transfer-Encoding: chunked", body) == (
        "HTTP/1.1 413 Content Too Large"
    )


def test_body_within_the_bound_reaches_the_application(address: str) -> None:
    head = f"Content-Length: {BODY_BYTES_MAX}"
    assert (
        first_line(address, head, bytes(BODY_BYTES_MAX)) == "HTTP/1.1 403 Forbidden"
    )  # no CSRF token


def ask(address: str, path: str) -> httpx.Response:
    transport = httpx.HTTPTransport(uds=address)
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=20) as client:
        return client.get(path)


def progress(address: str) -> dict[str, int]:
    """Return what the streaming application says of its streams."""
    state: dict[str, int] = ask(address, "/progress").json()
    return state


def test_stream_waits_for_a_client_that_does_not_read_and_ends_with_it(stream_address: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(stream_address)
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        seen = [-1]

        def stands_still() -> bool:
            before, seen[0] = seen[0], progress(stream_address)["sent_bytes"]
            return seen[0] == before

        wait_until(stands_still, "the stream waits")
        assert 0 < seen[0] < 8 * 1024 * 1024
        taken = 0
        while taken < 32 * 1024 * 1024:
            taken += len(connection.recv(1 << 20))
        assert progress(stream_address)["sent_bytes"] >= 30 * 1024 * 1024
        assert progress(stream_address)["open"] == 1
    wait_until(lambda: progress(stream_address)["open"] == 0, "the stream ends with its client")


def test_stream_that_is_read_arrives_whole(stream_address: str) -> None:
    assert len(ask(stream_address, "/short").content) == 16 * 1024 * 1024

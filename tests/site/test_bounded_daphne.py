"""The web server takes no body in that is larger than anything we could do with it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import temporary_home, wait_until
from weftkit_site.bounded_daphne import BODY_BYTES_MAX

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The socket of a web server that needs no database for what is asked here."""
    environment = {name: value for name, value in os.environ.items() if "WEFTKIT" not in name}
    environment["DJANGO_SETTINGS_MODULE"] = "weftkit_site.settings.test"
    with temporary_home() as root:
        path = root / "web.sock"
        server = subprocess.Popen(
            [sys.executable, "-m", "weftkit_site.bounded_daphne", "-v", "0", "-u", str(path),
             "weftkit_site.asgi:application"],
            cwd=ROOT, env=environment,
        )  # fmt: skip
        try:
            wait_until(path.exists, "the web server listens", 30)
            yield str(path)
        finally:
            server.terminate()
            server.wait(20)


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

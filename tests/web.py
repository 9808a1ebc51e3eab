"""A live web server, as `make up` starts it, on the test database."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.servers import PostgresServer, RedisServer, wait_until

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def run_web(
    postgres: PostgresServer,
    redis: RedisServer,
    home: Path,
    *,
    database: str,
    settings: str,
    **more: str,
) -> Iterator[str]:
    """Start daphne with the settings module `settings` and more environment; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.mkdir(exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if "WEFTKIT" not in name},
        "DJANGO_SETTINGS_MODULE": settings,
        "WEFTKIT_HOME": str(home),
        "WEFTKIT_DATABASE_URL": postgres.dsn(database),
        "WEFTKIT_REDIS_URL": f"unix://{redis.socket}",
        "WEFTKIT_PORT_OFFSET": "0",
        **more,
    }
    log = home / "daphne.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "weftkit_site.bounded_daphne", "-v", "0",
                "-e", f"tcp:{port}:interface=127.0.0.1", "weftkit_site.asgi:application",
            ],
            cwd=ROOT, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{address}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, "daphne answers")
        yield address
    finally:
        process.terminate()
        process.wait(15)

"""The operator's port: metrics of all workers, health, readiness. Not for tenants.

Every worker serves it on the same port (SO_REUSEPORT), and every one of them can answer for all,
because metrics meet in files, the instance host's as well. `/healthz` says that this worker's loop
turns; `/readyz` says that it knows the records and takes connections, and turns false before
anything else when it drains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from dataplane.observe import metrics, tally

Answer = tuple[int, str, bytes]
_TEXT = "text/plain; charset=utf-8"


class AdminApp:
    """The ASGI application."""

    def __init__(self, is_ready: Callable[[], bool], host_metrics: Path) -> None:
        self._is_ready = is_ready
        self._host_metrics = host_metrics
        self._routes: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/healthz": self._healthz,
            "/metrics": self._metrics,
            "/readyz": self._readyz,
        }

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        route = self._routes.get(scope["path"])
        if scope["method"] not in ("GET", "HEAD"):
            status, content_type, body = 405, _TEXT, b"method not allowed\n"
        elif route is None:
            status, content_type, body = 404, _TEXT, b"not found\n"
        else:
            status, content_type, body = await route()
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _healthz(self) -> Answer:
        return 200, _TEXT, b"ok\n"

    async def _readyz(self) -> Answer:
        return (200, _TEXT, b"ready\n") if self._is_ready() else (503, _TEXT, b"not ready\n")

    async def _metrics(self) -> Answer:
        tally.flush()
        # Reads the files of all workers: not on the loop.
        return 200, metrics.CONTENT_TYPE, await asyncio.to_thread(metrics.page, self._host_metrics)

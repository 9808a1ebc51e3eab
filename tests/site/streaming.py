"""An ASGI application that streams as fast as the server lets it, and says how far it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

PIECE = b"x" * (256 * 1024)
state = {"sent_bytes": 0, "open": 0}


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Stream without end at `/stream`, 16 MiB at `/short`; count at `/progress`."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/progress":
        await send({"type": "http.response.body", "body": json.dumps(state).encode()})
        return
    pieces = 64 if scope["path"] == "/short" else 1 << 40
    await receive()
    gone = asyncio.create_task(receive())
    state["open"] += 1
    try:
        for _ in range(pieces):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            state["sent_bytes"] += len(PIECE)
            await asyncio.sleep(0)  # as a real application does between two pieces
            if gone.done():
                return
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()
        state["open"] -= 1

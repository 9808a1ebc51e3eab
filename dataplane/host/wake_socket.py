"""Where the data plane asks for an instance to be woken: `<run>/host/wake.sock`, mode 0600.

    C: the instance's UUID, 16 bytes
    S: one byte: 1 clients can connect now; 0 they cannot, and waiting here will not help

The answer comes once it is known. Who does not wait for it closes the connection. Nothing is
promised about an answer: the host may be restarted at any time, and is asked again then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import structlog

QUESTION_BYTES = 16
READY = b"\x01"
REFUSED = b"\x00"
QUESTION_SECONDS_MAX = 1.0
ANSWER_SECONDS_MAX = 10.0
# Every worker asks once for an instance; more than this are not even read.
QUESTIONS_MAX = 1024

log = structlog.get_logger("host")

# Returns once clients can connect to the instance (True), or cannot (False).
Wake = Callable[[str], Awaitable[bool]]


class WakeSocket:
    """Takes questions until it is closed."""

    def __init__(self, path: Path, wake: Wake) -> None:
        self._path = path
        self._wake = wake
        self._open = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Left by a host that was killed.
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, str(self._path), limit=QUESTION_BYTES, backlog=QUESTIONS_MAX
        )
        self._path.chmod(0o600)

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= QUESTIONS_MAX:
                await self._answer(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # the worker is gone, or asks nothing
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(QUESTION_SECONDS_MAX):
            instance_id = str(UUID(bytes=await reader.readexactly(QUESTION_BYTES)))
        waking = asyncio.ensure_future(self._wake(instance_id))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait(
                (waking, gone), timeout=ANSWER_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED
            )
            if waking.done():
                writer.write(READY if waking.result() else REFUSED)
                await writer.drain()
        finally:
            waking.cancel()
            gone.cancel()

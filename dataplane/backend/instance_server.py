"""Opens connections to instances' own servers, on the unix sockets that the host gives them.

Where nobody listens the instance sleeps, or its server is being started again: the host is asked to
wake it, once for all connections of this worker that want it, and answers when it can be connected
to. Without an answer (the host is being restarted itself) the socket is tried again until the
deadline, more slowly each time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from dataplane.host import wake_socket
from dataplane.host.paths import postgres_socket, redis_socket
from dataplane.host.paths import wake_socket as wake_socket_path
from dataplane.server.channel import StreamChannel
from engines.kit.contract import Placement
from engines.kit.errors import Reason, RequestError
from engines.kit.records import InstanceRecord

RETRY_SECONDS_MIN = 0.01
RETRY_SECONDS_MAX = 0.25

SocketOf = Callable[[Path, str], Path]

SOCKETS: dict[Placement, SocketOf] = {
    Placement.POSTGRES_SERVER: postgres_socket,
    Placement.REDIS_SERVER: redis_socket,
}


class InstanceServers:
    """The way from one worker to every instance's server."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._questions: dict[str, asyncio.Task[bool]] = {}

    async def connect(
        self, placement: Placement, record: InstanceRecord, *, within_s: float
    ) -> StreamChannel:
        """Return a connection to the instance's server. Raises RequestError(BACKEND)."""
        path = str(SOCKETS[placement](self._run_dir, record.instance_id))
        loop = asyncio.get_running_loop()
        delay = RETRY_SECONDS_MIN
        was_woken = False
        try:
            async with asyncio.timeout(within_s):
                while True:
                    channel = StreamChannel()
                    with contextlib.suppress(OSError):
                        await loop.create_unix_connection(channel.as_protocol, path)
                        return channel
                    # A server that dies as soon as it is awake must not turn this into a spin.
                    if not await self._wake(record.instance_id) or was_woken:
                        await asyncio.sleep(delay)
                        delay = min(delay * 2, RETRY_SECONDS_MAX)
                    else:
                        was_woken = True
        except TimeoutError as error:
            raise RequestError(
                Reason.BACKEND, "the instance's server cannot be reached; try again later"
            ) from error

    async def _wake(self, instance_id: str) -> bool:
        """Ask the host, or wait for the answer that somebody else here waits for already."""
        question = self._questions.get(instance_id)
        if question is None:
            question = asyncio.create_task(self._ask(instance_id))
            self._questions[instance_id] = question
            question.add_done_callback(lambda _: self._questions.pop(instance_id))
        # One client that gives up must not take the answer from the others.
        return await asyncio.shield(question)

    async def _ask(self, instance_id: str) -> bool:
        try:
            async with asyncio.timeout(wake_socket.ANSWER_SECONDS_MAX):
                reader, writer = await asyncio.open_unix_connection(
                    str(wake_socket_path(self._run_dir)), limit=len(wake_socket.READY)
                )
                with contextlib.closing(writer):
                    writer.write(UUID(instance_id).bytes)
                    return await reader.read(1) == wake_socket.READY
        except (OSError, TimeoutError):
            return False

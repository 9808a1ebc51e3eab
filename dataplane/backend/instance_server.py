"""Opens connections to an instance's own server, on the unix socket that the host gives it.

The host may be starting the server, or starting it again after it died: until the deadline the
socket is tried again, more slowly each time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from dataplane.host.paths import postgres_socket, redis_socket
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


async def connect(
    run_dir: Path, placement: Placement, record: InstanceRecord, *, within_s: float
) -> StreamChannel:
    """Return a connection to the instance's server. Raises RequestError(BACKEND)."""
    path = SOCKETS[placement](run_dir, record.instance_id)
    loop = asyncio.get_running_loop()
    delay = RETRY_SECONDS_MIN
    try:
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(OSError):
                    return (await loop.create_unix_connection(StreamChannel, str(path)))[1]
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_SECONDS_MAX)
    except TimeoutError as error:
        raise RequestError(
            Reason.BACKEND, "the instance's server cannot be reached; try again later"
        ) from error

"""SIGTERM: leave without breaking a request that can be finished.

1. readiness turns false; listeners take what the kernel holds, then close
2. sessions that idle are told goodbye at once, busy ones after their request
3. after the grace period the rest is told goodbye where it stands
4. last bytes get `linger_s` to leave
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from dataplane.observe.log import get_logger
from dataplane.server.listener import Listener
from dataplane.server.ports import Services
from engines.kit.errors import Reason, RequestError

# A look at a condition that nothing announces; only while draining.
_LOOK_S = 0.02


async def drain(services: Services, listeners: Iterable[Listener]) -> None:
    """End all sessions; returns when none is left, or when their time is up."""
    log = get_logger("drain")
    sessions, bounds = services.sessions, services.config.bounds
    farewell = RequestError(Reason.SHUTDOWN, "this server is shutting down; connect again")
    services.is_draining = True
    listeners = list(listeners)
    for listener in listeners:
        listener.stop()
    log.info("draining", connections=services.connections)
    for session in sessions:
        session.end_when_idle(farewell)
    for front in services.fronts:
        front.drain()
    # Sign-ins under way are refused with SHUTDOWN by `admit_login`, or have been admitted before.
    for listener in listeners:
        await listener.wait_signed_in(bounds.handshake_timeout_s)
    for session in sessions:
        session.end_when_idle(farewell)
    for front in services.fronts:
        front.drain()
    if not await _within(bounds.drain_grace_s, lambda: not services.connections):
        log.warning("requests_cut_off", connections=services.connections)
    for session in sessions:
        session.end(farewell)
    for front in services.fronts:
        front.abort()
    await _within(bounds.linger_s, lambda: not sessions.closing)
    log.info("drained")


async def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until `condition` holds, for at most `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(_LOOK_S)
    return True
